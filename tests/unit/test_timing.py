"""Small models are timed long enough, and not while the machine is busy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import pytest

from onnx_upscale.benchmark.statistics import Estimate
from onnx_upscale.pruning import timing
from onnx_upscale.pruning.timing import Timer


@dataclass(frozen=True)
class Measured:
    latency: Estimate
    ratio: Estimate


@dataclass(frozen=True)
class Compared:
    models: tuple[Measured, ...]


class Machine:
    """What `bench` would find: seconds of the original, and the share of the other one.

    Args:
        found: One for each call; the last goes on.
        spread: How wide the interval of a share is.
    """

    def __init__(self, *found: tuple[float, float], spread: float = 0.0) -> None:
        self._found, self._spread = iter(found), spread
        self._last = found[0]
        self.runs: list[int] = []

    def __call__(self, models: Sequence[Any], *, runs: int, **_: Any) -> Compared:
        self.runs.append(runs)
        self._last = next(self._found, self._last)
        seconds, share = self._last
        shares = Estimate(share, share - self._spread / 2, share + self._spread / 2)
        each = Measured(Estimate(seconds, seconds, seconds), shares)
        return Compared((each,) * len(models))


@pytest.fixture
def timer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Timer]:
    def made(machine: Machine, runs: int = 30) -> Timer:
        monkeypatch.setattr(timing, "bench", machine)
        return Timer(onnx.ModelProto(), runs, None)

    return made


@pytest.mark.parametrize(
    ("seconds", "runs"), [(1e-5, 600), (1e-3, 300), (0.005, 60), (0.02, 30), (1.0, 30)]
)
def test_what_takes_no_time_is_run_more_often(timer: Any, seconds: float, runs: int) -> None:
    machine = Machine((seconds, 1.0), (seconds, 0.5))
    assert timer(machine).share(onnx.ModelProto()) == 0.5
    assert machine.runs == [1, runs]


def test_what_is_measured_while_the_machine_is_busy_does_not_count(timer: Any) -> None:
    machine = Machine((1.0, 1.0), (1.0, 0.5), (1.2, 0.6), (1.3, 0.7), (1.01, 0.51))
    clock = timer(machine)
    assert clock.share(onnx.ModelProto()) == 0.5
    assert clock.share(onnx.ModelProto()) == 0.51
    assert len(machine.runs) == 5


def test_where_it_stays_busy_the_calmest_counts(timer: Any) -> None:
    machine = Machine((1, 1), (1, 0.5), (1.5, 0.6), (1.2, 0.7), (1.4, 0.8), (1.3, 0.9), (9, 9))
    clock = timer(machine)
    clock.share(onnx.ModelProto())
    assert clock.share(onnx.ModelProto()) == 0.7
    assert len(machine.runs) == 6


def test_an_unsure_share_is_measured_longer(timer: Any) -> None:
    machine = Machine((1.0, 1.0), (1.0, 0.5), (1.0, 0.55), spread=0.04)
    assert timer(machine).share(onnx.ModelProto()) == 0.55
    assert machine.runs == [1, 30, 120]
