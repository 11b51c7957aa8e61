"""analyze: which channels are coupled, which hold a known value, which anybody needs.

The structure of a graph is found once; what masks add to it is a second, cheaper step.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnx_upscale.optimizer.analyze.constants import Values, find_constants
from onnx_upscale.optimizer.analyze.head_order import with_own_orders
from onnx_upscale.optimizer.analyze.needs import Needs, find_needs
from onnx_upscale.optimizer.analyze.segments import Segment
from onnx_upscale.optimizer.analyze.structure import HeadOrder, Structure, find_structure
from onnx_upscale.optimizer.analyze.weights import MaskedWeights
from onnx_upscale.optimizer.load.graph import Graph, IntArray

__all__ = ["Analysis", "Needs", "Segment", "Structure", "analyze", "find_structure"]


@dataclass(frozen=True)
class Analysis:
    """All that is known about the channels of a graph under masks.

    Attributes:
        structure: What follows from the graph alone.
        graph: The graph seen through masks.
        values: Per label its known value, or NaN.
        weights: The non-zero weights of each layer.
        needs: What anybody needs.
        plain: The structure in which all heads have the same order.
        in_step: Roots of channels that have the same order in all heads, whatever it gains.
    """

    structure: Structure
    graph: Graph
    values: Values
    weights: MaskedWeights
    needs: Needs
    plain: Structure
    in_step: frozenset[int] = frozenset()

    @cached_property
    def any_known(self) -> bool:
        """Whether the value of any channel is known."""
        return not np.isnan(self.values).all()

    def masked(self, graph: Graph) -> Analysis:
        """The same of the graph under other masks."""
        return analyze(graph, self.plain, self.in_step)

    def with_heads_in_step(self, orders: Iterable[HeadOrder]) -> Analysis:
        """The same, without some orders that differ from head to head."""
        channels = (channel for each in orders for channel in each.channels.tolist())
        return analyze(self.graph, self.plain, self.in_step.union(channels))

    def keeping(self, wanted: IntArray) -> Needs:
        """What is needed, with some more roots kept, and what they take to compute in turn."""
        return find_needs(self.structure, self.values, self.weights, wanted)


def analyze(
    graph: Graph, structure: Structure | None = None, in_step: frozenset[int] = frozenset()
) -> Analysis:
    """Analyzes a graph under masks.

    Args:
        graph: The graph seen through masks.
        structure: Its structure, where that is known already.
        in_step: Roots of channels that have the same order in all heads.

    Returns:
        What is coupled, known and needed.
    """
    structure = structure or find_structure(graph)
    weights = MaskedWeights(structure.weights, graph)
    values = find_constants(structure, graph, weights)
    needs = find_needs(structure, values, weights)
    own = with_own_orders(structure, values, needs, in_step)
    if own is not structure:
        values = find_constants(own, graph, weights)
        needs = find_needs(own, values, weights)
    return Analysis(own, graph, values, weights, needs, structure, in_step)
