"""Layouts: which channels every axis keeps, and in which order."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnx_upscale.optimizer.analyze import Structure
from onnx_upscale.optimizer.analyze.facts import Facts, Grid, Tie
from onnx_upscale.optimizer.analyze.weights import BoolArray
from onnx_upscale.optimizer.load.graph import IntArray


class Layout:
    """The kept channels of every axis in their order, from one rank per root.

    Args:
        roots: Per label its root.
        kept: Per label whether its channel is kept; equal for equal roots.
        rank: Per root where it goes; channels of one axis come in ascending rank.
        frozen: Per label whether its axes stay exactly as they are.
        laid: What is known already, by the bytes of labels.
    """

    def __init__(
        self,
        roots: IntArray,
        kept: BoolArray,
        rank: IntArray,
        frozen: BoolArray,
        laid: Mapping[bytes, IntArray] | None = None,
    ) -> None:
        self._roots, self._kept, self._rank, self._frozen = roots, kept, rank, frozen
        self._known = dict(laid or {})
        self._narrow: Mapping[bytes, IntArray] = {}

    def positions(self, labels: IntArray) -> IntArray:
        """The original positions that an axis keeps, in their new order.

        Channels that come several times on one axis (a block of pixels, two copies side by side)
        come in stretches in which no channel is repeated; each stretch is ordered by itself.

        Args:
            labels: The labels of the axis.

        Returns:
            Original positions, shape (kept channels,).
        """
        axis = labels.tobytes()
        if axis not in self._known:
            self._known[axis] = self._find(labels)
        return self._known[axis]

    def _find(self, labels: IntArray) -> IntArray:
        if len(labels) and self._frozen[labels[0]]:
            return np.arange(len(labels))
        roots = self._roots[labels]
        order = np.lexsort((self._rank[roots], stretches(roots)))
        found: IntArray = order[self._kept[labels[order]]]
        return found

    def counts(self, structure: Structure) -> dict[str, dict[int, int]]:
        """How many channels each labelled axis of each tensor keeps."""
        different, like = structure.different_axes
        kept = different.counts(self._kept)
        found = {name: {axis: kept[i] for axis, i in axes.items()} for name, axes in like.items()}
        for labels, positions in self._narrow.items():
            for name, axis in structure.named_axes.get(labels, ()):
                found[name][axis] = len(positions)
        return found

    def narrowed(self, narrow: Mapping[bytes, IntArray]) -> Layout:
        """The same layout, in which some axes hold less than their channels would let them.

        Args:
            narrow: By the bytes of an axis's labels, the original positions that it keeps.
        """
        known = {**self._known, **narrow}
        other = Layout(self._roots, self._kept, self._rank, self._frozen, known)
        other._narrow = narrow
        return other

    def changes(self, labels: IntArray) -> bool:
        """Whether an axis differs from the original."""
        positions = self.positions(labels)
        return len(positions) != len(labels) or bool((positions != np.arange(len(labels))).any())


def stretches(roots: IntArray) -> IntArray:
    """Cuts an axis before each channel that would repeat; equal neighbours count as one.

    Args:
        roots: The roots of the axis.

    Returns:
        Per position the number of its stretch, ascending.
    """
    first = np.ones(len(roots), bool)
    first[1:] = roots[1:] != roots[:-1]
    runs = roots[first]
    order = np.argsort(runs, kind="stable")
    repeats = runs[order][1:] == runs[order][:-1]
    if not repeats.any():
        return np.zeros(len(roots), np.int64)
    previous = np.full(len(runs), -1)
    previous[order[1:][repeats]] = order[:-1][repeats]
    cuts = np.zeros(len(runs), np.int64)
    start = 0
    for index in np.flatnonzero(previous >= 0).tolist():
        if previous[index] >= start:
            start = index
            cuts[index] = 1
    stretch: IntArray = np.cumsum(cuts)[np.cumsum(first) - 1]
    return stretch


def is_empty(facts: Facts, layout: Layout) -> bool:
    """Whether nothing that a node makes has a channel left."""
    return bool(facts.outputs) and all(
        any(not len(layout.positions(labels)) for labels in facts.outputs.get(output, {}).values())
        for output, name in enumerate(facts.node.outputs)
        if name and output not in facts.unread
    )


def _fits(layout: Layout, tie: Tie) -> bool:
    part = layout.positions(tie.part)
    grid = np.arange(len(tie.flat)).reshape(tie.outer, len(tie.part), tie.inner)
    return np.array_equal(layout.positions(tie.flat), grid[:, part].ravel())


def _is_grid(layout: Layout, grid: Grid) -> bool:
    cells = np.arange(len(grid.flat)).reshape(grid.shape)
    kept = cells[np.ix_(*(layout.positions(factor) for factor in grid.factors))]
    flat, kept = layout.positions(grid.flat), kept.ravel()
    return np.array_equal(flat, kept) if grid.ordered else set(flat) == set(kept)


def misfits(structure: Structure, layout: Layout) -> list[IntArray]:
    """Finds the nodes that cannot do their work in a layout.

    Args:
        structure: Labels and facts.
        layout: The layout to check.

    Returns:
        Label arrays whose segments must stay as they are.
    """
    found: list[IntArray] = []
    for tie in structure.ties:
        if not _fits(layout, tie):
            found += [tie.flat, tie.part]
    for grid in structure.grids:
        if not _is_grid(layout, grid):
            found += grid.axes
    for each in structure.concatenations:
        if each.order(layout.positions) is None:
            found.append(each.whole)
    for demand in structure.demands:
        if demand.ordered and layout.changes(demand.labels):
            found.append(demand.labels)
    return found
