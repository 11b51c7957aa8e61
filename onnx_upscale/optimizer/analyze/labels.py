"""Channel labels and the union-find that couples them, on whole arrays at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from onnx_upscale.optimizer.load.graph import IntArray


class LabelPool:
    """Hands out channel labels and couples those that must keep the same position.

    A label names one channel of one value. Labels that are coupled share a root. Array
    version of Tarjan's union-find: parents always point to smaller labels, and paths are halved
    on the way.
    """

    def __init__(self) -> None:
        self._parent = np.arange(1024, dtype=np.int64)
        self.count = 0

    def fresh(self, channels: int) -> IntArray:
        """New labels, coupled with nothing.

        Args:
            channels: How many.

        Returns:
            Consecutive labels, shape (channels,).
        """
        start, self.count = self.count, self.count + channels
        if self.count > len(self._parent):
            grown = np.arange(max(self.count, 2 * len(self._parent)), dtype=np.int64)
            grown[: len(self._parent)] = self._parent
            self._parent = grown
        return np.arange(start, self.count, dtype=np.int64)

    def roots(self, labels: IntArray) -> IntArray:
        """The root of each label.

        Args:
            labels: Labels of any shape.

        Returns:
            Roots of the same shape.
        """
        parent = self._parent
        found = parent[labels]
        while True:
            above = parent[found]
            if (above == found).all():
                break
            parent[labels] = above
            found = above
        return found

    def couple(self, one: IntArray, other: IntArray) -> None:
        """Couples labels position by position.

        Args:
            one: Labels.
            other: Labels, of a shape that broadcasts with `one`.
        """
        a, b = np.broadcast_arrays(one, other)
        a, b = a.ravel(), b.ravel()
        while True:
            a, b = self.roots(a), self.roots(b)
            apart = a != b
            if not apart.any():
                return
            a, b = a[apart], b[apart]
            # Where a root occurs twice, the last write wins and the next round couples the rest.
            self._parent[np.maximum(a, b)] = np.minimum(a, b)

    def all_roots(self) -> IntArray:
        """The root of every label, shape (count,)."""
        return self.roots(np.arange(self.count, dtype=np.int64))


def distinct(labels: IntArray) -> IntArray:
    """The different ones of some labels, ascending; sorted only where they are not yet.

    It is `np.unique`, which imports numpy.ma and with that takes longer than most models do here.
    """
    if labels.ndim == 1 and bool((labels[1:] > labels[:-1]).all()):
        return labels
    ordered = np.sort(labels, axis=None)
    is_new = np.ones(ordered.shape, dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=is_new[1:])
    return ordered[is_new]


class Tally:
    """Counts how many channels of each of some axes are marked.

    Args:
        axes: The labels of each.
    """

    def __init__(self, axes: Sequence[IntArray]) -> None:
        self._labels = np.concatenate([np.zeros(0, np.int64), *axes])
        self._ends = np.cumsum([0, *map(len, axes)])

    def counts(self, flags: npt.NDArray[np.bool_]) -> list[int]:
        """How many of each axis are.

        Args:
            flags: Per label whether it is marked.
        """
        marked = np.append(0, np.cumsum(flags[self._labels]))
        found: list[int] = np.diff(marked[self._ends]).tolist()
        return found
