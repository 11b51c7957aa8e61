"""Reading a model from wherever the caller has it."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from onnx_upscale.errors import ModelError

ModelSource = str | os.PathLike[str] | onnx.ModelProto


def read_model(source: ModelSource) -> onnx.ModelProto:
    """Reads an ONNX model, weights in external files included.

    Args:
        source: A path, or a model in memory, which is copied so that the caller's stays as it is.

    Returns:
        A model that nobody else holds.

    Raises:
        ModelError: There is no such file, or it is no ONNX model.
    """
    if isinstance(source, onnx.ModelProto):
        model = onnx.ModelProto()
        model.CopyFrom(source)
        return _checked(model, "the model")
    path = Path(source)
    if path.is_dir():
        raise ModelError(f"{path}: is a directory, not an ONNX file")
    try:
        model = onnx.load(path, load_external_data=False)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (DecodeError, ValueError, RuntimeError):
        raise ModelError(f"{path}: not an ONNX model, or a truncated one") from None
    _checked(model, str(path))
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, RuntimeError, onnx.checker.ValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{path}: its external weights cannot be read: {reason}") from None
    return model


def _checked(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    # Empty files and some random bytes parse as a protobuf message without content.
    if not model.ir_version or not model.opset_import or not model.graph.output:
        raise ModelError(f"{where}: not an ONNX model (no graph outputs or operator set in it)")
    return model
