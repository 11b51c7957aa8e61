"""Masks from the results of other pruning tools."""

from __future__ import annotations

import os
import warnings
from typing import Any

from onnx_upscale.arguments import check_known
from onnx_upscale.blame import blaming_the_model
from onnx_upscale.importers.elements import Imported
from onnx_upscale.importers.formats import FORMATS
from onnx_upscale.importers.sources import read_source
from onnx_upscale.optimizer.load.graph import build_graph
from onnx_upscale.optimizer.load.masking import resolve_masks
from onnx_upscale.optimizer.load.masks import read_masks
from onnx_upscale.optimizer.load.model import ModelSource, read_files

__all__ = ["FORMATS", "Imported", "import_masks", "read_imported"]


def import_masks(format: str, source: Any, model: ModelSource | None = None) -> dict[str, Any]:
    """Turns the result of another pruning tool into masks.

    Args:
        format: `torch`, `torch-pruning`, `upscale` or `nni`; `FORMATS` documents each.
        source: A path, or what the file would hold.
        model: The exported model. With it, names and sizes are checked, and grouped and transposed
            convolutions are understood, which their weights alone do not tell.

    Returns:
        Masks, in the form of a mask file. What cannot be said as one is told by a `UserWarning`.

    Raises:
        MaskError: The source cannot be read, or does not fit the model.
        UsageError: There is no such format.
    """
    imported = read_imported(format, source, model)
    for warning in imported.warnings:
        warnings.warn(warning, stacklevel=2)
    return imported.document


@blaming_the_model
def read_imported(format: str, source: Any, model: ModelSource | None = None) -> Imported:
    """As `import_masks`, with the warnings as a part of the result.

    Args:
        format: As for `import_masks`.
        source: As for `import_masks`.
        model: As for `import_masks`.

    Returns:
        The masks and the warnings.
    """
    check_known("format", format, FORMATS)
    graph = None if model is None else build_graph(read_files(model, mapped=True).model)
    if isinstance(source, (str, os.PathLike)):
        imported = FORMATS[format](read_source(source), str(source), graph)
    else:
        imported = FORMATS[format](source, "source", graph)
    if graph is not None:
        resolve_masks(graph, read_masks(imported.document))
    return imported
