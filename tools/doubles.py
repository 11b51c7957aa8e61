"""Quantized models in double precision, with every rounding that they have.

Sums of doubles differ by so little from one order to another that what is rounded behind them is
rounded alike: two models that compute the same do so here to ten digits and more, however often
they round. Nothing of it is of the optimizer or of onnxruntime; operators of `com.microsoft` are
those of the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from quantized_reference import OPERATORS, decode, encode

Array: TypeAlias = "npt.NDArray[Any]"


def run(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> list[Array]:
    """What a model makes."""
    wide = {name: x.astype(np.float64) if x.dtype.kind == "f" else x for name, x in inputs.items()}
    own = [each for each in OpRun.__subclasses__() if each.__module__ == __name__]
    made = ReferenceEvaluator(widened(model), new_ops=[*OPERATORS, *own]).run(None, wide)
    return [np.asarray(each) for each in made]


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model whose constants are doubles."""
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    attributes = [each for node in wide.graph.node for each in node.attribute]
    tensors = [each.t for each in attributes if each.HasField("t")]
    for tensor in [*wide.graph.initializer, *tensors]:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            value = numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    for node in wide.graph.node:
        for each in node.attribute if node.op_type == "Cast" else ():
            if each.name == "to" and each.i == onnx.TensorProto.FLOAT:
                each.i = onnx.TensorProto.DOUBLE
    return wide


def along(value: Array, rank: int, axis: int) -> Array:
    """One value per channel in a shape that broadcasts."""
    return (
        value
        if value.size == 1
        else value.reshape([-1 if at == axis % rank else 1 for at in range(rank)])
    )


def windows(x: Array, kernel: list[int], strides: list[int], pads: list[int], fill: float) -> Array:
    """The places under a kernel, as two more axes at the end."""
    top, left, bottom, right = pads
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    seen = sliding_window_view(padded, tuple(kernel), axis=(2, 3))
    result: Array = seen[:, :, :: strides[0], :: strides[1]]
    return result


def convolve(x: Array, weight: Array, how: Mapping[str, Any]) -> Array:
    """Of whole or real numbers, in doubles."""
    assert how.get("dilations") in (None, [1, 1]) and how.get("auto_pad", "NOTSET") == "NOTSET"
    kernel, groups = list(weight.shape[2:]), how.get("group") or 1
    seen = windows(
        x.astype(np.float64), kernel, how.get("strides") or [1, 1], how.get("pads") or [0] * 4, 0
    )
    count, width, depth = len(weight) // groups, weight.shape[1], weight.astype(np.float64)
    if width == count == 1:
        made: Array = np.einsum("nchwij,cij->nchw", seen, depth[:, 0])
        return made
    parts = [
        np.tensordot(
            seen[:, g * width : (g + 1) * width],
            depth[g * count : (g + 1) * count],
            ((1, 4, 5), (1, 2, 3)),
        )
        for g in range(groups)
    ]
    return np.moveaxis(np.concatenate(parts, -1), -1, 1)


class QuantizeLinear(OpRun):
    def _run(self, x: Array, scale: Array, zero: Array, axis: int = 1, **how: Any) -> tuple[Array]:
        return (encode(x, along(scale, x.ndim, axis), along(zero, x.ndim, axis)),)


class DequantizeLinear(OpRun):
    def _run(
        self, x: Array, scale: Array, zero: Array | None = None, axis: int = 1, **how: Any
    ) -> tuple[Array]:
        zero = np.zeros((), x.dtype) if zero is None else zero
        return (decode(x, along(scale, x.ndim, axis), along(zero, x.ndim, axis)),)


class DynamicQuantizeLinear(OpRun):
    def _run(self, x: Array) -> tuple[Array, Array, Array]:
        low, high = min(x.min(), 0.0), max(x.max(), 0.0)
        scale = np.array((high - low) / 255 if high > low else 1.0)
        zero = np.clip(np.rint(-low / scale), 0, 255).astype(np.uint8)
        return encode(x, scale, zero), scale, zero


class Conv(OpRun):
    def _run(self, x: Array, w: Array, b: Array | None = None, **how: Any) -> tuple[Array]:
        made = convolve(x, w, how)
        return (made if b is None else made + along(b, made.ndim, 1),)


class ConvInteger(OpRun):
    def _run(
        self,
        x: Array,
        w: Array,
        x_zero: Array | None = None,
        w_zero: Array | None = None,
        **how: Any,
    ) -> tuple[Array]:
        return (convolve(_less(x, x_zero), _less(w, w_zero, 0), how).astype(np.int64),)


class QLinearConv(OpRun):
    def _run(
        self, x: Array, xs: Array, xz: Array, w: Array, ws: Array, wz: Array, ys: Array, yz: Array,
        b: Array | None = None, **how: Any,
    ) -> tuple[Array]:  # fmt: skip
        sums = convolve(_less(x, xz), _less(w, wz, 0), how)
        sums = sums if b is None else sums + along(b, sums.ndim, 1)
        return (encode(sums * (xs.astype(np.float64) * along(ws, sums.ndim, 1)), ys, yz),)


class QLinearMatMul(OpRun):
    def _run(
        self, a: Array, sa: Array, za: Array, b: Array, sb: Array, zb: Array, sy: Array, zy: Array
    ) -> tuple[Array]:  # fmt: skip
        return (encode(decode(a, sa, za) @ decode(b, sb, zb), sy, zy),)


class MatMulInteger(OpRun):
    def _run(
        self, a: Array, b: Array, a_zero: Array | None = None, b_zero: Array | None = None
    ) -> tuple[Array]:
        return (_less(a, a_zero) @ _less(b, b_zero, 1),)


class MaxPool(OpRun):
    def _run(
        self, x: Array, kernel_shape: list[int], pads: Any = None, strides: Any = None, **how: Any
    ) -> tuple[Array]:
        lowest = np.iinfo(x.dtype).min if x.dtype.kind in "iu" else -np.inf
        return (windows(x, kernel_shape, strides or [1, 1], pads or [0] * 4, lowest).max((4, 5)),)


class Resize(OpRun):
    def _run(
        self, x: Array, roi: Any = None, scales: Array | None = None, *sizes: Any, **how: Any
    ) -> tuple[Array]:
        assert scales is not None and how["mode"] == "nearest" and (scales % 1 == 0).all()
        for axis, times in enumerate(scales.astype(int)):
            x = x.repeat(times, axis)
        return (x,)


def _less(numbers: Array, zero: Array | None, axis: int = 0) -> Array:
    wide = numbers.astype(np.int64)
    return wide if zero is None else wide - along(zero, wide.ndim, axis)
