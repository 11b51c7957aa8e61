"""The report of pruning to a goal, in version 1 of its form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx_upscale.benchmark.results import Measured
from onnx_upscale.recovery.report import RecoverReport
from onnx_upscale.report import Document, Section, VerifyReport


@dataclass(frozen=True)
class Asked(Section):
    """The goal.

    Attributes:
        name: What it is about.
        value: What was asked for.
        seconds: Whether that is a time.
    """

    name: str
    value: float
    seconds: bool


@dataclass(frozen=True)
class Change(Section):
    """Something of the original and of the pruned model."""

    before: float
    after: float


@dataclass(frozen=True)
class Predicted(Change):
    """Predicted seconds, or what else the goal is a share of, and the share."""

    share: float


@dataclass(frozen=True, eq=False)
class PruneReport(Document):
    """What was done; also the dictionary of the report file.

    Attributes:
        goal: What was asked for.
        target: Whose costs were planned for.
        mode: Whether readers had to agree.
        predicted: What the choice promised.
        latency: What was measured of the original and of the pruned model.
        macs: Multiply-adds.
        params: Weights.
        score: By the user's own measure, if there is one.
        kept: By key of each layer that was considered, its input channels and those kept.
        recovered: How it was repaired.
        verify: What the comparison with the repaired model found.
    """

    goal: Asked
    target: str
    mode: str
    predicted: Predicted
    latency: tuple[Measured, ...]
    macs: Change
    params: Change
    score: Change | None
    kept: Mapping[str, tuple[int, int]]
    recovered: RecoverReport
    verify: VerifyReport
