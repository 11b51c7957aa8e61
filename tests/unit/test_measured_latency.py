"""A latency is reached by measuring, however far the prices are off."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from onnx_upscale.errors import UsageError
from onnx_upscale.pruning.aim import aim
from onnx_upscale.pruning.goals import Goal


def reached(goal: float, real: Callable[[float], float], least: float) -> float:
    """What is measured in the end, where a share that is asked for is really another one."""

    def chosen(asked: float) -> float:
        if asked < least:
            raise UsageError("cannot be reached")
        return asked

    return real(aim(Goal("latency", goal), goal, chosen, real))


@pytest.mark.parametrize("goal", [0.9, 0.7, 0.5, 0.3])
@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 3.0])
def test_prices_that_are_off(goal: float, power: float) -> None:
    found = reached(goal, lambda asked: asked**power, 0.0)
    assert 0.95 * goal <= found <= 1.05 * goal


def test_what_prices_call_too_little_may_be_enough() -> None:
    found = reached(0.5, lambda asked: asked**2, 0.55)
    assert 0.475 <= found <= 0.525


def test_what_cannot_be_reached() -> None:
    with pytest.raises(UsageError, match=r"cannot be reached: 0\.\d+ of the latency is left"):
        reached(0.3, lambda asked: asked, 0.6)
