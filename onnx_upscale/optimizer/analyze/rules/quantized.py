"""Operators on whole numbers that stand for real ones; known values are as they are stored.

What kernels round to is taken as known only where no order of their sums could change it
(`Encoding.encode`). So a zero, which is the zero point exactly, passes whatever the scales are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from onnx_upscale.optimizer.analyze.context import Context, UnclearError
from onnx_upscale.optimizer.analyze.facts import Carry, Concatenation, How
from onnx_upscale.optimizer.analyze.rewrites import Editor, Positions
from onnx_upscale.optimizer.analyze.rules.elementwise import broadcast_axis
from onnx_upscale.optimizer.analyze.rules.layers import (
    gemm,
    has_padding,
    matmul,
    product_of_activations,
)
from onnx_upscale.optimizer.analyze.rules.table import rule
from onnx_upscale.optimizer.load.encoding import Encoding, encoding_of
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.load.layers import layer_of
from onnx_upscale.optimizer.load.pointwise import MICROSOFT
from onnx_upscale.optimizer.load.quantized import is_read_from_zero_point

Floats: TypeAlias = "npt.NDArray[np.float64]"


@dataclass(frozen=True)
class _Through:
    """What an operator makes of numbers: of what they stand for, and back to numbers."""

    operation: Callable[..., Floats]
    read: tuple[Encoding, ...]
    made: Encoding

    def __call__(self, operands: Sequence[Floats]) -> Floats:
        """Per channel; NaN for what is not known."""
        real = (each.decode(values) for each, values in zip(self.read, operands, strict=True))
        with np.errstate(all="ignore"):
            return self.made.encode(self.operation(*real))


def _encoding(node: Context, scale: int, tensor: str) -> Encoding:
    """The encoding in a slot and the next one.

    Raises:
        UnclearError: It is not one for the whole tensor, or not constant.
    """
    found = encoding_of(node.graph, node.node, scale, scale + 1, tensor)
    if found is None or not found.single:
        raise UnclearError("its scale is not constant, or there is more than one")
    return found


def _product(one: Floats, other: Floats) -> Floats:
    # Zero times what is not known is zero.
    return np.where((one == 0) | (other == 0), 0.0, one * other)


def _sigmoid(values: Floats) -> Floats:
    made: Floats = 1 / (1 + np.exp(-values))
    return made


def _same(values: Floats) -> Floats:
    return values


def _zero(values: Floats) -> Floats:
    return np.where(values == 0, 0.0, np.nan)


@rule("QLinearMatMul")
def matrix_product(node: Context) -> None:
    """With a constant matrix on the right a reader and writer, with two activations a coupling."""
    if layer_of(node.graph, node.node) is not None:
        matmul(node)
        return
    if node.constant(0) is not None or node.constant(3) is not None:
        raise UnclearError("its first matrix is constant, or a scale is not")
    names = node.node.inputs[0], node.node.inputs[3], node.node.outputs[0]
    one, other, made = (_encoding(node, *at) for at in zip((1, 4, 6), names, strict=True))
    zeros = (
        lambda pair: np.where(_product(one.decode(pair[0]), other.decode(pair[1])) == 0, 0, np.nan),
        _Through(_zero, (one,), made),
        _Through(_zero, (other,), made),
        _Through(lambda left, right: _zero(_product(left, right)), (one, other), made),
    )
    product_of_activations(node, (0, 3), zeros)


@rule("MatMulInteger")
def integer_product(node: Context) -> None:
    """With a constant matrix on the right a reader and writer; all else is pinned."""
    if layer_of(node.graph, node.node) is None:
        raise UnclearError("its second matrix is not constant, or its zero point is not")
    matmul(node)


@rule("DynamicQuantizeLinear")
def dynamic(node: Context) -> None:
    """Its scale is found in the smallest and largest number of all channels, and in zero.

    Any channel may hold either of them in some run, so that all are needed, whoever reads them
    behind it, but for those that are zero: these cannot change a range that zero is always in. One
    of any other known value could be at its end.

    What a number stands for is what it was before, up to rounding, and zero is exact. Where all who
    read the result count from its zero point, channels are known by that.
    """
    counts = is_read_from_zero_point(node.graph, node.node)
    for axis, labels in node.axes(0).items():
        node.need(0, axis, "its range is that of all channels", unless_zero=True)
        if counts:
            node.move(axis, labels)
        else:
            node.pass_on(axis, labels)


@rule("QGemm", MICROSOFT)
def quantized_gemm(node: Context) -> None:
    """A Gemm of whole numbers."""
    if layer_of(node.graph, node.node) is None:
        raise UnclearError("its matrix or a scale is not constant")
    gemm(node)


@rule("QLinearAdd QLinearMul", MICROSOFT)
def binary(node: Context) -> None:
    """A sum or product of two tensors, with broadcasting."""
    names = node.node.inputs[0], node.node.inputs[3], node.node.outputs[0]
    one, other, made = (_encoding(node, *at) for at in zip((1, 4, 6), names, strict=True))
    operation = _product if node.node.op == "QLinearMul" else np.add
    through, rank = _Through(operation, (one, other), made), len(node.output_shape())
    for axis in range(rank):
        broadcast_axis(node, axis, rank, How.EVALUATE, slots=(0, 3), function=through)


@rule("QLinearSigmoid QLinearLeakyRelu", MICROSOFT)
def unary(node: Context) -> None:
    """A function of each number by itself."""
    if node.node.op == "QLinearSigmoid":
        _each(node, set(node.axes(0)), _sigmoid)
    else:
        alpha = float(node.attribute("alpha", 0.01))
        _each(node, set(node.axes(0)), lambda real: np.where(real < 0, alpha * real, real))


@rule("QLinearGlobalAveragePool QLinearAveragePool", MICROSOFT)
def pool(node: Context) -> None:
    """Each channel is averaged by itself."""
    if node.attribute("channels_last", 0):
        raise UnclearError("its channels come last")
    node.pin_others(0, {0, 1}, "pooled over")
    borders = bool(node.attribute("count_include_pad", 0)) and has_padding(node)
    _each(node, {0, 1}, _zero if borders else _same)


@rule("QLinearSoftmax", MICROSOFT)
def softmax(node: Context) -> None:
    """Mixes one axis, or in old operator sets every axis from one on; the others pass."""
    rank, new = len(node.shape()), node.attribute("opset", 1) >= 13
    start = node.attribute("axis", -1 if new else 1) % rank
    for axis, labels in node.axes(0).items():
        if axis == start or (axis > start and not new):
            node.pin(0, axis, "normalized together")
        else:
            node.pass_on(axis, labels)


def _each(node: Context, axes: set[int], operation: Callable[[Floats], Floats]) -> None:
    """Some axes hold the same channels as before, with what becomes of each value by itself."""
    read = _encoding(node, 1, node.node.inputs[0])
    through = _Through(operation, (read,), _encoding(node, 3, node.node.outputs[0]))
    for axis in sorted(axes & set(node.axes(0))):
        node.pass_on(axis, node.axes(0)[axis], How.EVALUATE, function=through)


@rule("QLinearConcat", MICROSOFT)
def concat(node: Context) -> None:
    """Along its axis parts lie side by side, each brought to the scale of the result."""
    slots = range(2, len(node.node.inputs), 3)
    made = _encoding(node, 0, node.node.outputs[0])
    read = [_encoding(node, slot + 1, node.node.inputs[slot]) for slot in slots]
    rank = len(node.output_shape())
    along = node.attribute("axis") % rank
    for axis in range(rank):
        if axis != along:
            broadcast_axis(node, axis, rank, How.NONE, slots=slots)
        elif any(axis in node.axes(slot) for slot in slots):
            _concatenate(node, along, slots, [_Through(_same, (each,), made) for each in read])


def _concatenate(
    node: Context, axis: int, slots: Sequence[int], through: Sequence[_Through]
) -> None:
    parts: list[IntArray] = []
    for slot, function in zip(slots, through, strict=True):
        labels = node.axes(slot).get(axis)
        if labels is None:
            raise UnclearError("it concatenates parts whose channels are not known")
        parts.append(node.unbound(len(labels)))
        node.tie(parts[-1], labels)
        node.carry(Carry(How.EVALUATE, {slot: labels}, axis, parts[-1], function=function))
    whole = np.concatenate(parts)
    node.move(axis, whole)
    concatenation = Concatenation(tuple(parts), whole)
    node.concatenates(concatenation)
    same = tuple(each.read[0].same_as(each.made) for each in through)
    node.rewrite(partial(_fit_concat, concatenation, same))


def _fit_concat(
    concatenation: Concatenation, same: Sequence[bool], editor: Editor, positions: Positions
) -> None:
    """Takes the parts in the order of the layout, with their scales."""
    order = concatenation.order(positions)
    assert order is not None
    if order == list(range(len(concatenation.parts))):
        return
    if len(order) == 1 and same[order[0]]:
        editor.take_inputs([2 + 3 * order[0]])
        editor.bypass()
        return
    editor.take_inputs([0, 1, *(2 + 3 * part + place for part in order for place in range(3))])
