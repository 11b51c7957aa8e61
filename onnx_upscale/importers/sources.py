"""Reading the files of other pruning tools."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from onnx_upscale.errors import MaskError
from onnx_upscale.optimizer.load.values import Array

_TORCH = (".bin", ".pt", ".pth")


def read_source(path: str | os.PathLike[str]) -> Any:
    """What a file holds; nothing in it is run.

    Args:
        path: A .json file, an .npz file, or one that `torch.save` wrote (.pt, .pth, .bin).

    Returns:
        Lists and dictionaries, with tensors in them where the file has some.

    Raises:
        MaskError: It cannot be read.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".json", ".npz", *_TORCH):
        raise MaskError(f"{path}: expected a .json, .npz, {', '.join(_TORCH)} file")
    if not path.is_file():
        raise MaskError(f"{path}: no such file")
    try:
        if suffix == ".json":
            return json.loads(path.read_text("utf-8-sig"))
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise MaskError(f"{path}: bad JSON at {place}: {error.msg}") from None
    except Exception as error:  # Broken archives make zipfile, zlib and numpy raise a dozen kinds.
        raise MaskError(f"{path}: not a readable {suffix} file: {_first_line(error)}") from None
    return _read_torch(path)


def _read_torch(path: Path) -> Any:
    try:
        import torch
    except ImportError:
        raise MaskError(
            f"{path}: reading it needs torch: pip install 'onnx-upscale[export]', or save the "
            "arrays as .npz"
        ) from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever pickle and zipfile do, and its own.
        raise MaskError(
            f"{path}: torch cannot load it as plain tensors (weights_only): {_first_line(error)}"
        ) from None


def as_array(value: Any) -> Array | None:
    """A tensor or an array of numbers as an array; None for anything else."""
    if hasattr(value, "detach"):  # A torch tensor, without importing torch to know.
        value = value.detach().cpu()
        value = value.numpy() if str(value.dtype) != "torch.bfloat16" else value.float().numpy()
    if not isinstance(value, np.ndarray):
        return None
    return value if value.dtype.kind in "biuf" else None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
