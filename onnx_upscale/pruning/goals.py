"""What a user asks of a pruned model."""

from __future__ import annotations

import decimal
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onnx_upscale.choices import LIMITS, SIZES
from onnx_upscale.errors import UsageError

Asked = float | str | Sequence["float | str"] | None
_WOBBLE = 0.25
_LITTLE = 0.005
_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


@dataclass(frozen=True)
class Goal:
    """One goal.

    Attributes:
        name: One of `SIZES` or `LIMITS`.
        value: A share; of a latency in seconds, the seconds; of a score, any number.
        absolute: Whether it is such seconds.
    """

    name: str
    value: float
    absolute: bool = False

    def __str__(self) -> str:
        return f"`{self.name}` {self.value * 1e3:g}ms" if self.absolute else self.text

    @property
    def text(self) -> str:
        """How messages call a share."""
        return f"`{self.name}` {self.value:g}"


def loosened(goal: Goal, samples: int, score: float | None) -> Goal:
    """What a model has at least from which it may be chance that it has no more.

    1. The share of so many samples that agree is uncertain by its standard deviation: two of them.
    2. Errors differ by less than `_WOBBLE` from what those of slower and faster models say.
    3. Of a score nobody knows how it was found: as much again as may be lost, or a little of it.

    Args:
        goal: A goal in `LIMITS`.
        samples: How many samples are held out.
        score: The original's score, if there is a measure.

    Returns:
        The same goal, easier to satisfy.
    """
    if goal.name == "error":
        return replace(goal, value=goal.value * (1 + _WOBBLE))
    if goal.name == "agreement":
        variance = (goal.value * (1 - goal.value) + 1 / samples) / samples
        return replace(goal, value=goal.value - 2 * math.sqrt(variance))
    assert score is not None
    return replace(goal, value=goal.value - max(score - goal.value, _LITTLE * abs(score)))


def within(value: float, up: bool, digits: int = 4) -> str:
    """A limit in a few digits that something with some value keeps to.

    Args:
        value: The value.
        up: Whether a limit of more is kept to as well; else one of less.
        digits: How many.
    """
    rounding = decimal.ROUND_CEILING if up else decimal.ROUND_FLOOR
    limit = decimal.Context(prec=digits, rounding=rounding).create_decimal_from_float(value)
    return f"{float(limit):.{digits}g}"


def read_goals(asked: Mapping[str, Asked]) -> tuple[Goal, ...]:
    """The goals that a user gives.

    Args:
        asked: By name; None for those that were not given.

    Returns:
        One goal, or several latencies in descending order.

    Raises:
        UsageError: None or several kinds were given, or one cannot be meant.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    if len(given) != 1:
        known = ", ".join(f"`{name}`" for name in asked)
        found = ", ".join(f"`{name}`" for name in given) or "none"
        raise UsageError(f"give exactly one goal of {known}; found {found}")
    ((name, value),) = given.items()
    if name != "latency":
        return (Goal(name, _share(name, value)),)
    several = value.split(",") if isinstance(value, str) else value
    several = several if isinstance(several, Sequence) else [several]
    goals = [_latency(each) for each in several]
    if not goals:
        raise UsageError("`latency`: give a share such as 0.7, or a time such as 5ms")
    if len({goal.absolute for goal in goals}) > 1:
        raise UsageError("`latency`: give shares or times, not both")
    return tuple(sorted(set(goals), key=lambda goal: -goal.value))


def _latency(value: object) -> Goal:
    timed = re.fullmatch(r"\s*([0-9.eE+-]+)\s*(ms|us|s)\s*", str(value))
    if timed is None:
        return Goal("latency", _share("latency", value))
    seconds = _number("latency", timed[1]) * _UNITS[timed[2]]
    if not 0 < seconds < math.inf:
        raise UsageError(f"`latency` {value}: must be more than 0")
    return Goal("latency", seconds, absolute=True)


def _share(name: str, value: object) -> float:
    number = _number(name, value)
    if name == "score":
        if not math.isfinite(number):
            raise UsageError(f"`score` {value}: must be a finite number")
        return number
    above = name in LIMITS and number == 0
    if not (0 < number <= 1 or above) or (name in SIZES and number >= 1):
        raise UsageError(f"`{name}` {value}: must be a share between 0 and 1, such as 0.7")
    return number


def _number(name: str, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        hint = " or a time such as 5ms" if name == "latency" else ""
        what = "a score" if name == "score" else "a share"
        raise UsageError(f"`{name}` {value}: is no number: give {what} such as 0.7{hint}") from None
