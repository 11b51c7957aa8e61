"""A latency is reached by measuring, however far the prices are off."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from onnx_upscale.errors import UsageError
from onnx_upscale.pruning.goals import Goal
from onnx_upscale.pruning.prune import _Pruner


def reached(
    monkeypatch: pytest.MonkeyPatch, goal: float, real: Callable[[float], float], least: float
) -> float:
    """What is measured in the end, where a share that is asked for is really another one."""

    def chosen(asked: float) -> Any:
        if asked < least:
            raise UsageError("cannot be reached")
        return SimpleNamespace(masks=asked)

    module = sys.modules["onnx_upscale.pruning.prune"]
    monkeypatch.setattr(module, "optimize", lambda _, masks, **__: SimpleNamespace(model=masks))
    pruner = object.__new__(_Pruner)
    pruner.__dict__.update(_model=None, _target="cpu", _inputs=None, _chosen=chosen, _ratio=real)
    return real(float(pruner._measured_choice(Goal("latency", goal)).masks))  # type: ignore[arg-type]


@pytest.mark.parametrize("goal", [0.9, 0.7, 0.5, 0.3])
@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 3.0])
def test_prices_that_are_off(monkeypatch: pytest.MonkeyPatch, goal: float, power: float) -> None:
    found = reached(monkeypatch, goal, lambda asked: asked**power, 0.0)
    assert 0.95 * goal <= found <= 1.05 * goal


def test_what_prices_call_too_little_may_be_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    found = reached(monkeypatch, 0.5, lambda asked: asked**2, 0.55)
    assert 0.475 <= found <= 0.525


def test_what_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"cannot be reached: 0\.\d\d of the latency is left"):
        reached(monkeypatch, 0.3, lambda asked: asked, 0.6)
