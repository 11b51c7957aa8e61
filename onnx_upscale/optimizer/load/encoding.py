"""Whole numbers that stand for real ones: q stands for (q - zero point) x scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper

from onnx_upscale.optimizer.load.graph import Graph, Node
from onnx_upscale.optimizer.load.values import Array

Floats: TypeAlias = "npt.NDArray[np.float64]"

# Kernels compute with float32, in an order of their own: what they round this near to a half is
# anybody's guess, so that it counts as not known.
_DOUBT = 0.01


@dataclass(frozen=True, eq=False)
class Encoding:
    """The scale and the zero point of a tensor.

    Attributes:
        scale: One number, or one per channel.
        zero: The zero point; its type is that of the tensor.
    """

    scale: Array
    zero: Array

    @property
    def single(self) -> bool:
        """Whether all channels have the same."""
        return self.scale.size == self.zero.size == 1

    def same_as(self, other: Encoding) -> bool:
        """Whether the same numbers stand for the same."""
        return (
            self.zero.dtype == other.zero.dtype
            and np.array_equal(self.scale.ravel(), other.scale.ravel())
            and np.array_equal(self.zero.ravel(), other.zero.ravel())
        )

    def decode(self, numbers: Array) -> Floats:
        """What numbers stand for; NaN stays NaN."""
        centred = numbers.astype(np.float64) - self.zero.astype(np.float64).ravel()
        decoded: Floats = centred * self.scale.astype(np.float64).ravel()
        return decoded

    def encode(self, values: Floats) -> Floats:
        """What real numbers are rounded to; NaN for one that may be rounded up or down."""
        limits = np.iinfo(self.zero.dtype)
        steps = values / self.scale.astype(np.float64).ravel()
        places = np.clip(steps + self.zero.astype(np.float64).ravel(), limits.min, limits.max)
        doubtful = np.abs(places - np.floor(places) - 0.5) < _DOUBT
        return np.where(doubtful, np.nan, np.rint(places))


def encoding_of(
    graph: Graph, node: Node, scale: int, zero: int, tensor: str = ""
) -> Encoding | None:
    """The encoding that a node is told of in two of its inputs.

    Args:
        graph: The graph.
        node: The node.
        scale: The slot of the scale.
        zero: The slot of the zero point; without one it is 0.
        tensor: The tensor that is encoded, whose type is wanted where there is no zero point.

    Returns:
        The encoding; None where it is not constant, or not of whole numbers that numpy has.
    """
    found = graph.value(node, scale)
    if found is None or found.dtype.kind != "f" or found.ndim > 1:
        return None
    point = zero_point(graph, node, zero, tensor)
    if point is None or point.size not in (1, found.size):
        return None
    return Encoding(found, point)


def zero_point(graph: Graph, node: Node, slot: int, tensor: str = "") -> Array | None:
    """The zero point that a node is told of; None where that is not constant.

    Args:
        graph: The graph.
        node: The node.
        slot: The slot of the zero point; without one it is 0.
        tensor: The tensor whose zero point it is.
    """
    if node.input(slot):
        point = graph.value(node, slot)
        fits = point is not None and point.dtype.kind in "iu" and point.ndim <= 1 and point.size
        return point if fits else None
    kind = graph.types.get(tensor, 0)
    if kind not in (TensorProto.INT8, TensorProto.UINT8):
        return None
    return np.zeros((), helper.tensor_dtype_to_np_dtype(kind))
