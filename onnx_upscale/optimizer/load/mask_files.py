"""Writing mask files."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onnx_upscale.errors import UsageError
from onnx_upscale.optimizer.load.graph import Graph
from onnx_upscale.optimizer.load.masking import LayerMask, resolve_masks
from onnx_upscale.optimizer.load.masks import Mask, document, read_masks

_SUFFIXES = (".json", ".npz")


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Finds out before the work whether a mask file can have this name.

    Raises:
        UsageError: It cannot.
    """
    if Path(path).suffix.lower() not in _SUFFIXES:
        raise UsageError(f"{path}: masks are written as {' or '.join(_SUFFIXES)}")


def mask_file(path: str | os.PathLike[str], masks: Mapping[str, Any], graph: Graph) -> bytes:
    """The content of a mask file: the same masks give the same bytes.

    Args:
        path: What it will be called; its suffix decides on the form.
        masks: The masks in the form of a mask file.
        graph: The model they are for, whose channels an .npz file counts.

    Returns:
        JSON with a line per layer, or an .npz file with a flag per channel.

    Raises:
        UsageError: The path has another suffix.
        MaskError: The masks do not fit the model.
    """
    check_suffix(path)
    if Path(path).suffix.lower() == ".npz":
        return _npz(read_masks(masks), graph)
    lines = [f"    {json.dumps(key)}: {json.dumps(sides)}" for key, sides in masks["masks"].items()]
    layers = ",\n".join(lines)
    version = json.dumps(document({})["version"])
    return f'{{\n  "version": {version},\n  "masks": {{\n{layers}\n  }}\n}}\n'.encode()


def channels(mask: LayerMask) -> int:
    """How many channels the side that a mask is for has."""
    return mask.layer.channels(mask.side)


def _npz(masks: Iterable[Mask], graph: Graph) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for mask in masks:
            (resolved, *_) = resolve_masks(graph, [mask])
            kept = np.ones(channels(resolved), bool)
            kept[resolved.pruned] = False
            array = io.BytesIO()
            np.lib.format.write_array(array, kept, allow_pickle=False)
            # Not np.savez, which writes the time of day into the file.
            entry = zipfile.ZipInfo(f"{mask.key}.{mask.side}.npy")
            archive.writestr(entry, array.getvalue(), zipfile.ZIP_DEFLATED)
    return content.getvalue()
