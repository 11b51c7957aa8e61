"""Layers of quantized models: operators that contract whole numbers with whole numbers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from onnx_upscale.optimizer.load.encoding import encoding_of
from onnx_upscale.optimizer.load.graph import Graph, Node
from onnx_upscale.optimizer.load.layers import (
    Layer,
    convolution_layer,
    convolution_work,
    gemm_layer,
    layer_operator,
    matmul_layer,
    product_work,
)
from onnx_upscale.optimizer.load.quantization import Quantization
from onnx_upscale.optimizer.load.values import Array

MICROSOFT = "com.microsoft"


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
    return _static(graph, convolution_layer(node, shape, False), slot, _Slots(1, 4, 6, 8))


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
