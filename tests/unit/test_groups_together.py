"""On which sides of grouped layers the channels of a group stay together, case by case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
import pytest

from onnx_upscale.optimizer.analyze.facts import Axes, Concatenation, Demand, Facts, Grid, Read, Tie
from onnx_upscale.optimizer.analyze.groups import Together, find_together
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.load.sides import Side

Given: TypeAlias = Mapping[str, Any]

LABELS = np.arange(100)
READ, MADE, FREE = LABELS[:6], LABELS[10:16], LABELS[50:]
PART = MADE[:3]
OUTPUT, NEXT_INPUT = (0, Side.OUTPUT), (1, Side.INPUT)


def grid(flat: IntArray, groups: int, at: int) -> Grid:
    """A flat axis of groups, whose factors are nobody else's labels."""
    sizes = groups, len(flat) // groups
    return Grid(flat, (FREE[at : at + sizes[0]], FREE[at + 6 : at + 6 + sizes[1]]), splits=False)


def layer(index: int, read: IntArray, made: IntArray, groups: int = 2) -> Facts:
    """A grouped layer whose groups lose channels each by itself."""
    node: Any = SimpleNamespace(index=index)
    weight: Any = None
    grids = tuple(grid(flat, groups, 12 * place) for place, flat in enumerate((read, made)))
    return Facts(node, {}, {}, grids=grids, grouped=Read(weight, read, made, padded=False))


def other(**facts: Any) -> Facts:
    """A node that is no grouped layer."""
    node: Any = SimpleNamespace(index=7)
    return Facts(node, {}, {}, **facts)


def found(
    facts: Sequence[Facts] = (),
    axes: Mapping[str, Axes] | None = None,
    roots: IntArray = LABELS,
    demands: Sequence[Demand] = (),
) -> Together:
    return find_together([layer(0, READ, MADE), *facts], axes or {}, roots, demands)


def demand(ordered: bool) -> Demand:
    return Demand("made", 0, 1, MADE, ordered, "wanted")


def coupled(*channels: Sequence[int]) -> IntArray:
    """Roots by which what the layer makes are these channels."""
    roots = LABELS.copy()
    roots[MADE] = MADE[np.ravel(channels)]
    return roots


APART: dict[str, Given] = {
    "nothing else": {},
    "the same groups": {"facts": [layer(1, MADE, LABELS[20:26])]},
    "its own axes": {"axes": {"read": {1: READ}, "made": {1: MADE}}},
    "no order": {"demands": [demand(ordered=False)]},
}
WHOLE: dict[str, Given] = {
    "a part as an axis": {"axes": {"part": {1: PART}}},
    "a part tied": {"facts": [other(ties=(Tie(PART, 1, FREE[:3], 1),))]},
    "a part tied to": {"facts": [other(ties=(Tie(FREE[:6], 2, PART, 1),))]},
    "a part in a grid": {"facts": [other(grids=(grid(PART, 1, 0),))]},
    "a part as a factor": {"facts": [other(grids=(Grid(FREE[:6], (FREE[6:8], PART), True),))]},
    "order": {"demands": [demand(ordered=True)]},
    "laid beside": {"facts": [other(concatenation=Concatenation((MADE, FREE[:2]), FREE[:8]))]},
    "laid of others": {"facts": [other(concatenation=Concatenation((FREE[:3], FREE[3:6]), MADE))]},
    "repeated within a group": {"roots": coupled([0, 0, 2], [3, 4, 5])},
    "repeated alike": {"roots": coupled([0, 0, 2], [0, 0, 2])},
    "repeated in another order": {"roots": coupled([0, 1, 2], [1, 2, 0])},
}
WITH_NEXT: dict[str, Facts] = {
    "other groups": layer(1, MADE, LABELS[20:26], groups=3),
    "another order": layer(1, MADE[[1, 0, 2, 3, 4, 5]], LABELS[20:26]),
}


@pytest.mark.parametrize("case", APART)
def test_groups_lose_channels_each_by_itself(case: str) -> None:
    assert found(**APART[case]) == Together()


@pytest.mark.parametrize("case", WHOLE)
def test_whole_groups_leave(case: str) -> None:
    assert found(**WHOLE[case]) == Together(whole=frozenset({OUTPUT}))


@pytest.mark.parametrize("case", WITH_NEXT)
def test_whole_groups_leave_both_layers(case: str) -> None:
    assert found([WITH_NEXT[case]]) == Together(whole=frozenset({OUTPUT, NEXT_INPUT}))


def test_groups_that_are_coupled_lose_the_same_channels() -> None:
    roots = coupled([0, 1, 2], [0, 1, 2])
    assert found(roots=roots) == Together(alike=frozenset({OUTPUT}))
    roots[READ] = np.tile(READ[:3], 2)
    assert found(roots=roots) == Together(alike=frozenset({OUTPUT, (0, Side.INPUT)}))


def test_what_was_together_stays_so() -> None:
    one = Together(frozenset({OUTPUT}), frozenset({NEXT_INPUT}))
    assert one | Together() == Together() | one == one
