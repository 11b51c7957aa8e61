"""How many channels of each segment to keep, chosen together by the prices.

`auto` chooses each count by what is beside the segment. Here whole plans are compared: all there
are where these are few, otherwise pair by pair of segments with a layer between them, again and
again until no pair gains.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from onnx_upscale.optimizer.analyze import Segment
from onnx_upscale.optimizer.plan import Costs, Plan, plan_keeping

_FEW = 64
_LEAST_GAIN = 1e-4

Counts = Mapping[int, int]
"""By the number of a segment, how many of its channels to keep."""


def plan_together(planned: Plan, costs: Costs, goes_on: Callable[[], bool]) -> Plan:
    """Searches for counts that are faster together.

    Args:
        planned: What `auto` made.
        costs: The prices that it went by.
        goes_on: Asked before each plan that is made whether there is time for it.

    Returns:
        The plan that takes least by the prices; `planned` if none that was tried takes less.
    """
    segments = planned.analysis.structure.segments
    first = {each.id: int(np.count_nonzero(planned.kept.labels[each.roots])) for each in segments}
    ways = {each.id: sorted({*_liked(planned, each), first[each.id]}) for each in segments}
    open_ones = [number for number, counts in ways.items() if len(counts) > 1]
    if math.prod(len(ways[number]) for number in open_ones) <= _FEW:
        groups = [tuple(open_ones)]
    else:
        groups = _touching(segments, open_ones)
    found, best, least = first, planned, planned.seconds
    while True:
        before = least
        for group in groups:
            for counts in itertools.product(*(ways[number] for number in group)):
                tried = {**found, **dict(zip(group, counts, strict=True))}
                if tried == found:
                    continue
                if not goes_on():
                    return best
                made = _plan_of(planned, tried, costs)
                if made is not None and made.seconds < least:
                    found, best, least = tried, made, made.seconds
        if len(groups) < 2 or least > before * (1 - _LEAST_GAIN):
            return best


def _liked(planned: Plan, segment: Segment) -> Iterator[int]:
    """What is needed of a segment, and more up to counts that kernels like."""
    if segment.in_grid or not segment.sets:
        return
    needed, times = _needed(planned, segment), segment.sets[-1].times
    counts = planned.prices.counts(needed * times, segment.grain)
    for count in (counts.least, counts.aligned, counts.whole):
        yield min(-(-count // times), len(segment.roots))


def _needed(planned: Plan, segment: Segment) -> int:
    return int(np.count_nonzero(planned.analysis.needs.labels[segment.roots]))


def _touching(segments: tuple[Segment, ...], open_ones: list[int]) -> list[tuple[int, ...]]:
    """Pairs of segments with a layer between them, and those alone that are in none."""
    made = {writer.node.index: each.id for each in segments for writer in each.writers}
    pairs = {
        (each.id, made[read.layer.node.index])
        for each in segments
        for read in each.readers
        if read.layer.node.index in made
    }
    pairs = {pair for pair in pairs if set(pair) <= set(open_ones) and len(set(pair)) == 2}
    alone = set(open_ones) - set(itertools.chain(*pairs))
    return sorted({*pairs, *((number,) for number in alone)})


def _plan_of(planned: Plan, counts: Counts, costs: Costs) -> Plan | None:
    """The plan that keeps so many channels of each segment, first those that `auto` keeps."""
    analysis, wanted = planned.analysis, []
    for segment in analysis.structure.segments:
        more = segment.roots[~analysis.needs.labels[segment.roots]]
        more = more[np.argsort(~planned.kept.labels[more], kind="stable")]
        wanted.append(more[: max(counts[segment.id] - _needed(planned, segment), 0)])
    kept = analysis.keeping(np.concatenate(wanted))
    return plan_keeping(analysis, kept, costs)
