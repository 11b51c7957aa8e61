"""From scores to decisions: which channels go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from onnx_upscale.criteria.scores import Scores
from onnx_upscale.criteria.sites import Site
from onnx_upscale.errors import UsageError
from onnx_upscale.optimizer.analyze import Structure
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.load.sides import Side

# A unit is what one decision is about: a channel of a layer, or with `constrained` a set of coupled
# channels. Each site lists its units, one per channel; -1 stands for a channel that must stay.


def separate_units(sites: Sequence[Site]) -> list[IntArray]:
    """One unit per channel of each site.

    Args:
        sites: The sites.

    Returns:
        Units per site.
    """
    ends = np.cumsum([site.channels for site in sites])
    return [
        np.arange(end - site.channels, end, dtype=np.int64)
        for site, end in zip(sites, ends, strict=True)
    ]


def coupled_units(structure: Structure, sites: Sequence[Site]) -> list[IntArray]:
    """One unit per set of coupled channels.

    Channels that cannot leave however much the sites agree must stay: those that an operator or a
    graph output needs whole, and those coupled with a reader (a writer, on the output side) that
    is left alone. Grouped layers do not count as such: they follow their neighbours.

    Args:
        structure: The structure of the model.
        sites: The sites, all of the same side.

    Returns:
        Units per site.

    Raises:
        UsageError: All channels must stay.
    """
    roots, taken = structure.roots, {site.layer.node.index for site in sites}
    stay = structure.demanded.copy()
    for facts in structure.facts:
        if facts.node.index in taken:
            continue
        if sites[0].side is Side.INPUT and facts.read is not None:
            stay[roots[facts.read.inputs]] = True
        elif sites[0].side is Side.OUTPUT and facts.write is not None:
            layer = facts.write.layer
            if layer is None or layer.groups == 1:
                stay[roots[facts.write.outputs]] = True
    units, fresh = [], len(roots)
    for site in sites:
        if site.labels is None:
            units.append(np.arange(fresh, fresh + site.channels, dtype=np.int64))
            fresh += site.channels
        else:
            own = roots[site.labels]
            units.append(np.where(stay[own], -1, own))
    if all((own < 0).all() for own in units):
        raise UsageError(
            "constrained: no channel is left to prune, for each is coupled with a layer that is "
            "left alone, or is needed whole by an operator or a graph output"
        )
    return units


def choose(
    units: Sequence[IntArray], scores: Sequence[Scores], amount: float, scope: str
) -> list[IntArray]:
    """Prunes the units with the lowest scores.

    1. The score of a unit is the mean over the sites that hold it, and within a site over the
       channels that it stands for.
    2. `local`: of the units that the same sites hold, the lowest `int(amount * count)` go. Without
       coupling that is so many of each layer.
    3. `global`: the lowest `int(amount * count)` of all units go, but for the best one of each
       site, which stays unless the amount is 1.
    4. Of equal scores the first in the order of the model goes first.

    Args:
        units: Units per site.
        scores: Scores per site, one per channel.
        amount: The share to prune, from 0 to 1.
        scope: `local` or `global`.

    Returns:
        The pruned channels per site, in ascending order.
    """
    compact = _compact(units)
    count = 1 + max(int(own.max()) for own in compact)
    total, holders = np.zeros(count), np.zeros((len(compact), count), bool)
    for site, (own, given) in enumerate(zip(compact, scores, strict=True)):
        free = own >= 0
        spread = np.bincount(own[free], minlength=count)
        here = spread > 0
        holders[site] = here
        total[here] += np.bincount(own[free], given[free], count)[here] / spread[here]
    score = total / np.maximum(holders.sum(0), 1)
    pruned = np.zeros(count, bool)
    if scope == "global":
        pruned[_lowest(score, int(amount * count), _best(holders, score, amount))] = True
    else:
        for family in _families(holders):
            pruned[family[_lowest(score[family], int(amount * len(family)))]] = True
    return [np.flatnonzero((own >= 0) & pruned[own]) for own in compact]


def _compact(units: Sequence[IntArray]) -> list[IntArray]:
    """Units renumbered from 0 in the order of the model; -1 stays."""
    numbers, first = np.unique(np.concatenate(units), return_index=True)
    held = numbers >= 0
    rank = np.full(len(numbers), -1)
    rank[held] = np.argsort(np.argsort(first[held]))
    return [rank[np.searchsorted(numbers, own)] for own in units]


def _families(holders: npt.NDArray[np.bool_]) -> list[IntArray]:
    """The units that the same sites hold, per set of sites."""
    packed = np.packbits(holders, axis=0).T
    _, family = np.unique(packed, axis=0, return_inverse=True)
    order = np.argsort(family.ravel(), kind="stable")
    return np.split(order, np.cumsum(np.bincount(family.ravel()))[:-1])


def _best(holders: npt.NDArray[np.bool_], score: Scores, amount: float) -> IntArray:
    if amount == 1:
        return np.empty(0, np.int64)
    # The last of the best, as of equal ones the first goes first.
    last = score.size - 1 - np.where(holders, score, -np.inf)[:, ::-1].argmax(axis=1)
    return np.unique(last[holders.any(axis=1)])


def _lowest(score: Scores, count: int, spared: IntArray | None = None) -> IntArray:
    order = np.argsort(score, kind="stable")
    if spared is not None:
        order = order[~np.isin(order, spared)]
    return order[:count]
