"""What a model declares of the shape of a tensor."""

from __future__ import annotations

from typing import TypeAlias

import onnx

Shape: TypeAlias = "tuple[int | str | None, ...]"
"""A size is a number, the name of a symbolic dimension, or None where nothing is known."""


def shape_of(value: onnx.ValueInfoProto) -> Shape:
    """The declared shape of a tensor."""
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in value.type.tensor_type.shape.dim
    )
