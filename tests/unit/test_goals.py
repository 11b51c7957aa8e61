"""What a user may ask of a pruned model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_upscale.errors import UsageError
from onnx_upscale.pruning.goals import Goal, loosened, read_goals, within


@pytest.mark.parametrize(
    ("asked", "goals"),
    [
        ({"latency": 0.7}, [Goal("latency", 0.7)]),
        ({"latency": "0.7", "macs": None}, [Goal("latency", 0.7)]),
        ({"latency": "5ms"}, [Goal("latency", 0.005, absolute=True)]),
        ({"latency": "250us"}, [Goal("latency", 250e-6, absolute=True)]),
        ({"latency": "0.5,0.9, 0.7"}, [Goal("latency", each) for each in (0.9, 0.7, 0.5)]),
        ({"macs": "0.25"}, [Goal("macs", 0.25)]),
        ({"error": 0}, [Goal("error", 0.0)]),
        ({"agreement": 1}, [Goal("agreement", 1.0)]),
        ({"score": "-12.5"}, [Goal("score", -12.5)]),
    ],
)
def test_what_can_be_asked(asked: dict[str, Any], goals: list[Goal]) -> None:
    read = read_goals(asked)
    assert [(goal.name, goal.absolute) for goal in read] == [(g.name, g.absolute) for g in goals]
    assert [goal.value for goal in read] == pytest.approx([goal.value for goal in goals])


@pytest.mark.parametrize(
    ("asked", "saying"),
    [
        ({"latency": None, "macs": None}, "exactly one goal of `latency`, `macs`; found none"),
        ({"latency": 0.5, "macs": 0.5}, "found `latency`, `macs`"),
        ({"latency": "fast"}, "`latency` fast: is no number: .* or a time such as 5ms"),
        ({"latency": "0ms"}, "must be more than 0"),
        ({"latency": "1.5"}, "must be a share between 0 and 1"),
        ({"latency": "0.5,5ms"}, "shares or times, not both"),
        ({"macs": 0}, "`macs` 0: must be a share"),
        ({"params": 1}, "`params` 1: must be a share"),
        ({"agreement": "nan"}, "`agreement` nan: must be a share"),
        ({"error": -0.1}, "`error` -0.1: must be a share"),
        ({"score": "inf"}, "`score` inf: must be a finite number"),
        ({"score": "good"}, "`score` good: is no number: give a score such as 0.7$"),
        ({"macs": "half"}, "`macs` half: is no number: give a share such as 0.7$"),
    ],
)
def test_what_cannot(asked: dict[str, Any], saying: str) -> None:
    with pytest.raises(UsageError, match=saying):
        read_goals(asked)


@pytest.mark.parametrize(
    ("goal", "least"),
    [
        (Goal("agreement", 0.5), 0.5 - 2 * (0.25 / 100 + 1 / 100**2) ** 0.5),
        (Goal("agreement", 1.0), 0.98),  # Two of the samples.
        (Goal("error", 0.2), 0.25),
        (Goal("error", 0.0), 0.0),
        (Goal("score", 0.7), 0.6),  # As much again.
        (Goal("score", 0.8), 0.796),
        (Goal("score", -20.0), -40.8),
    ],
)
def test_what_chance_may_have_taken(goal: Goal, least: float) -> None:
    loose = loosened(goal, 100, 0.8)
    assert loose.name == goal.name
    assert loose.value == pytest.approx(least)


@given(st.floats(-1e9, 1e9, allow_subnormal=False), st.booleans(), st.integers(2, 6))
def test_what_is_told_of_a_limit_can_be_kept_to(value: float, up: bool, digits: int) -> None:
    told = float(within(value, up, digits))
    assert told >= value if up else told <= value
    assert told == pytest.approx(value, rel=10.0 ** (1 - digits))
