"""Segments: closed sets of coupled axes with their writers and readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnx_upscale.grain import Grain
from onnx_upscale.optimizer.analyze.facts import Axes, Concatenation, Demand, Facts, Read, Write
from onnx_upscale.optimizer.analyze.labels import LabelPool, distinct
from onnx_upscale.optimizer.analyze.sets import (
    ChannelSet,
    channel_sets,
    roots_stand_for,
    sets_in_blocks,
)
from onnx_upscale.optimizer.load.graph import IntArray, Node
from onnx_upscale.optimizer.load.layers import Layer


@dataclass(frozen=True)
class Writer:
    """A node that makes channels of a segment."""

    node: Node
    write: Write


@dataclass(frozen=True)
class Segment:
    """A closed set of coupled axes: whatever order its channels get, they share it.

    Attributes:
        id: Number of the segment, in the order of the model.
        roots: Its channels, one root each, in ascending order.
        writers: The nodes that make them.
        readers: The layers that contract them.
        concatenations: The Concats that lay parts of them side by side.
        demands: Who needs whole axes of them, and why.
        reads: For each of the readers, the axis that it contracts, as places in `roots`.
        parts: The different sets of channels that Concats take as one part, as places in `roots`.
        sets: The different sets of channels that its axes hold, smallest first.
        original: Its channels, as places in `roots`, in an order that follows the axes of the
            model, the longest first; what an axis is split into lies together.
        unchanged: The same, as long as all of them stay: nothing is brought together then.
        in_grid: Whether its order must stay, as some axis of it takes part in a grid.
    """

    id: int
    roots: IntArray
    writers: tuple[Writer, ...]
    readers: tuple[Read, ...]
    concatenations: tuple[Concatenation, ...]
    demands: tuple[Demand, ...]
    reads: tuple[IntArray, ...]
    parts: tuple[IntArray, ...]
    sets: tuple[ChannelSet, ...]
    original: IntArray
    unchanged: IntArray
    in_grid: bool

    @cached_property
    def writing_layers(self) -> tuple[tuple[Layer, IntArray | None], ...]:
        """The ungrouped layers that make its channels, and the axis that each contracts."""
        writes = (writer.write for writer in self.writers)
        made = ((write.layer, write.inputs) for write in writes)
        return tuple((layer, axis) for layer, axis in made if layer and layer.groups == 1)

    @cached_property
    def grain(self) -> Grain:
        """The largest grain of a layer that has to do with it."""
        layers = [writer.write.layer for writer in self.writers]
        layers += [read.layer for read in self.readers]
        return max((layer.grain for layer in layers if layer), default=Grain.CHANNEL)

    @cached_property
    def only_layers(self) -> bool:
        """Whether ungrouped layers are all there is to it."""
        layers = [writer.write.layer for writer in self.writers]
        if self.concatenations or self.demands:
            return False
        return all(layer is not None and layer.groups == 1 for layer in layers)


def find_segments(
    roots: IntArray,
    axes_of: Mapping[str, Axes],
    facts: Sequence[Facts],
    demands: Sequence[Demand],
) -> tuple[Segment, ...]:
    """Groups coupled axes.

    Args:
        roots: Per label its root.
        axes_of: The labelled axes of every tensor.
        facts: What is known of each node.
        demands: All demands.

    Returns:
        The segments, in the order in which the model first touches them.
    """
    arrays = _distinct_axes(roots, axes_of, facts)
    if not arrays:
        return ()
    pool = LabelPool()
    pool.fresh(len(roots))
    pool.couple(np.arange(len(roots)), roots)
    firsts = np.array([axis[0] for axis in arrays])
    pool.couple(np.repeat(firsts, [*map(len, arrays)]), np.concatenate(arrays))
    group_of = pool.all_roots()
    # A rule that gave up may have made labels that are on no axis.
    own = distinct(np.concatenate(arrays))
    order = np.argsort(group_of[own], kind="stable")
    heads, starts = np.unique(group_of[own][order], return_index=True)
    members = dict(zip(heads.tolist(), np.split(own[order], starts[1:]), strict=True))
    axes: dict[int, list[IntArray]] = {head: [] for head in members}
    for axis in arrays:
        axes[group_of[axis[0]]].append(axis)
    parties = _parties(facts, demands, group_of, heads.tolist())
    grids = [grid for each in facts for grid in each.grids if grid.ordered]
    in_grids = {int(group_of[axis[0]]) for grid in grids for axis in grid.axes}
    flats: dict[int, list[IntArray]] = {}
    for grid in grids:
        flats.setdefault(int(group_of[grid.flat[0]]), []).append(roots[grid.flat])
    times, in_blocks = roots_stand_for(roots, axes_of, facts), sets_in_blocks(roots, facts)
    made: list[Segment] = []
    for number, (head, own) in enumerate(members.items()):
        writers, readers, laid, demanded = parties[head]
        original = _original(flats.get(head, []), axes[head])
        unchanged = _unchanged(original, flats.get(head, []), axes[head])
        made.append(
            Segment(
                number,
                own,
                writers,
                readers,
                laid,
                demanded,
                tuple(np.searchsorted(own, roots[read.inputs]) for read in readers),
                _parts(roots, own, laid),
                channel_sets(own, axes[head], times, in_blocks),
                np.searchsorted(own, original),
                np.searchsorted(own, unchanged),
                head in in_grids,
            )
        )
    return tuple(made)


def _distinct_axes(
    roots: IntArray, axes_of: Mapping[str, Axes], all_facts: Sequence[Facts]
) -> list[IntArray]:
    """The roots of every axis, each different array once, in the order of the model."""
    found: dict[bytes, IntArray] = {}
    arrays = [labels for axes in axes_of.values() for labels in axes.values()]
    for facts in all_facts:
        if facts.concatenation is not None:
            arrays += [facts.concatenation.whole, *facts.concatenation.parts]
        if facts.write is not None:  # What stays inside a node is on no tensor.
            arrays.append(facts.write.outputs)
        arrays += [tie.part for tie in facts.ties]
        arrays += [axis for grid in facts.grids if grid.ordered for axis in grid.axes]
    for labels in arrays:
        own = roots[labels]
        if len(own):
            found.setdefault(own.tobytes(), own)
    return list(found.values())


def _parts(
    roots: IntArray, members: IntArray, concatenations: Sequence[Concatenation]
) -> tuple[IntArray, ...]:
    own = (distinct(roots[part]) for each in concatenations for part in each.parts if len(part))
    return tuple({each.tobytes(): np.searchsorted(members, each) for each in own}.values())


def _original(flats: list[IntArray], axes: list[IntArray]) -> IntArray:
    """The order of the model; cells of a grid are in that of the grid."""
    chained = np.concatenate([*flats, *sorted(axes, key=len, reverse=True)])
    return chained[np.sort(np.unique(chained, return_index=True)[1])]


def _unchanged(original: IntArray, flats: list[IntArray], axes: list[IntArray]) -> IntArray:
    """The order of the longest axes, where that is the one of all grids as well."""
    if len(flats) < 2:
        return original
    plain = _original([], axes)
    place = np.empty(plain.max() + 1, np.int64)
    place[plain] = np.arange(len(plain))
    fits = all((np.diff(place[flat]) > 0).all() for flat in flats)
    return plain if fits else original


_Parties = tuple[
    tuple[Writer, ...], tuple[Read, ...], tuple[Concatenation, ...], tuple[Demand, ...]
]


def _parties(
    all_facts: Sequence[Facts],
    all_demands: Sequence[Demand],
    group_of: IntArray,
    heads: list[int],
) -> Mapping[int, _Parties]:
    writers: dict[int, list[Writer]] = {head: [] for head in heads}
    readers: dict[int, list[Read]] = {head: [] for head in heads}
    laid: dict[int, list[Concatenation]] = {head: [] for head in heads}
    demands: dict[int, list[Demand]] = {head: [] for head in heads}
    for facts in all_facts:
        if facts.write is not None:
            writers[group_of[facts.write.outputs[0]]].append(Writer(facts.node, facts.write))
        if facts.read is not None:
            readers[group_of[facts.read.inputs[0]]].append(facts.read)
        if facts.concatenation is not None:
            laid[group_of[facts.concatenation.whole[0]]].append(facts.concatenation)
    for demand in all_demands:
        demands[group_of[demand.labels[0]]].append(demand)
    return {
        head: (tuple(writers[head]), tuple(readers[head]), tuple(laid[head]), tuple(demands[head]))
        for head in heads
    }
