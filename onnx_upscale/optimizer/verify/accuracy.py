"""Models whose products are computed as well as they can be.

1. MatMulNBits may be told to round its activations to whole numbers of 8 bits first.
2. Where a processor has no instruction for it (x86 without VNNI), onnxruntime multiplies signed
   weights of 8 bits with pairs of unsigned numbers, and cuts off sums that are too large. Which
   channels make a pair depends on which are left. Unsigned weights are multiplied without that,
   and stand for the same if their zero point is raised as they are.

Whether two models compute the same shows only without either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from onnx_upscale.optimizer.verify.wiring import operator_of

_MICROSOFT = "com.microsoft"
_PRODUCT = (_MICROSOFT, "MatMulNBits")
_ALLOWS = "accuracy_level"
_WEIGHTS = {
    ("", "ConvInteger"): (1, 3),
    ("", "MatMulInteger"): (1, 3),
    ("", "QLinearConv"): (3, 5),
    ("", "QLinearMatMul"): (3, 5),
    (_MICROSOFT, "DynamicQuantizeMatMul"): (1, 3),
    (_MICROSOFT, "QGemm"): (3, 5),
}
"""Where operators have a weight of whole numbers, and its zero point."""
_DATA_ZERO = {("", "QLinearConv"): 2, ("", "QLinearMatMul"): 2, (_MICROSOFT, "QGemm"): 2}
"""Where they have the zero point of what they read, if that must be unsigned as well."""
_SIGN = 128


def at_full_accuracy(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, with nothing in it that may be computed less exactly.

    Args:
        model: The model, which is not changed.

    Returns:
        A new model, or the same where all in it is exact.
    """
    types = {
        each.name: each.data_type
        for each in model.graph.initializer
        if each.data_location != TensorProto.EXTERNAL
    }
    told = any(_is_told(node) for node in model.graph.node)
    if not told and not any(_is_signed(node, types) for node in model.graph.node):
        return model
    exact = onnx.ModelProto()
    exact.CopyFrom(model)
    for node in exact.graph.node:
        if _is_told(node):
            kept = [each for each in node.attribute if each.name != _ALLOWS]
            del node.attribute[:]
            node.attribute.extend(kept)
    _raise(exact.graph, [node for node in exact.graph.node if _is_signed(node, types)])
    return exact


def _is_told(node: onnx.NodeProto) -> bool:
    return operator_of(node) == _PRODUCT and any(a.name == _ALLOWS for a in node.attribute)


def _is_signed(node: onnx.NodeProto, types: Mapping[str, int]) -> bool:
    """Whether its weight is a signed constant, which an unsigned one can stand for.

    Its zero point is a constant as well, or left out, and what it reads is unsigned.
    """
    operator = operator_of(node)
    if operator not in _WEIGHTS:
        return False

    def at(slot: int) -> str:
        return node.input[slot] if slot < len(node.input) else ""

    weight, zero = map(at, _WEIGHTS[operator])
    data = _DATA_ZERO.get(operator)
    return (
        types.get(weight) == TensorProto.INT8
        and (not zero or types.get(zero) == TensorProto.INT8)
        and (data is None or types.get(at(data)) == TensorProto.UINT8)
    )


def _raise(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Makes the weights of some nodes unsigned, and their zero points."""
    constants = {each.name: each for each in graph.initializer}
    taken = set(_names(graph))
    raised: dict[str, str] = {}

    def unsigned(name: str) -> str:
        if name not in raised:
            signed = numpy_helper.to_array(constants[name]) if name else np.int8(0)
            new = f"{name or 'zero'}_unsigned"
            while new in taken:
                new += "_"
            taken.add(new)
            value = (np.asarray(signed, np.int16) + _SIGN).astype(np.uint8)
            graph.initializer.append(numpy_helper.from_array(value, new))
            raised[name] = new
        return raised[name]

    for node in nodes:
        weight, zero = _WEIGHTS[operator_of(node)]
        node.input.extend([""] * (zero + 1 - len(node.input)))
        for slot in (weight, zero):
            node.input[slot] = unsigned(node.input[slot])


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from (*node.input, *node.output)
    yield from (value.name for value in (*graph.input, *graph.output))
    yield from (constant.name for constant in graph.initializer)
