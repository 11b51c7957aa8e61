"""Bands: channels of a head that stand side by side, in one order, wherever any of them stands.

One layer may make queries, keys and values of a head next to each other, and a rotary embedding
may turn a part of a head's channels only. Then the channels of a head are several bands, and what a
node does to one of them says nothing of the others. A band may stand on an axis more than once, as
queries and keys do that a product couples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnx_upscale.optimizer.analyze.facts import Grid
from onnx_upscale.optimizer.analyze.labels import distinct
from onnx_upscale.optimizer.analyze.weights import BoolArray
from onnx_upscale.optimizer.load.graph import IntArray

if TYPE_CHECKING:
    from onnx_upscale.optimizer.analyze.structure import Structure


@dataclass(frozen=True)
class Member:
    """A grid of a family.

    Attributes:
        grid: The grid, of labels.
        times: How many of its heads in a row are one head of the family: those that share values.
    """

    grid: Grid
    times: int


@dataclass(frozen=True)
class Family:
    """All grids of the same heads.

    Attributes:
        heads: The roots of its axes of heads, the shortest first; others repeat each of its heads.
        members: The grids.
    """

    heads: tuple[IntArray, ...]
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Band:
    """Channels that stand side by side, in one order, wherever any of them stands.

    Attributes:
        family: The heads that have such channels.
        roots: The channels, by roots, in their order.
    """

    family: Family
    roots: IntArray

    def columns(self, roots: IntArray) -> IntArray:
        """Where it stands on an axis, shape (times, channels).

        Args:
            roots: The roots of the axis.
        """
        starts = np.flatnonzero(roots == self.roots[0])
        return starts[:, np.newaxis] + np.arange(len(self.roots))


def find_bands(structure: Structure) -> Iterator[Band]:
    """Finds the bands of the heads of a graph.

    Args:
        structure: The structure.

    Yields:
        Those of which every grid could take each head's channels in another order.
    """
    roots = structure.roots
    grids = tuple(_leading(structure))
    families = tuple(_families(structure, grids))
    owner = np.full(len(roots), -1)
    barred = np.zeros(len(roots), bool)
    counts, channels = np.zeros((2, len(roots)), np.int64)
    # Values and the result of an attention have the same grid where something else that was made of
    # the values is added to the result; that is one use of its channels.
    by_axes = {tuple(roots[axis].tobytes() for axis in grid.axes): grid for grid in grids}
    for grid in by_axes.values():
        counts[distinct(roots[np.concatenate(grid.axes)])] += 1
        if len(grid.factors) == 2:
            channels[distinct(roots[grid.factors[-1]])] += 1
    for number, family in enumerate(families):
        for member in family.members:
            own = distinct(roots[member.grid.factors[-1]])
            barred[own[(owner[own] >= 0) & (owner[own] != number)]] = True
            owner[own] = number
    barred |= counts != channels
    for family in families:
        for member in family.members:
            flat = roots[member.grid.flat]
            if (counts[flat] > 1).any() or len(distinct(flat)) < len(flat):
                barred[roots[member.grid.factors[-1]]] = True
    for chain in _chains(structure, owner >= 0):
        if not barred[chain].any() and (owner[chain] == owner[chain[0]]).all():
            yield Band(families[owner[chain[0]]], chain)


def _leading(structure: Structure) -> Iterator[Grid]:
    """All grids, without those of grouped layers that follow another grid of the same axis.

    They follow where the rows of the other one do not cross theirs.
    """
    roots = structure.roots
    split = {
        roots[grid.flat].tobytes(): grid.shape[-1]
        for facts in structure.facts
        for grid in facts.grids
        if facts.grouped is None
    }
    seen: set[bytes] = set()
    for facts in structure.facts:
        for grid in facts.grids:
            flat = roots[grid.flat].tobytes()
            if facts.grouped is not None:
                if flat in seen or (flat in split and grid.shape[-1] % split[flat] == 0):
                    continue
                seen.add(flat)
            yield grid


def _families(structure: Structure, grids: Sequence[Grid]) -> Iterator[Family]:
    roots = structure.roots
    merged = {
        roots[grid.flat].tobytes(): grid
        for grid in grids
        if not grid.splits and len(grid.factors) == 2
    }
    found: dict[bytes, dict[bytes, IntArray]] = {}
    members: dict[bytes, list[Member]] = {}
    for grid in grids:
        if len(grid.factors) != 2:
            continue
        heads, times = roots[grid.factors[0]], 1
        all_heads = {heads.tobytes(): heads}
        # Heads that share keys and values are made of the heads of these.
        while (outer := merged.get(heads.tobytes())) is not None and outer.shape[-1] > 1:
            times *= outer.shape[-1]
            heads = roots[outer.factors[0]]
            all_heads[heads.tobytes()] = heads
        found.setdefault(heads.tobytes(), {}).update(all_heads)
        members.setdefault(heads.tobytes(), []).append(Member(grid, times))
    for key, own in members.items():
        yield Family(tuple(sorted(found[key].values(), key=len)), tuple(own))


def arrays_of(structure: Structure) -> Mapping[bytes, IntArray]:
    """Every axis that anything is said of, by the bytes of its labels."""
    found = [labels for axes in structure.axes.values() for labels in axes.values()]
    found += [demand.labels for demand in structure.demands]
    for facts in structure.facts:
        found += [axis for grid in facts.grids for axis in grid.axes]
        found += [axis for tie in facts.ties for axis in (tie.flat, tie.part)]
        found += [param.labels for param in facts.params]
        found += [carry.outputs for carry in facts.carries]
        for each in (facts.read, facts.write, facts.grouped, facts.recurrence):
            sides = (None, None) if each is None else (each.inputs, each.outputs)
            found += [side for side in sides if side is not None]
        if facts.concatenation is not None:
            found += [facts.concatenation.whole, *facts.concatenation.parts]
    return {labels.tobytes(): labels for labels in found if len(labels)}


def _chains(structure: Structure, chosen: BoolArray) -> Iterator[IntArray]:
    """Cuts roots into the longest stretches that no axis takes apart.

    Args:
        structure: The structure.
        chosen: Which roots.
    """
    roots = structure.roots
    arrays = [roots[labels] for labels in arrays_of(structure).values()]
    arrays = list({own.tobytes(): own for own in arrays if chosen[own].any()}.values())
    if not arrays:
        return
    border = len(roots)  # What stands before the first of an axis, and behind the last.
    line = np.concatenate([np.array([border]), *(np.append(own, border) for own in arrays)])
    behind, ahead = _only(line[:-1], line[1:], border), _only(line[1:], line[:-1], border)
    inside = np.append(chosen, False)
    follows = np.where(inside & inside[behind], behind, border)
    follows[ahead[follows] != np.arange(border + 1)] = border
    starts = inside.copy()
    starts[follows] = False
    for root in np.flatnonzero(starts).tolist():
        chain = [root]
        while follows[chain[-1]] != border:
            chain.append(int(follows[chain[-1]]))
        yield np.array(chain, np.int64)


def _only(one: IntArray, other: IntArray, border: int) -> IntArray:
    """Per number of `one`, the number of `other` that it stands beside; `border` without one."""
    least, most = np.full(border + 1, border), np.full(border + 1, -1)
    np.minimum.at(least, one, other)
    np.maximum.at(most, one, other)
    return np.where(least == most, least, border)
