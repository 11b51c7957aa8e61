"""Whether samples fit the inputs of a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnx_upscale.declared import Shape, shape_of
from onnx_upscale.errors import DataError
from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.running import model_inputs


def only_input(model: onnx.ModelProto, what: str) -> onnx.ValueInfoProto:
    """The one input of a model.

    Args:
        model: The model.
        what: What needs it to be the only one, for the message.

    Returns:
        The input.

    Raises:
        DataError: The model has more inputs, or none.
    """
    inputs = model_inputs(model)
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise DataError(
            f"{what} is for models with one input, but this one has {names}: give an .npz file "
            "with an array for each"
        )
    return inputs[0]


def checked_type(value: onnx.ValueInfoProto, array: Array, where: str) -> np.dtype[Any]:
    """The type that an input wants, if an array has the shape and can take the type.

    Args:
        value: The input of the model.
        array: Samples for it, along the first axis.
        where: Where the array comes from, for the message.

    Returns:
        The type.

    Raises:
        DataError: The array has another shape or cannot take the type.
    """
    kind = value.type.tensor_type.elem_type
    wanted = np.dtype(helper.tensor_dtype_to_np_dtype(kind)) if kind else np.dtype(object)
    declared = shape_of(value) if value.type.tensor_type.HasField("shape") else None
    rank = array.ndim if declared is None else len(declared)
    fixed = [size if isinstance(size, int) else None for size in declared or (None,) * rank]
    if (
        array.ndim != rank
        or rank == 0
        or any(
            size not in (None, found)
            for size, found in zip(fixed[1:], array.shape[1:], strict=True)
        )
    ):
        found = "x".join(map(str, array.shape)) or "a single number"
        raise DataError(f"{where}: expected shape {spelled(declared)}, found {found}")
    same_kind = array.dtype.kind == wanted.kind or {array.dtype.kind, wanted.kind} <= set("iu")
    if not same_kind or wanted.kind not in "fiub":
        raise DataError(f"{where}: expected {wanted}, found {array.dtype}")
    return wanted


def spelled(shape: Shape | None) -> str:
    """A shape of samples for messages: any number of them, and what is known of the rest."""
    if not shape:
        return "with samples along the first axis"
    return "x".join(["N", *(str(size or "?") for size in shape[1:])])
