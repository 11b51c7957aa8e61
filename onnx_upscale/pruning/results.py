"""What pruning made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import onnx

from onnx_upscale.atomic import PathLike
from onnx_upscale.pruning.plot import plot_format, plotted
from onnx_upscale.pruning.report import PruneReport
from onnx_upscale.recovery import Recovered
from onnx_upscale.result import Result


@dataclass(frozen=True)
class Pruned:
    """A pruned model, with what lies between.

    Attributes:
        result: The emitted model and the report of the optimizer.
        recovered: The repaired model of the original's shapes that it equals.
        masks: What was chosen, in the form of a mask file.
        report: What was done; it also reads like the dictionary of the report file.
        warnings: What could not be done.
    """

    result: Result
    recovered: Recovered
    masks: dict[str, Any]
    report: PruneReport
    warnings: tuple[str, ...] = field(default=())

    @property
    def model(self) -> onnx.ModelProto:
        """The emitted model."""
        return self.result.model

    @property
    def content(self) -> bytes:
        """The emitted model as a file's content."""
        return self.result.content

    def save(self, path: PathLike, *, external_data: str = "auto") -> None:
        """Writes the emitted model, in full or not at all.

        Args:
            path: Where to.
            external_data: As for `Result.save`.

        Raises:
            OutputError: It cannot be written.
        """
        self.result.save(path, external_data=external_data)

    @property
    def row(self) -> dict[str, Any]:
        """What a table says of it: shares of the original, and how near it stays."""
        report = self.report
        return {
            "goal": report.goal.to_json(),
            "latency": report.latency[1].ratio.median,
            "predicted": report.predicted.share,
            "macs": report.macs.after / max(report.macs.before, 1),
            "params": report.params.after / max(report.params.before, 1),
            "agreement": report.recovered.agreement,
            "error": report.recovered.error,
            "score": None if report.score is None else report.score.after,
        }


@dataclass(frozen=True)
class Sweep(Sequence[Pruned]):
    """One model pruned to several goals: a sequence of results.

    Attributes:
        results: A result per goal.
    """

    results: tuple[Pruned, ...]

    @overload
    def __getitem__(self, place: int) -> Pruned: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Pruned, ...]: ...

    def __getitem__(self, place: int | slice) -> Pruned | tuple[Pruned, ...]:
        return self.results[place]

    def __len__(self) -> int:
        return len(self.results)

    @property
    def table(self) -> list[dict[str, Any]]:
        """A row per goal.

        Its `latency` (measured), `predicted` latency, `macs` and `params` are shares of the
        original's; `agreement` and `error` hold on held-out samples; `score` is the user's own.
        """
        return [each.row for each in self.results]

    @property
    def report(self) -> dict[str, Any]:
        """All reports as one, as JSON has it."""
        reports = [each.report for each in self.results]
        return {"version": 1, "table": self.table, "results": reports}

    def plot(self, suffix: str = "svg") -> bytes:
        """A plot of the table, as the content of a file: fidelity against measured latency.

        Args:
            suffix: `svg` or `png`.

        Raises:
            UsageError: There is no such format, or matplotlib is not installed.
        """
        score = self.results[0].report.score
        original = None if score is None else score.before
        return plotted(self.table, original, plot_format(f"plot.{suffix}"))
