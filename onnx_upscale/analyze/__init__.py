"""analyze: which channels are coupled, which hold a known value, which anybody needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from onnx_upscale.analyze.constants import Values, find_constants
from onnx_upscale.analyze.needs import find_needs
from onnx_upscale.analyze.segments import Segment, find_segments
from onnx_upscale.analyze.trace import Trace, trace
from onnx_upscale.analyze.weights import BoolArray, UsedWeights
from onnx_upscale.load.graph import Graph, IntArray

__all__ = ["Analysis", "Segment", "Trace", "analyze"]


@dataclass(frozen=True)
class Analysis:
    """All that is known about the channels of a graph.

    Attributes:
        trace: Labels, and what each node does with them.
        values: Per label its known value, or NaN.
        used: The non-zero weights of each layer.
        segments: The closed sets of coupled axes.
        needed: Per label, whether anybody needs its channel.
        reads: Per reader (by node index), which input channels it needs.
    """

    trace: Trace
    values: Values
    used: UsedWeights
    segments: tuple[Segment, ...]
    needed: BoolArray
    reads: Mapping[int, BoolArray]

    @property
    def graph(self) -> Graph:
        """The graph that was analyzed."""
        return self.trace.graph

    def keeping(self, wanted: IntArray) -> Analysis:
        """The same analysis with some more roots kept, and what they need in turn."""
        needed, reads = find_needs(self.trace, self.values, self.used, wanted)
        return replace(self, needed=needed, reads=reads)


def analyze(graph: Graph) -> Analysis:
    """Analyzes a graph seen through its masks.

    Args:
        graph: The graph.

    Returns:
        What is coupled, known and needed.
    """
    traced = trace(graph)
    used = UsedWeights(graph)
    values = find_constants(traced, used)
    needed, reads = find_needs(traced, values, used)
    return Analysis(traced, values, used, find_segments(traced), needed, reads)
