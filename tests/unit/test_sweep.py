"""Several goals: a table, a report, a plot."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from test_evaluation import SAMPLES, sample

import onnx_upscale
from onnx_upscale import UsageError
from onnx_upscale.pruning.goals import Goal
from onnx_upscale.pruning.plot import plot_format, plotted


def row(latency: float, **values: float | None) -> dict[str, Any]:
    return {"latency": latency, "agreement": None, "error": 0.1, "score": None, **values}


def test_a_row_per_goal_and_all_reports() -> None:
    goals = [Goal("macs", value) for value in (0.8, 0.5)]
    made = onnx_upscale.prune_all(sample(), SAMPLES, goals, runs=2)
    assert len(made) == len(made.table) == 2
    assert [row["goal"]["value"] for row in made.table] == [0.8, 0.5]
    assert made.report["results"] == [each.report for each in made]
    assert made.table[1]["macs"] <= 0.5 < made.table[0]["macs"] <= 0.8
    assert made[1:] == (made[1],)
    pytest.importorskip("matplotlib")
    assert made.plot().startswith(b"<?xml")


def test_latencies_may_be_given_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="`latency` 2: must be a share"):
        onnx_upscale.prune_all(sample(), SAMPLES, [0.5, 2])
    with pytest.raises(UsageError, match="give at least one goal"):
        onnx_upscale.prune_all(sample(), SAMPLES, [])


@pytest.mark.parametrize(
    ("values", "original", "label"),
    [
        ({"agreement": 0.9}, None, "same top-1 answers"),
        ({}, None, "1 - error of the outputs"),
        ({"agreement": 0.9, "score": 12.0}, 13.0, "score"),
    ],
)
def test_both_formats(values: dict[str, float], original: float | None, label: str) -> None:
    pytest.importorskip("matplotlib")
    rows = [row(0.5, **values), row(0.9, **values)]
    drawn = plotted(rows, original, "svg")
    assert drawn == plotted(rows, original, "svg")
    assert f"<!-- {label} -->".encode() in drawn
    assert plotted(rows, original, "png").startswith(b"\x89PNG")


def test_what_cannot_be_plotted(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"`plot` a\.pdf: give a file name that ends in"):
        plot_format("a.pdf")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"needs matplotlib: pip install 'onnx-upscale\[plot\]'"):
        plot_format("a.SVG")
