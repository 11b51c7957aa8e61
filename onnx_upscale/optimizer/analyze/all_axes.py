"""All axes of a graph at once: which channels each keeps, and in which order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from onnx_upscale.optimizer.analyze.labels import distinct
from onnx_upscale.optimizer.analyze.segments import Segment
from onnx_upscale.optimizer.analyze.weights import BoolArray
from onnx_upscale.optimizer.load.graph import IntArray


@dataclass(frozen=True)
class AllAxes:
    """The axes on which no channel comes twice, one behind the other.

    Attributes:
        number: By the bytes of its labels, the number of an axis; axes of the same channels are
            one.
        ends: Where each ends.
        roots: The roots of all.
        positions: Where each of these is on its axis.
        base: Per root, how many channels the segments of all axes before have.
        places: How many those of all axes have.
    """

    number: Mapping[bytes, int]
    ends: IntArray
    roots: IntArray
    positions: IntArray
    base: IntArray
    places: int

    def laid_out(self, kept: BoolArray, rank: IntArray, frozen: BoolArray) -> dict[bytes, IntArray]:
        """The positions that each axis keeps, in their new order.

        Args:
            kept: Per root whether its channel is kept.
            rank: Per root its place in its segment.
            frozen: Per root whether its axes, of which all is kept, stay exactly as they are.

        Returns:
            By the bytes of the labels.
        """
        stays = kept[self.roots]
        roots, positions = self.roots[stays], self.positions[stays]
        places = rank[roots]
        if frozen.any():
            places = np.where(frozen[roots], positions, places)
        # There is nothing to sort, as every channel has a place of its own.
        taken = np.zeros(self.places, np.int64)
        taken[self.base[stays] + places] = positions + 1
        order = taken[taken.nonzero()[0]] - 1
        ends = np.append(0, np.cumsum(stays))[self.ends].tolist()
        each = [order[start:end] for start, end in pairwise((0, *ends))]
        return {labels: each[number] for labels, number in self.number.items()}


def find_all_axes(
    roots: IntArray, segments: Sequence[Segment], axes: Iterable[IntArray]
) -> AllAxes:
    """Lays axes one behind the other.

    Args:
        roots: Per label its root.
        segments: All segments.
        axes: The labels of each axis.

    Returns:
        Those on which no channel comes twice.
    """
    sizes = np.zeros(len(roots), np.int64)
    for segment in segments:
        sizes[segment.roots] = len(segment.roots)
    known: dict[bytes, int] = {}
    number: dict[bytes, int] = {}
    found: list[IntArray] = []
    for labels in axes:
        own = roots[labels]
        if not len(own) or len(distinct(own)) < len(own):
            continue
        number[labels.tobytes()] = known.setdefault(own.tobytes(), len(found))
        if len(known) > len(found):
            found.append(own)
    lengths = [*map(len, found)]
    widths = np.array([sizes[own[0]] for own in found], np.int64)
    together = np.concatenate([np.zeros(0, np.int64), *found])
    return AllAxes(
        number=number,
        ends=np.cumsum(lengths, dtype=np.int64),
        roots=together,
        positions=np.concatenate([np.zeros(0, np.int64), *map(np.arange, lengths)]),
        base=np.repeat(np.cumsum(widths) - widths, lengths),
        places=int(widths.sum()),
    )
