"""Which channels to keep beyond those that are needed, so that counts suit the target."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np

from onnx_upscale.grain import Grain
from onnx_upscale.optimizer.analyze import Analysis, Needs, Segment
from onnx_upscale.optimizer.analyze.across import Across, Far
from onnx_upscale.optimizer.analyze.facts import Grid
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
    growing, tally = analysis.structure.growing
    groups = [
        (grid, each.grouped.layer.grain)
        for each in analysis.structure.facts
        if each.grouped is not None
        for grid in each.grids
    ]
    across = analysis.structure.across
    for _ in range(_ROUNDS):
        beside = _Beside(across, across.tally.counts(kept.labels), costs)
        counts = iter(tally.counts(kept.labels))
        extra = [_extra(kept, each, [*islice(counts, len(each.sets))], beside) for each in growing]
        extra += [_extra_places(kept, *each, costs) for each in groups]
        more = np.concatenate([*extra, np.zeros(0, np.int64)])
        if not more.size:
            break
        wanted = np.concatenate([wanted, more])
        kept = analysis.keeping(wanted)
    return kept


def _extra(kept: Needs, segment: Segment, counted: Sequence[int], beside: _Beside) -> IntArray:
    """Roots of a segment to keep as well.

    Args:
        kept: What is kept.
        segment: The segment.
        counted: How many channels of each of its sets are kept.
        beside: What is around it.
    """
    none, after = np.zeros(0, np.int64), None
    for each, count in zip(segment.sets, counted, strict=True):
        size = len(each.places)
        if after is not None:
            count = int(np.count_nonzero(after[each.places]))
        if count == size:
            continue
        counts = beside.costs.counts(count * each.times, segment.grain)
        if each.in_blocks and segment.grain is Grain.BLOCK:
            wanted = counts.whole
        elif size < len(segment.roots):
            wanted = counts.aligned
        else:
            wanted = _fastest(beside, segment, size * each.times, counts)
        missing = -(-wanted // each.times) - count
        if missing > 0:
            after = kept.labels[segment.roots] if after is None else after
            after[each.places[~after[each.places]][:missing]] = True
    return none if after is None else segment.roots[after & ~kept.labels[segment.roots]]


def _extra_places(kept: Needs, grid: Grid, grain: Grain, costs: Costs) -> IntArray:
    """Places of every group of a convolution, up to whole blocks where groups were whole blocks.

    All groups together must stay a count that the fast layout takes.
    """
    groups, there = (kept.labels[factor] for factor in grid.factors)
    counted, needed = int(np.count_nonzero(groups)), int(np.count_nonzero(there))
    counts = partial(costs.counts, grain=grain)
    blocks = counts(len(there)).whole == len(there)

    def suits(each: int) -> bool:
        whole = not blocks or counts(each).whole == each
        return whole and counts(counted * each).aligned == counted * each

    wanted = next((n for n in range(needed, len(there)) if suits(n)), len(there)) if needed else 0
    return grid.factors[1][~there][: wanted - needed]


def _fastest(beside: _Beside, segment: Segment, channels: int, counts: Counts) -> int:
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
    return min(distinct, key=beside.seconds_of(segment))


@dataclass(frozen=True)
class _Beside:
    """What is around segments; channels there will be aligned if they can be.

    Attributes:
        across: The layers around each.
        kept: How many channels are kept on each axis that is across.
        costs: What work costs on the target.
    """

    across: Across
    kept: list[int]
    costs: Costs

    def seconds_of(self, segment: Segment) -> Callable[[int], float]:
        """What the layers of a segment take, by the count of its channels."""
        layer = self.costs.layer
        writers = [(each.layer, self._count(each)) for each in self.across.writers[segment.id]]
        readers = [(each.layer, self._count(each)) for each in self.across.readers[segment.id]]
        in_bytes = tuple(_depthwise_in_bytes(segment)) if segment.grain is Grain.BYTES else ()

        def seconds(count: int) -> float:
            before = [layer(writer, there, count) for writer, there in writers]
            before += [self.costs.depthwise(each, count) for each in in_bytes]
            behind = [layer(reader, count, there) for reader, there in readers]
            return math.fsum([*before, *behind])

        return seconds

    def _count(self, far: Far) -> int:
        if far.number < 0:
            return far.channels
        counts = self.costs.counts(self.kept[far.number], far.layer.grain)
        return min(counts.aligned, far.channels)


def _depthwise_in_bytes(segment: Segment) -> Iterator[Layer]:
    """The depthwise layers in a segment whose time any count changes: others pad it."""
    for writer in segment.writers:
        layer = writer.write.layer
        if layer is not None and layer.in_bytes and layer.groups == layer.inputs == layer.outputs:
            yield layer
