"""Layers of quantized models: operators that contract whole numbers with whole numbers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from onnx_upscale.optimizer.load.contractions import (
    convolution_layer,
    convolution_work,
    gemm_layer,
    matmul_layer,
    product_work,
)
from onnx_upscale.optimizer.load.encoding import encoding_of, zero_point
from onnx_upscale.optimizer.load.graph import Graph, Node
from onnx_upscale.optimizer.load.layers import Layer, layer_operator
from onnx_upscale.optimizer.load.pointwise import MICROSOFT
from onnx_upscale.optimizer.load.quantization import Quantization
from onnx_upscale.optimizer.load.values import Array

INTEGER_LAYERS = frozenset({"ConvInteger", "MatMulInteger"})
"""Operators that make sums of whole numbers, and are told zero points but no scales."""
_MOVERS = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_ZERO_SLOTS = {
    ("", "QLinearConv"): 7,
    ("", "QLinearMatMul"): 7,
    ("", "QuantizeLinear"): 2,
    (MICROSOFT, "QGemm"): 8,
    (MICROSOFT, "QLinearAdd"): 7,
    (MICROSOFT, "QLinearMul"): 7,
}
"""Where operators are told the zero point of what they make."""


@dataclass(frozen=True)
class _Slots:
    """Where an operator is told the encodings; a scale stands before its zero point.

    Attributes:
        data: The scale of what it reads.
        weight: That of the weight.
        made: That of the result.
        bias: The bias, or None for an operator that has none.
    """

    data: int
    weight: int
    made: int
    bias: int | None


@layer_operator("QLinearConv", convolution_work, (3,), operands=(0, 3))
def _convolution(graph: Graph, node: Node, slot: int, shape: tuple[int, ...]) -> Layer | None:
    return _static(graph, convolution_layer(node, shape), slot, _Slots(1, 4, 6, 8))


@layer_operator("QLinearMatMul", product_work, (3,), operands=(0, 3))
def _matmul(graph: Graph, node: Node, slot: int, shape: tuple[int, ...]) -> Layer | None:
    if len(shape) != 2:
        return None
    return _static(graph, matmul_layer(graph, node, 0, slot, shape), slot, _Slots(1, 4, 6, None))


@layer_operator("QGemm", product_work, (3,), MICROSOFT, operands=(0, 3))
def _gemm(graph: Graph, node: Node, slot: int, shape: tuple[int, ...]) -> Layer | None:
    return _static(graph, gemm_layer(node, shape), slot, _Slots(1, 4, 7, 6))


def _static(graph: Graph, layer: Layer | None, slot: int, slots: _Slots) -> Layer | None:
    """A layer all of whose encodings are constants; None where they are not."""
    if layer is None or layer.weight_output_axis is None:
        return None
    node = layer.node
    data = encoding_of(graph, node, slots.data, slots.data + 1, node.input(0))
    weight = encoding_of(graph, node, slots.weight, slots.weight + 1, node.input(slot))
    if data is None or not data.single or weight is None:
        return None
    if {weight.scale.size, weight.zero.size} - {1, layer.outputs}:
        return None
    made = None
    if node.input(slots.made):
        made = encoding_of(graph, node, slots.made, slots.made + 1, node.outputs[0])
        if made is None or not made.single:
            return None
    factor = float(node.attributes.get("alpha", 1.0))
    spread = [_spread(value, layer) for value in (weight.zero, weight.scale)]
    return dataclasses.replace(
        layer,
        data_slot=0,
        weight_slot=slot,
        bias_slot=slots.bias,
        quantization=Quantization(
            data_zero=float(data.zero.item()),
            weight_zero=spread[0],
            weight_scale=spread[1],
            slots=(slots.weight, slots.weight + 1),
            step=float(data.scale.item()) * factor * weight.scale.astype(np.float64).ravel(),
            made=made,
        ),
    )


def _spread(value: Array, layer: Layer) -> Array:
    """One value per output channel, along the axis of the weight that holds these."""
    if value.size == 1:
        return value.reshape(())
    assert layer.weight_output_axis is not None
    trailing = len(layer.weight_shape) - 1 - layer.weight_output_axis
    return value.reshape(-1, *(1,) * trailing)


@layer_operator("ConvInteger", convolution_work)
def _convolution_of_integers(
    graph: Graph, node: Node, slot: int, shape: tuple[int, ...]
) -> Layer | None:
    return _integers(graph, convolution_layer(node, shape))


@layer_operator("MatMulInteger", product_work)
def _product_of_integers(
    graph: Graph, node: Node, slot: int, shape: tuple[int, ...]
) -> Layer | None:
    return _integers(graph, matmul_layer(graph, node, 0, 1, shape)) if len(shape) == 2 else None


def _integers(graph: Graph, layer: Layer | None) -> Layer | None:
    """A layer that makes sums; None where the zero point of its weight is not constant."""
    if layer is None or layer.weight_output_axis is None:
        return None
    node, weight = layer.node, graph.value(layer.node, 1)
    assert weight is not None
    zero = zero_point(graph, node, 3) if node.input(3) else np.zeros((), weight.dtype)
    if zero is None or zero.size not in (1, layer.outputs):
        return None
    return dataclasses.replace(
        layer,
        bias_slot=None,
        quantization=Quantization(
            data_zero=_zero_of_integers(graph, node),
            weight_zero=_spread(zero, layer),
            weight_scale=np.ones(()),
            slots=(3,),
            step=np.ones(()),
            made=None,
        ),
    )


def _zero_of_integers(graph: Graph, node: Node) -> float:
    """What a channel that adds nothing is known to hold; NaN where nobody knows."""
    if not node.input(2):
        return 0.0
    zero = graph.value(node, 2)
    if zero is not None:
        return float(zero.item()) if zero.size == 1 else float("nan")
    maker, tensor = graph.producers.get(node.input(2)), node.input(0)
    while tensor in graph.producers and graph.producers[tensor].op in _MOVERS:
        tensor = graph.producers[tensor].input(0)
    if maker is None or maker.op != "DynamicQuantizeLinear" or tensor != maker.outputs[0]:
        return float("nan")
    return 0.0 if is_read_from_zero_point(graph, maker) else float("nan")


def is_read_from_zero_point(graph: Graph, dynamic: Node) -> bool:
    """Whether all who read what a DynamicQuantizeLinear makes count from its zero point.

    Then what is known of real numbers is all that matters of it: a channel of zeros adds nothing,
    whatever the zero point is in a run.
    """
    pending = [dynamic.outputs[0]]
    while pending:
        tensor = pending.pop()
        if tensor in graph.outputs or tensor in graph.captured:
            return False
        for index, slot in graph.readers.get(tensor, ()):
            node = graph.nodes[index]
            if node.domain or slot:
                return False
            if node.op in _MOVERS:
                pending.append(node.outputs[0])
            elif node.op not in INTEGER_LAYERS or node.input(2) != dynamic.outputs[2]:
                return False
    return True


def zero_of(graph: Graph, tensor: str) -> float:
    """The number that stands for zero in a tensor; NaN where nobody knows.

    Args:
        graph: The graph.
        tensor: The name of the tensor.
    """
    if graph.types.get(tensor) not in (TensorProto.INT8, TensorProto.UINT8):
        return 0.0
    maker = graph.producers.get(tensor)
    while maker is not None and maker.operator[0] == "" and maker.op in _MOVERS:
        maker = graph.producers.get(maker.input(0))
    slot = None if maker is None else _ZERO_SLOTS.get(maker.operator)
    if maker is None or slot is None or not maker.input(slot):
        return float("nan")
    point = zero_point(graph, maker, slot)
    return float(point.item()) if point is not None and point.size == 1 else float("nan")


def scale_behind(graph: Graph, node: Node) -> tuple[Node, int] | None:
    """Where a Mul behind the Cast of such a layer is told a constant scale, if it undoes one.

    Args:
        graph: The graph.
        node: The Mul.

    Returns:
        The node that reads the constant, and the slot; slot -1 where there is none. None for a Mul
        by anything else than the scale of a DynamicQuantizeLinear, or that times a constant.
    """
    for name in node.inputs:
        maker = graph.producers.get(name)
        if maker is not None and _is_scale(maker, name):
            return node, -1
        if maker is None or maker.op != "Mul" or maker.domain:
            continue
        for slot, own in enumerate(maker.inputs):
            scale = maker.input(1 - slot)
            other = graph.producers.get(scale)
            if own in graph.constants and other is not None and _is_scale(other, scale):
                return maker, slot
    return None


def _is_scale(maker: Node, name: str) -> bool:
    dynamic = maker.op == "DynamicQuantizeLinear" and not maker.domain
    return dynamic and maker.outputs[1] == name
