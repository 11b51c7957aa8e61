"""What the main job gives back: an optimized model and the report of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from onnx_upscale.atomic import Content, PathLike
from onnx_upscale.emitted import Emitted
from onnx_upscale.optimizer.plan import Plan
from onnx_upscale.report import Report
from onnx_upscale.storage import size_of_files


@dataclass(frozen=True)
class Result(Emitted):
    """An optimized model.

    Attributes:
        done: The report, but for what only the written model tells.
        plan: What was decided, for `onnx_upscale.torch.slim`; None where nobody says.
    """

    done: Report = field(repr=False)
    plan: Plan | None = field(default=None, repr=False, compare=False, kw_only=True)

    @cached_property
    def report(self) -> Report:
        """What was done; it also reads like the dictionary of the report file."""
        return self.done.written_to(None, *self.stored.size("model.onnx"))

    def written_to(
        self, path: str, external_data: str = "auto"
    ) -> tuple[dict[PathLike, Content], Report]:
        """What `save` would write, and the report of that.

        Args:
            path: As for `save`.
            external_data: As for `save`.

        Returns:
            Contents by path, and the report.

        Raises:
            OutputError: It does not fit into one file.
        """
        files = self.stored.files(path, external_data)
        return files, self.done.written_to(path, *size_of_files(files, path))
