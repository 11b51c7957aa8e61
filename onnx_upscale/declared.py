"""What a model declares of the shape of a tensor."""

from __future__ import annotations

from typing import TypeAlias

import onnx

Shape: TypeAlias = "tuple[int | str | None, ...]"
"""A size is a number, the name of a symbolic dimension, or None where nothing is known."""


def shape_of(value: onnx.ValueInfoProto) -> Shape:
    """The declared shape of a tensor."""
    return shape_in(value.type)


def shape_in(found: onnx.TypeProto) -> Shape:
    """The shape in the type of a tensor."""
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
        for dim in found.tensor_type.shape.dim
    )
