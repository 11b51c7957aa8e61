"""The fastest model that stays near enough, where being near can only be tried."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from onnx_upscale.errors import UsageError
from onnx_upscale.pruning.aim import fastest, good_enough

STEPS = [round(1 - 0.01 * step, 2) for step in range(1, 85)]  # A fine sweep.


def found(
    good: Callable[[float], bool],
    nearly: Callable[[float], bool] | None = None,
    least: float = 0.0,
) -> tuple[list[float], list[float]]:
    def choose(share: float) -> float:
        if share < least - 1e-9:
            raise UsageError("cannot be reached")
        return round(share, 2)

    return good_enough(choose, nearly or good, good, lambda one, other: one == other)


@pytest.mark.parametrize("limit", [0.17, 0.33, 0.5, 0.731, 0.97])
def test_the_fastest_of_a_fine_sweep_is_found_with_few_tries(limit: float) -> None:
    yes, no = found(lambda share: share >= limit)
    assert min(yes) == min(share for share in STEPS if share >= limit)
    assert len(yes) + len(no) <= 7


@pytest.mark.parametrize("lucky", [{0.5}, {0.58, 0.54}, {0.9, 0.7, 0.41}])
def test_some_that_are_slower_may_be_worse(lucky: set[float]) -> None:
    yes, no = found(lambda share: share >= 0.92 or share in lucky, lambda share: share >= 0.4)
    assert min(yes) == min(lucky)
    assert len(yes) + len(no) <= 7 + round(100 * (min(lucky) - 0.4))


def test_nothing_is_looked_at_twice() -> None:
    seen: list[float] = []

    def good(share: float) -> bool:
        seen.append(share)
        return share >= 0.6

    def choose(share: float) -> float:  # As where channels go by large blocks.
        return round(share * 5) / 5

    def nearly(share: float) -> bool:
        return share >= 0.4

    good_enough(choose, nearly, good, lambda one, other: one == other)
    assert len(set(seen)) == len(seen)


def test_what_cannot_be_reached_is_not_good() -> None:
    yes, _ = found(lambda share: True, least=0.555)
    assert min(yes) == 0.56
    assert found(lambda share: False, least=0.55)[0] == []
    assert found(lambda share: True, least=1.1) == ([], [])


def test_measuring_tells_those_apart_that_are_predicted_alike() -> None:
    measured = {0.5: 0.58, 0.51: 0.49, 0.53: 0.55, 0.7: 0.3}
    asked: list[float] = []

    def measure(share: float) -> float:
        asked.append(share)
        return measured[share]

    assert fastest(list(measured), lambda share: share, measure) == 0.51
    assert 0.7 not in asked
    assert fastest([0.4], lambda share: share, measure) == 0.4
