"""plan: which channels stay, in which order, and how each reader and writer copes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnx_upscale.analyze import Analysis, Needs
from onnx_upscale.load.values import Array
from onnx_upscale.plan.arrange import arrange
from onnx_upscale.plan.cost import Costs
from onnx_upscale.plan.grow import grow_masks
from onnx_upscale.plan.keep import align
from onnx_upscale.plan.layout import Layout, is_empty, join_order, misfits
from onnx_upscale.plan.program import program
from onnx_upscale.plan.realize import ReaderPlan, WriterPlan, realize_reader, realize_writer
from onnx_upscale.prices import Kernel, Prices

__all__ = [
    "STRATEGIES",
    "Layout",
    "Plan",
    "ReaderPlan",
    "WriterPlan",
    "grow_masks",
    "is_empty",
    "join_order",
    "plan",
]

STRATEGIES = ("auto", "upscale", "gather", "constrained")


@dataclass(frozen=True)
class Plan:
    """All decisions about one model.

    Attributes:
        analysis: What they rest on.
        kept: What the emitted model computes: all that is needed, and what else suits the target.
        layout: The kept channels of every axis, in order.
        readers: By node index, how each reader gets its channels; those not computed are missing.
        writers: By node index, how each writer fills its layout.
        prices: What it was planned by.
    """

    analysis: Analysis
    kept: Needs
    layout: Layout
    readers: Mapping[int, ReaderPlan]
    writers: Mapping[int, WriterPlan]
    prices: Prices

    @cached_property
    def kernels(self) -> tuple[Kernel, ...]:
        """What the emitted model runs as in onnxruntime."""
        steps = program(self.analysis, self.layout, self.readers, self.writers)
        return self.prices.kernels(steps)

    @property
    def seconds(self) -> float:
        """The predicted latency of the emitted model, all nodes included; one thread, batch 1."""
        return sum(self.prices.kernel(kernel) for kernel in self.kernels)

    @property
    def estimated(self) -> tuple[str, ...]:
        """The families of kernels whose prices were not measured for shapes like these."""
        return tuple(sorted({k.family for k in self.kernels if not self.prices.knows(k)}))

    def view(self, tensor: str, value: Array) -> Array:
        """What the emitted model holds of a tensor.

        Args:
            tensor: Its name.
            value: What the original model holds in it.

        Returns:
            The channels that are kept, in their order.
        """
        for axis, labels in self.analysis.structure.axes.get(tensor, {}).items():
            value = value.take(self.layout.positions(labels), axis)
        return value


def plan(analysis: Analysis, strategy: str, prices: Prices) -> Plan:
    """Decides what to emit.

    Args:
        analysis: The analysis.
        strategy: One of `STRATEGIES`.
        prices: What work costs on the target that `auto` plans for.

    Returns:
        The plan.
    """
    kept = align(analysis, prices) if strategy == "auto" else analysis.needs
    kept, layout = _lay_out(analysis, kept, strategy)
    costs = Costs(analysis.graph, prices)
    readers: dict[int, ReaderPlan] = {}
    writers: dict[int, WriterPlan] = {}
    for segment in analysis.structure.segments:
        for read in segment.readers:
            chosen = realize_reader(kept, layout, costs, read, strategy)
            if chosen is not None:
                readers[read.layer.node.index] = chosen
        for writer in segment.writers:
            writers[writer.node.index] = realize_writer(
                analysis, layout, costs, writer.write, strategy
            )
    return Plan(analysis, kept, layout, readers, writers, prices)


def _lay_out(analysis: Analysis, kept: Needs, strategy: str) -> tuple[Needs, Layout]:
    """Orders all segments; one whose nodes cannot follow keeps all its channels as they were."""
    structure = analysis.structure
    roots, segments = structure.roots, structure.segments
    rank = np.zeros(len(roots), np.int64)
    segment_of = np.zeros(len(roots), np.int64)
    for segment in segments:
        order = arrange(structure, kept, segment, strategy)
        rank[order] = np.arange(len(order))
        segment_of[segment.roots] = segment.id
    segment_of = segment_of[roots]
    frozen = np.zeros(len(segments), bool)
    while True:
        layout = Layout(roots, kept.labels, rank, frozen[segment_of])
        wrong = misfits(structure, layout)
        if not wrong:
            return kept, layout
        frozen[np.unique(segment_of[np.concatenate(wrong)])] = True
        unchanged = roots[np.flatnonzero(frozen[segment_of])]
        kept = analysis.keeping(np.union1d(unchanged, roots[kept.labels]))
