"""plan: which channels stay, in which order, and how each reader and writer copes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnx_upscale.optimizer.analyze import Analysis, Needs, Structure
from onnx_upscale.optimizer.analyze.labels import distinct
from onnx_upscale.optimizer.analyze.structure import HeadOrder
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.optimizer.plan.arrange import arrange
from onnx_upscale.optimizer.plan.check import PlanError, check_node, check_reader, check_writer
from onnx_upscale.optimizer.plan.cost import Costs
from onnx_upscale.optimizer.plan.edits import (
    Convolve,
    Edit,
    PoolFirst,
    Select,
    SelectParts,
    Shift,
    Unblock,
    Widen,
)
from onnx_upscale.optimizer.plan.grow import grow_masks
from onnx_upscale.optimizer.plan.keep import align
from onnx_upscale.optimizer.plan.layout import Layout, is_empty, misfits
from onnx_upscale.optimizer.plan.program import program
from onnx_upscale.optimizer.plan.readings import Reading, Way
from onnx_upscale.optimizer.plan.realize import Preferred, realize_reader, realize_writer
from onnx_upscale.optimizer.plan.strategy import Strategy
from onnx_upscale.optimizer.plan.writings import Writing
from onnx_upscale.prices import KINDS, Kernel, Prices, Program

__all__ = [
    "Convolve",
    "Costs",
    "Edit",
    "Layout",
    "Plan",
    "PlanError",
    "PoolFirst",
    "Preferred",
    "Reading",
    "Select",
    "SelectParts",
    "Shift",
    "Strategy",
    "Unblock",
    "Way",
    "Widen",
    "Writing",
    "as_it_is",
    "check_plan",
    "grow_masks",
    "is_empty",
    "keep_all",
    "plan",
    "plan_keeping",
]


@dataclass(frozen=True)
class Plan:
    """All decisions about one model.

    Attributes:
        analysis: What they rest on.
        kept: What the emitted model computes: all that is needed, and what else suits the target.
        layout: The kept channels of every axis, in order.
        readers: By node index, how each reader gets its channels; those not computed are missing.
        writers: By node index, how each writer fills its layout.
        edits: By node index, what changes on the edges of a node, in the order of the edges.
        prices: What it was planned by.
    """

    analysis: Analysis
    kept: Needs
    layout: Layout
    readers: Mapping[int, Reading]
    writers: Mapping[int, Writing]
    edits: Mapping[int, tuple[Edit, ...]]
    prices: Prices

    @cached_property
    def program(self) -> Program:
        """What the emitted model does, node by node."""
        return program(self.analysis, self.layout, self.writers, self.edits)

    @cached_property
    def kernels(self) -> tuple[Kernel, ...]:
        """What the emitted model runs as in onnxruntime."""
        return self.prices.kernels(self.program)

    @property
    def seconds(self) -> float:
        """The predicted latency of the emitted model, all nodes included; one thread, batch 1."""
        return sum(self.prices.kernel(kernel) for kernel in self.kernels)

    @property
    def seconds_by_kind(self) -> Mapping[str, float]:
        """The same apart for computing, copies and changes of layout (`KINDS`)."""
        found = dict.fromkeys(KINDS, 0.0)
        for kernel in self.kernels:
            found[kernel.kind] += self.prices.kernel(kernel)
        return found

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
        structure = self.analysis.structure
        axes = structure.axes.get(tensor, {})
        roots = {axis: structure.roots[labels] for axis, labels in axes.items()}
        for order in structure.head_orders:
            value = order.view(value, roots)
        for axis, labels in axes.items():
            value = value.take(self.layout.positions(labels), axis)
        return value


_NONE = Preferred()


def plan(
    analysis: Analysis,
    strategy: Strategy | str,
    prices: Prices | Costs,
    preferred: Preferred = _NONE,
) -> Plan:
    """Decides what to emit.

    Args:
        analysis: The analysis.
        strategy: The strategy, or what it is called.
        prices: What work costs on the target that `auto` plans for. Who plans for the same
            structure again keeps `Costs`, which remember what they were asked.
        preferred: Ways to read and to write that `auto` takes whatever they cost.

    Returns:
        The plan.
    """
    strategy = Strategy(strategy)
    while True:
        costs = _costs(analysis.structure, prices)
        kept = align(analysis, costs) if strategy is Strategy.AUTO else analysis.needs
        kept, layout, failed = lay_out(analysis, kept, strategy)
        if not failed:
            break
        analysis = analysis.with_heads_in_step(failed)
    return _realized(analysis, kept, layout, costs, strategy, preferred)


def plan_keeping(analysis: Analysis, kept: Needs, costs: Costs) -> Plan | None:
    """The plan that `auto` makes if it is to keep some channels, and no others.

    Args:
        analysis: The analysis.
        kept: The channels: all that is needed, and others.
        costs: Prices for its structure.

    Returns:
        None where channels of heads would not stay in step.
    """
    kept, layout, failed = lay_out(analysis, kept, Strategy.AUTO)
    return None if failed else _realized(analysis, kept, layout, costs, Strategy.AUTO, _NONE)


def keep_all(analysis: Analysis, prices: Prices | Costs) -> Plan:
    """The plan by which no channel leaves: the masked model, its masked weights zero.

    Args:
        analysis: The analysis.
        prices: What work costs on the target.
    """
    analysis = analysis.with_heads_in_step(analysis.structure.head_orders)
    kept = analysis.keeping(distinct(analysis.structure.roots))
    kept, layout, _ = lay_out(analysis, kept, Strategy.CONSTRAINED)
    costs = _costs(analysis.structure, prices)
    return _realized(analysis, kept, layout, costs, Strategy.CONSTRAINED, _NONE)


def _realized(
    analysis: Analysis,
    kept: Needs,
    layout: Layout,
    costs: Costs,
    strategy: Strategy,
    preferred: Preferred,
) -> Plan:
    """What readers and writers do in a layout."""
    readers: dict[int, Reading] = {}
    writers: dict[int, Writing] = {}
    for segment in analysis.structure.segments:
        for read in segment.readers:
            index = read.layer.node.index
            way = preferred.readers.get(index)
            chosen = realize_reader(kept, layout, costs, read, strategy, way)
            if chosen is not None:
                readers[index] = chosen
    layout = _narrowed(layout, readers)
    for segment in analysis.structure.segments:
        for writer in segment.writers:
            index = writer.node.index
            way = preferred.writers.get(index)
            writers[index] = realize_writer(analysis, layout, costs, writer.write, strategy, way)
    edits = edits_of(analysis, readers, writers)
    if strategy is Strategy.AUTO:
        edits = {**edits, **dict(_poolings(analysis, costs, readers, writers, edits))}
    return Plan(analysis, kept, layout, readers, writers, edits, costs.prices)


def as_it_is(analysis: Analysis, prices: Prices) -> Plan:
    """What stands for the model before anything is done, only to predict what it takes.

    Args:
        analysis: The analysis, under whatever masks.
        prices: What work costs on the target.
    """
    structure, costs = analysis.structure, Costs(analysis.structure, prices)
    every = np.ones(len(structure.roots), bool)
    layout = Layout(structure.roots, every, np.zeros(len(every), np.int64), frozen=every)
    writers = {
        writer.node.index: realize_writer(analysis, layout, costs, writer.write, Strategy.GATHER)
        for segment in structure.segments
        for writer in segment.writers
    }
    kept = Needs(every, analysis.needs.reads)
    return Plan(analysis, kept, layout, {}, writers, {}, prices)


def _costs(structure: Structure, prices: Prices | Costs) -> Costs:
    if not isinstance(prices, Costs):
        return Costs(structure, prices)
    # Orders of heads that follow from masks make another structure.
    return prices if prices.structure is structure else Costs(structure, prices.prices)


def _narrowed(layout: Layout, readers: Mapping[int, Reading]) -> Layout:
    """The layout, in which some axes before readers hold no more than what these read."""
    narrow: dict[bytes, IntArray] = {}
    for reading in readers.values():
        if axes := reading.narrow():
            narrow.update(dict.fromkeys(axes, reading.positions))
    return layout.narrowed(narrow) if narrow else layout


def edits_of(
    analysis: Analysis, readers: Mapping[int, Reading], writers: Mapping[int, Writing]
) -> Mapping[int, tuple[Edit, ...]]:
    """What changes on edges: before a reader, in or behind its sums, and behind a writer."""
    found: dict[int, list[Edit]] = {}
    for index in (*readers, *(index for index in writers if index not in readers)):
        reading, writing = readers.get(index), writers.get(index)
        edits = reading.edits() if reading is not None else ()
        if reading is not None and writing is not None:
            edits += _absorbed(analysis, reading, writing)
        edits += writing.edits() if writing is not None else ()
        for edit in edits:
            found.setdefault(edit.node.index, []).append(edit)
    return {index: tuple(edits) for index, edits in found.items()}


def _poolings(
    analysis: Analysis,
    costs: Costs,
    readers: Mapping[int, Reading],
    writers: Mapping[int, Writing],
    edits: Mapping[int, tuple[Edit, ...]],
) -> Iterator[tuple[int, tuple[Edit, ...]]]:
    """The edits of layers that masks concern, and that had better come behind an average."""
    for index, pool in analysis.structure.poolings.items():
        reading, writing, own = readers.get(index), writers.get(index), edits.get(index, ())
        if reading is None or writing is None or any(isinstance(edit, Widen) for edit in own):
            continue
        layer, read, made = reading.read.layer, len(reading.positions), len(writing.positions)
        masked = reading.needed < layer.inputs or made < layer.outputs
        if masked and costs.pools_first(layer, read, made):
            yield index, (*own, PoolFirst(layer, pool))


def _absorbed(analysis: Analysis, reading: Reading, writing: Writing) -> tuple[Edit, ...]:
    """What channels of known value add, where they are no longer read."""
    read = reading.read
    if not read.absorbs or not analysis.any_known:
        return ()
    values = read.seen(analysis.values)
    lost = ~np.isnan(values)
    lost[reading.positions] = False
    if not np.count_nonzero(lost):
        return ()
    amounts = analysis.weights.contribution(read.layer, np.where(lost, values, 0.0))
    return (Shift(read.layer, writing.positions, amounts),) if amounts.any() else ()


def check_plan(plan: Plan) -> None:
    """Checks that every edge of a plan carries what its ends expect.

    Args:
        plan: The plan.

    Raises:
        PlanError: The plan contradicts itself.
    """
    for index, reading in plan.readers.items():
        check_reader(plan.layout, plan.kept, reading, plan.edits.get(index, ()))
    for facts in plan.analysis.structure.facts:
        if not is_empty(facts, plan.layout):
            check_node(plan.layout, facts, plan.edits.get(facts.node.index, ()))
    for index, writing in plan.writers.items():
        if len(plan.layout.positions(writing.write.outputs)):
            check_writer(plan.analysis, plan.layout, writing, plan.edits.get(index, ()))


def lay_out(
    analysis: Analysis, kept: Needs, strategy: Strategy
) -> tuple[Needs, Layout, list[HeadOrder]]:
    """Orders all segments; one whose nodes cannot follow keeps all its channels as they were.

    Returns:
        What is kept, the layout, and the orders that differ from head to head where that would be
        so: the layout is none, for then heads must be in step.
    """
    structure = analysis.structure
    roots, segments = structure.roots, structure.segments
    segment_of, rank = structure.segment_of, np.zeros(len(roots), np.int64)
    for segment in segments:
        order = arrange(structure, kept, segment, strategy)
        rank[order] = np.arange(len(order))
    frozen = np.zeros(len(segments), bool)
    while True:
        still = frozen[segment_of]
        laid = structure.all_axes.laid_out(kept.labels, rank, still)
        layout = Layout(roots, kept.labels, rank, still, laid)
        wrong = misfits(structure, layout)
        if wrong:
            frozen[distinct(segment_of[np.concatenate(wrong)])] = True
        failed = [each for each in structure.head_orders if frozen[segment_of[each.flats]].any()]
        if failed or not wrong:
            return kept, layout, failed
        unchanged = roots[np.flatnonzero(frozen[segment_of])]
        kept = analysis.keeping(distinct(np.concatenate([unchanged, roots[kept.labels]])))
