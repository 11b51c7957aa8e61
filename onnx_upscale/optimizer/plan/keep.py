"""Which channels to keep beyond those that are needed, so that counts suit the target."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from onnx_upscale.grain import Grain
from onnx_upscale.optimizer.analyze import Analysis, Needs, Segment
from onnx_upscale.optimizer.analyze.facts import Grid
from onnx_upscale.optimizer.analyze.labels import count_on
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.load.layers import Layer
from onnx_upscale.optimizer.plan.cost import Costs
from onnx_upscale.prices import Counts

# Keeping a channel can make others needed before it; few rounds settle that, and any is correct.
_ROUNDS = 4


def align(analysis: Analysis, costs: Costs) -> Needs:
    """Keeps some channels that nobody needs, up to counts that the target's kernels like.

    Args:
        analysis: The analysis.
        costs: What work costs on the target.

    Returns:
        What is needed, and more.
    """
    kept, wanted = analysis.needs, np.zeros(0, np.int64)
    segments, facts = analysis.structure.segments, analysis.structure.facts
    groups = [
        (grid, each.grouped.layer.grain)
        for each in facts
        if each.grouped is not None
        for grid in each.grids
    ]
    for _ in range(_ROUNDS):
        beside = _beside(kept, segments, costs)
        extra = [_extra(kept, *each, costs) for each in zip(segments, beside, strict=True)]
        extra += [_extra_places(kept, *each, costs) for each in groups]
        more = np.concatenate([*extra, np.zeros(0, np.int64)])
        if not more.size:
            break
        wanted = np.concatenate([wanted, more])
        kept = analysis.keeping(wanted)
    return kept


def _extra(kept: Needs, segment: Segment, beside: _Beside, costs: Costs) -> IntArray:
    before = kept.labels[segment.roots]
    if before.all() or segment.in_grid:  # There one more channel would be a whole slice more.
        return np.zeros(0, np.int64)
    after = before.copy()
    for each in segment.sets:
        there = after[each.places]
        count = int(np.count_nonzero(there))
        counts = costs.prices.counts(count * each.times, segment.grain)
        if each.in_blocks and segment.grain is Grain.BLOCK:
            wanted = counts.whole
        elif len(there) < len(after):
            wanted = counts.aligned
        else:
            wanted = _fastest(beside, segment, costs, len(there) * each.times, counts)
        missing = -(-wanted // each.times) - count
        if missing > 0:
            after[each.places[~there][:missing]] = True
    return segment.roots[after & ~before]


def _extra_places(kept: Needs, grid: Grid, grain: Grain, costs: Costs) -> IntArray:
    """Places of every group of a convolution, up to whole blocks where groups were whole blocks.

    All groups together must stay a count that the fast layout takes.
    """
    groups, there = (kept.labels[factor] for factor in grid.factors)
    counted, needed = int(np.count_nonzero(groups)), int(np.count_nonzero(there))
    counts = partial(costs.prices.counts, grain=grain)
    blocks = counts(len(there)).whole == len(there)

    def suits(each: int) -> bool:
        whole = not blocks or counts(each).whole == each
        return whole and counts(counted * each).aligned == counted * each

    wanted = next((n for n in range(needed, len(there)) if suits(n)), len(there)) if needed else 0
    return grid.factors[1][~there][: wanted - needed]


def _fastest(beside: _Beside, segment: Segment, costs: Costs, channels: int, counts: Counts) -> int:
    """How many channels of a segment to keep: those needed, or more for faster kernels."""
    candidates = [counts.aligned]
    if counts.whole <= channels:
        candidates.append(counts.whole)
    # Odd counts only here: a depthwise convolution or a Concat that has to leave the fast layout
    # costs more than any layer gains.
    if segment.only_layers:
        candidates.insert(0, counts.least)
    distinct = dict.fromkeys(candidates)
    if len(distinct) == 1:
        return counts.aligned

    def seconds(count: int) -> float:
        before = [costs.layer(layer, there, count) for layer, there in beside.writers]
        before += [costs.depthwise(layer, count) for layer in beside.depthwise]
        behind = [costs.layer(layer, count, there) for layer, there in beside.readers]
        return math.fsum([*before, *behind])

    return min(distinct, key=seconds)


@dataclass(frozen=True)
class _Beside:
    """What is around a segment.

    Attributes:
        writers: The ungrouped layers that make it, with the channels on their other sides.
        readers: Those that read it.
        depthwise: The depthwise ones in it whose time any count changes: others pad it.
    """

    writers: tuple[tuple[Layer, int], ...]
    readers: tuple[tuple[Layer, int], ...]
    depthwise: tuple[Layer, ...]


def _beside(kept: Needs, segments: Sequence[Segment], costs: Costs) -> Iterator[_Beside]:
    """What is beside each segment; channels there will be aligned if they can be."""
    sides = [
        (segment.writing_layers, [(read.layer, read.outputs) for read in segment.readers])
        for segment in segments
    ]
    axes = [axis for each in sides for side in each for _, axis in side if axis is not None]
    counts = iter(count_on(axes, kept.labels))

    def count(layer: Layer, axis: IntArray | None, otherwise: int) -> int:
        if axis is None:
            return otherwise
        return min(costs.prices.counts(next(counts), layer.grain).aligned, len(axis))

    for segment, (writers, readers) in zip(segments, sides, strict=True):
        yield _Beside(
            tuple((layer, count(layer, axis, layer.inputs)) for layer, axis in writers),
            tuple((layer, count(layer, axis, layer.outputs)) for layer, axis in readers),
            tuple(_depthwise_in_bytes(segment)) if segment.grain is Grain.BYTES else (),
        )


def _depthwise_in_bytes(segment: Segment) -> Iterator[Layer]:
    for writer in segment.writers:
        layer = writer.write.layer
        if layer is not None and layer.in_bytes and layer.groups == layer.inputs == layer.outputs:
            yield layer
