"""What comes of a choice: the repaired model, the emitted one, and what they have of a goal."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Protocol

from onnx_upscale.errors import UsageError
from onnx_upscale.optimizer.load import ModelSource
from onnx_upscale.pruning.goals import Goal, within
from onnx_upscale.pruning.search import Choice
from onnx_upscale.recovery import Recovered
from onnx_upscale.result import Result


class Makes(Protocol):
    """Makes what a candidate is asked for."""

    def recovered(self, choice: Choice) -> Recovered:
        """The repaired model of a choice."""

    def emitted(self, recovered: Recovered) -> Result:
        """The emitted model, verified."""

    def evaluated(self, model: ModelSource) -> float | None:
        """Its score, if there is a measure."""


class Candidate:
    """What comes of a choice, each step made when somebody asks for it, and once.

    Args:
        pruner: Makes it.
        choice: What was chosen.
    """

    def __init__(self, pruner: Makes, choice: Choice) -> None:
        self._pruner, self.choice = pruner, choice
        self._values: dict[str, float] = {}

    def forget(self) -> None:
        """Gives the memory of the models back; they are made again if somebody asks for them."""
        self.__dict__.pop("recovered", None)
        self.__dict__.pop("result", None)

    @property
    def repaired(self) -> bool:
        """Whether the repaired model is there already."""
        return "recovered" in self.__dict__

    @functools.cached_property
    def recovered(self) -> Recovered:
        """The repaired model of the original's shapes."""
        return self._pruner.recovered(self.choice)

    @functools.cached_property
    def result(self) -> Result:
        """The emitted model, verified."""
        return self._pruner.emitted(self.recovered)

    @functools.cached_property
    def score(self) -> float | None:
        """The score of the emitted model, if there is a measure."""
        return self._pruner.evaluated(self.result.stored)

    def value(self, goal: Goal) -> float:
        """What it has of what a goal is about.

        Raises:
            UsageError: It has nothing of that.
        """
        if goal.name not in self._values:
            self._values[goal.name] = self._value(goal)
        return self._values[goal.name]

    def _value(self, goal: Goal) -> float:
        if goal.name == "score":
            assert self.score is not None
            return self.score
        report = self.recovered.report
        if goal.name == "error":
            return report.error
        if report.agreement is None:
            raise UsageError(f"{goal}: no output ranks answers; give `error` in its place")
        return report.agreement

    def left(self, name: str) -> float:
        """The share that is left of the multiply-adds or the weights (`macs`, `params`)."""
        report = self.result.report
        before, after = getattr(report.input, name), getattr(report.output, name)
        return float(after / max(before, 1))

    def satisfies(self, goal: Goal) -> bool:
        """Whether it stays as near, or as good, as a goal says."""
        value = self.value(goal)
        return value <= goal.value if goal.name == "error" else value >= goal.value


def out_of_reach(goal: Goal, tried: Sequence[Candidate]) -> str:
    """What is said of a goal that nothing that was tried satisfies."""
    if not tried:
        return f"{goal}: cannot be reached: no channels can leave that make the model faster"
    sign, ask = (1, "more") if goal.name == "error" else (-1, "less")
    nearest = min(tried, key=lambda each: sign * each.value(goal))
    return (
        f"{goal}: cannot be reached: the nearest model that was tried has "
        f"{within(nearest.value(goal), up=sign > 0)} at {nearest.choice.share:.2f} of the latency; "
        f"give that or {ask}"
    )
