"""How grouped layers lose channels: each group its own, all groups alike, or whole groups only.

Each group of a convolution may lose channels of its own on a side, and have an order of its own, if
the axis there is that of its groups everywhere: nobody takes a part of it, lays it beside another,
repeats its channels or wants their order. Else the channels of a group stay together. Layers may
have an axis in common, as two in a row, where it is the same groups to each: what leaves one of
them, and the order of what stays, is then the same for all.

Where what is around a layer treats the groups alike, as a sum over all of them does, the same
channels of every group leave: each axis by itself is then a group, repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from onnx_upscale.optimizer.analyze.facts import Axes, Demand, Facts, Grid, Read, same_axis
from onnx_upscale.optimizer.analyze.labels import distinct
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.load.sides import Side

_Sides: TypeAlias = "frozenset[tuple[int, Side]]"
"""Sides of grouped layers, these by the indices of their nodes."""


@dataclass(frozen=True)
class Together:
    """The sides of grouped layers on which groups do not lose channels each by itself.

    Attributes:
        whole: Those that lose whole groups only.
        alike: Those of which every group loses the same channels.
    """

    whole: _Sides = frozenset()
    alike: _Sides = frozenset()

    def __or__(self, other: Together) -> Together:
        return Together(self.whole | other.whole, self.alike | other.alike)


def find_together(
    facts: Sequence[Facts], axes: Mapping[str, Axes], roots: IntArray, demands: Sequence[Demand]
) -> Together:
    """Finds those that were taken for more and cannot be.

    Args:
        facts: What is known of each node.
        axes: The labelled axes of every tensor.
        roots: Per label its root.
        demands: All demands.

    Returns:
        What more is together.
    """
    sides = [
        ((each.node.index, _side(each.grouped, grid)), grid)
        for each in facts
        if each.grouped
        for grid in each.grids
    ]
    alike = frozenset(side for side, grid in sides if _is_alike(grid, roots))
    grids = [(side, roots[grid.flat], grid.shape) for side, grid in sides if side not in alike]
    if not grids:  # In most models, which are spared a look at every axis.
        return Together(alike=alike)
    found: set[tuple[int, Side]] = set()
    owner = np.full(len(roots), -1)
    for number, (side, flat, shape) in enumerate(grids):
        others = [grids[other] for other in _owners(owner, flat)]
        apart = [o for o in others if o[2] != shape or not np.array_equal(o[1], flat)]
        found.update(other[0] for other in apart)
        if apart or len(distinct(flat)) < len(flat):
            found.add(side)
        owner[flat] = number
    arrays = [labels for each in axes.values() for labels in each.values()]
    for each in facts:
        arrays += [axis for tie in each.ties for axis in (tie.flat, tie.part)]
        arrays += [axis for grid in each.grids for axis in grid.axes]
    fixed = [demand.labels for demand in demands if demand.ordered]
    laid = [each.concatenation for each in facts if each.concatenation is not None]
    fixed += [axis for each in laid for axis in (each.whole, *each.parts)]
    for labels, moves in [*((a, False) for a in arrays), *((a, True) for a in fixed)]:
        own = roots[labels]
        for number in _owners(owner, own):
            if moves or not np.array_equal(own, grids[number][1]):
                found.add(grids[number][0])
    return Together(frozenset(found), alike)


def _owners(owner: IntArray, roots: IntArray) -> list[int]:
    """The numbers that some roots have, where they have one."""
    numbers = owner[roots]
    found: list[int] = distinct(numbers[numbers >= 0]).tolist()
    return found


def _side(read: Read, grid: Grid) -> Side:
    return Side.INPUT if same_axis(grid.flat, read.inputs) else Side.OUTPUT


def _is_alike(grid: Grid, roots: IntArray) -> bool:
    """Whether something couples the groups, channel by channel, and nothing those of one group."""
    groups = roots[grid.flat].reshape(grid.shape)
    return bool((groups == groups[0]).all()) and len(distinct(groups)) == groups.shape[1]
