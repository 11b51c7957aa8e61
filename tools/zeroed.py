"""Zeros in the weights of quantized models, where masks say so; no code of the optimizer's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper


@dataclass(frozen=True)
class _Origin:
    """Where a constant is read, and the name of its zero point if it has one."""

    node: onnx.NodeProto
    slot: int
    zero: str


@dataclass(frozen=True)
class _Slots:
    """Where a layer has its weight, the weight's zero point, and its bias."""

    weight: int
    zero: int | None
    bias: int | None
    product: bool


_LAYERS = {
    "Conv": _Slots(1, None, 2, False),
    "ConvInteger": _Slots(1, 3, None, False),
    "Gemm": _Slots(1, None, 2, True),
    "MatMul": _Slots(1, None, None, True),
    "MatMulInteger": _Slots(1, 3, None, True),
    "QGemm": _Slots(3, 5, 6, True),
    "QLinearConv": _Slots(3, 5, 8, False),
    "QLinearMatMul": _Slots(3, 5, None, True),
}


def zeroed(
    model: onnx.ModelProto, pruned: Mapping[str, Sequence[int]], side: str
) -> onnx.ModelProto:
    """The model with zeros in its weights, and for the output side in all that is added to them.

    Args:
        model: The model.
        pruned: Channels by node.
        side: `input` or `output`.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    zeros = _Zeros(made.graph)
    for node in list(made.graph.node):
        if node.name in pruned:
            zeros.layer(node, list(pruned[node.name]), side)
    return made


class _Zeros:
    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._makers = {name: node for node in graph.node for name in node.output}

    def layer(self, node: onnx.NodeProto, channels: list[int], side: str) -> None:
        slots = _LAYERS[node.op_type]
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        turned = slots.product and not attributes.get("transB", 0)
        axis = int((side == "output") == turned)
        zero = "" if slots.zero is None else node.input[slots.zero]
        self._write(node, slots.weight, axis, channels, zero)
        if side == "input":
            return
        if slots.bias is not None and any(node.input[slots.bias : slots.bias + 1]):
            self._write(node, slots.bias, 0, channels)
        self._behind(node.output[0], channels)

    def _behind(self, tensor: str, channels: list[int]) -> None:
        """Zeroes what is added straight behind a layer."""
        while True:
            readers = [each for each in self._graph.node if tensor in each.input]
            if len(readers) != 1:
                return
            (node,), scaled = readers, self._makers[tensor].op_type == "Cast"
            if node.op_type not in ("Add", "Cast", "Mul", "QLinearAdd"):
                return
            if node.op_type != "Cast" and not scaled:
                quantized = node.op_type == "QLinearAdd"
                other = next(at for at in (0, 3 if quantized else 1) if node.input[at] != tensor)
                if self._origin(node, other) is None:
                    return
                if node.op_type != "Mul":
                    self._write(
                        node, other, 0, channels, node.input[other + 2] if quantized else ""
                    )
            tensor = node.output[0]

    def _origin(self, node: onnx.NodeProto, slot: int) -> _Origin | None:
        """Where the constant is read that an input is made of, and its zero point."""
        zero = ""
        while node.input[slot] not in self._stored:
            maker = self._makers.get(node.input[slot])
            if maker is None or maker.op_type not in ("DequantizeLinear", "Reshape"):
                return None
            if maker.op_type == "DequantizeLinear" and len(maker.input) > 2:
                zero = maker.input[2]
            node, slot = maker, 0
        return _Origin(node, slot, zero)

    def _write(
        self, node: onnx.NodeProto, slot: int, axis: int, channels: list[int], zero: str = ""
    ) -> None:
        origin = self._origin(node, slot)
        assert origin is not None
        name = origin.node.input[origin.slot]
        value = numpy_helper.to_array(self._stored[name]).copy()
        zero = zero or origin.zero
        points = numpy_helper.to_array(self._stored[zero]) if zero else np.zeros((), value.dtype)
        assert np.unique(points).size == 1
        np.moveaxis(value, axis, 0)[channels] = points.ravel()[0]
        # Others may read it as well.
        own = f"{name}.{len(self._stored)}"
        self._graph.initializer.append(numpy_helper.from_array(value, own))
        self._stored[own] = self._graph.initializer[-1]
        origin.node.input[origin.slot] = own
