"""Which axes a Reshape merges and splits, with sizes that only a run shows."""

from __future__ import annotations

import pytest

from onnx_upscale.declared import Shape
from onnx_upscale.optimizer.analyze.context import UnclearError
from onnx_upscale.optimizer.analyze.rules.grouping import factors_around, matching_groups


@pytest.mark.parametrize(
    ("before", "after", "groups"),
    [
        ((2, 8, 3, 3), (2, 72), [([0], [0]), ([1, 2, 3], [1])]),
        (("n", 8, 3, 3), ("n", 72), [([0], [0]), ([1, 2, 3], [1])]),
        (("n", "s", 64), ("n*s", 64), [([0, 1], [0]), ([2], [1])]),
        (("n*s", 64), ("n", "s", 4, 16), [([0], [0, 1]), ([1], [2, 3])]),
        (("n", "s+1", 64), ("n*s+n", 64), [([0, 1], [0]), ([2], [1])]),
        (("n", "s", 64), ("n", 4, "s", 16), [([0], [0]), ([1, 2], [1, 2, 3])]),
        (("n", 8, "h", "w"), ("n", 72), [([0], [0]), ([1, 2, 3], [1])]),
        (("n", 8, "h", "w"), ("n", 8), [([0], [0]), ([1, 2, 3], [1])]),
        (("n", "h", "w", 8), ("m", 8), [([0, 1, 2], [0]), ([3], [1])]),
        (("n", 64), ("m", 64), [([0], [0]), ([1], [1])]),
        ((None, 64), (None, 64), [([0], [0]), ([1], [1])]),
        (("n", "s"), ("s", "n"), [([0, 1], [0, 1])]),
        (("n", 8, 2), ("m", 4, 4), [([0], [0]), ([1, 2], [1, 2])]),
        (("n", 16, 2, 12), ("m", 16, 24), [([0], [0]), ([1], [1]), ([2, 3], [2])]),
        (("n", 1, 8), ("m", 8), [([0, 1], [0]), ([2], [1])]),
        ((4, "n", 6, 2), (2, 2, "m", 12), [([0], [0, 1]), ([1], [2]), ([2, 3], [3])]),
        (("n", 8), ("n", 8, "m"), [([0], [0]), ([1], [1, 2])]),
        ((0, "n"), ("n", 0), None),
    ],
)
def test_groups(
    before: Shape, after: Shape, groups: list[tuple[list[int], list[int]]] | None
) -> None:
    assert matching_groups(before, after) == groups


@pytest.mark.parametrize(
    ("sources", "place", "targets", "around"),
    [
        ((8, 3, 3), 0, (72,), (1, 9)),
        ((8, "h", "w"), 0, (72,), (1, 9)),
        (("h", 8), 1, (24,), (3, 1)),
        ((2, 8, "h"), 1, (48,), (2, 3)),
        ((2, 8, 3), 1, ("n",), (2, 3)),
    ],
)
def test_what_lies_around_an_axis(
    sources: Shape, place: int, targets: Shape, around: tuple[int, int]
) -> None:
    assert factors_around(sources, place, targets) == around


@pytest.mark.parametrize(
    ("sources", "place", "targets"),
    [((8, "h"), 0, ("m",)), (("n", 8, "h"), 1, (72,)), ((8, None), 0, (None,))],
)
def test_what_is_not_known_is_not_guessed(sources: Shape, place: int, targets: Shape) -> None:
    with pytest.raises(UnclearError):
        factors_around(sources, place, targets)
