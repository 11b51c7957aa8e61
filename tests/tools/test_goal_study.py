"""The sweep that tells how near `prune` comes to what is possible."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import goal_study
from goal_study import Row, read, report, sweep, write
from onnx_upscale.errors import UsageError
from onnx_upscale.pruning.goals import Goal

ROWS = [
    Row("resnet", 0, "agreement", 0.98, 22, 0.71, 0.625, 0.72, 0.65),
    Row("resnet", 0, "score", 0.9541, 22, 0.8, 0.7, 0.8, 0.7),
]


def test_round_trip(tmp_path: Path) -> None:
    table = tmp_path / "new" / "goals.csv"
    assert read(table) == []
    write(table, ROWS)
    assert read(table) == ROWS


def test_table() -> None:
    assert report(ROWS).splitlines()[2:] == [
        "| resnet | `--agreement 0.98` | 0.710, 0.625 | 0.720, 0.650 | +4.0% |",
        "| resnet | `--score 0.954` | 0.800, 0.700 | 0.800, 0.700 | +0.0% |",
    ]


@dataclass(frozen=True)
class Choice:
    goal: float

    @property
    def masks(self) -> int:
        return round(self.goal * 50)  # Every other step changes nothing.

    share = property(lambda self: self.goal)


@pytest.mark.parametrize(
    ("good", "least", "end"), [(0.6, 0.0, 0.48), (0.1, 0.5, 0.5), (0.1, 0.0, 0.16)]
)
def test_a_sweep_ends(
    monkeypatch: pytest.MonkeyPatch, good: float, least: float, end: float
) -> None:
    class Candidate:
        def __init__(self, pruner: object, choice: Choice) -> None:
            self.choice = choice

        def value(self, goal: Goal) -> float:
            return self.choice.goal

        def satisfies(self, goal: Goal) -> bool:
            return self.choice.goal >= good

    class Pruner:
        def chosen(self, share: float) -> Choice:
            if share < least - 1e-9:
                raise UsageError("cannot be reached")
            return Choice(round(share, 2))

    monkeypatch.setattr(goal_study, "Candidate", Candidate)
    pruner: Any = Pruner()
    shares = [each.choice.goal for each in sweep(pruner, [Goal("error", 0.1)], 0.01)]
    assert shares == sorted(shares, reverse=True)
    assert len({round(share * 50) for share in shares}) == len(shares)
    assert shares[-1] == pytest.approx(end, abs=0.0201)
