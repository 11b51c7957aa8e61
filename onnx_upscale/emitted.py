"""What results have in common that are models."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import onnx

from onnx_upscale.atomic import PathLike
from onnx_upscale.files import check_writable, write_files
from onnx_upscale.mapped import embedded
from onnx_upscale.storage import Stored


@dataclass(frozen=True)
class Emitted:
    """A model that was made of one that was read.

    Attributes:
        emitted: The model; what is large in it may still be in the files that were read.
        sources: The external files in which weights of the model that was read lie; if there are
            any, those of this one go to a file of their own unless somebody says otherwise.
    """

    emitted: onnx.ModelProto = field(repr=False)
    sources: frozenset[Path] = field(default=frozenset(), kw_only=True)

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The model; above 2 GB, weights that nothing changed stay where they were read."""
        return self.emitted if self.stored.is_large else embedded(self.emitted)

    @cached_property
    def content(self) -> bytes:
        """The model as the content of one file; the same model gives the same bytes."""
        content: bytes = self.model.SerializeToString(deterministic=True)
        return content

    @cached_property
    def stored(self) -> Stored:
        """The model as it will be written."""
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
        write_files(self.stored.files(path, external_data), keep=self.sources)
