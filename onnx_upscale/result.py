"""What the main job gives back: an optimized model and the report of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import onnx

from onnx_upscale.atomic import Content, PathLike
from onnx_upscale.files import Saved, check_writable, write_files
from onnx_upscale.mapped import embedded
from onnx_upscale.report import Report
from onnx_upscale.storage import Stored


@dataclass(frozen=True)
class Result(Saved):
    """An optimized model.

    Attributes:
        emitted: The emitted model; what is large in it may still be in the files that were read.
        report: What was done; it also reads like the dictionary of the report file.
        sources: The external files in which weights of the model that was read lie; if there are
            any, those of the result go to a file of their own unless somebody says otherwise.
    """

    emitted: onnx.ModelProto = field(repr=False)
    report: Report = field(repr=False)
    sources: frozenset[Path] = frozenset()

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The emitted model; above 2 GB, weights that nothing changed stay where they were read."""
        return self.emitted if self._stored.is_large else embedded(self.emitted)

    @cached_property
    def content(self) -> bytes:
        """The model as the content of one file; the same model gives the same bytes."""
        content: bytes = self.model.SerializeToString(deterministic=True)
        return content

    @cached_property
    def _stored(self) -> Stored:
        return Stored(self.emitted, self.sources)

    def save(self, path: PathLike, *, external_data: str = "auto") -> None:
        """Writes it, in full or not at all.

        Args:
            path: Where to.
            external_data: `always`: weights go to a file beside it. `never`: everything is in one
                file. `auto`: as the model that was read, and beside it where one file is too small.

        Raises:
            OutputError: It cannot be written.
        """
        check_writable(path)
        write_files(self._stored.files(path, external_data), keep=self.sources)

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
        sha256, size = self._stored.size(path, external_data)
        files = self._stored.files(path, external_data)
        return files, self.report.written_to(path, sha256, size)
