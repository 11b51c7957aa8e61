"""The layers of ONNX that compute with real numbers: convolutions and products of matrices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from onnx_upscale.optimizer.load.graph import Graph, Node
from onnx_upscale.optimizer.load.layers import UNKNOWN_RANK, Layer, Sizes, layer_operator


def convolution_work(attributes: Mapping[str, Any], data: Sizes, weight: Sizes, made: Sizes) -> int:
    """Every result is a sum over a window."""
    return math.prod(made) * math.prod(weight[1:])


def spreading_work(attributes: Mapping[str, Any], data: Sizes, weight: Sizes, made: Sizes) -> int:
    """Every input is spread over a window."""
    return math.prod(data) * math.prod(weight[1:])


def product_work(attributes: Mapping[str, Any], data: Sizes, weight: Sizes, made: Sizes) -> int:
    """Every result is a sum over the contracted axis."""
    return math.prod(made) * (data[0] if attributes.get("transA") else data[-1])


@layer_operator("Conv", convolution_work)
def _conv(graph: Graph, node: Node, slot: int, shape: tuple[int, ...]) -> Layer | None:
    return convolution_layer(node, shape)


@layer_operator("ConvTranspose", spreading_work)
def _conv_transpose(graph: Graph, node: Node, slot: int, shape: tuple[int, ...]) -> Layer | None:
    return convolution_layer(node, shape, transposed=True)


def convolution_layer(node: Node, shape: tuple[int, ...], transposed: bool = False) -> Layer | None:
    """How a convolution uses its weight.

    Args:
        node: The node.
        shape: The shape of its weight.
        transposed: Whether it is one the other way round.

    Returns:
        The layer, or None where the weight does not fit the attributes.
    """
    groups = int(node.attributes.get("group", 1))
    if len(shape) < 3 or groups < 1 or shape[0] % groups:
        return None
    into, out = (0, 1) if transposed else (1, 0)
    return Layer(
        node, shape, 0, 1, 2, 1, 1, len(shape), into, out, groups, False, transposed
    )  # fmt: skip


@layer_operator("Gemm", product_work)
def _gemm(graph: Graph, node: Node, slot: int, shape: tuple[int, ...]) -> Layer | None:
    return gemm_layer(node, shape)


def gemm_layer(node: Node, shape: tuple[int, ...]) -> Layer | None:
    """How a Gemm uses its weight of some shape; None where that is no matrix."""
    if len(shape) != 2:
        return None
    into, out = (1, 0) if node.attributes.get("transB", 0) else (0, 1)
    data_axis = 0 if node.attributes.get("transA", 0) else 1
    return Layer(node, shape, 0, 1, 2, data_axis, 1, 2, into, out)


@layer_operator("MatMul", product_work, weight_slots=(0, 1))
def _matmul(graph: Graph, node: Node, slot: int, shape: tuple[int, ...]) -> Layer | None:
    return matmul_layer(graph, node, 1 - slot, slot, shape)


def matmul_layer(
    graph: Graph, node: Node, data_slot: int, slot: int, shape: tuple[int, ...]
) -> Layer | None:
    """How a product of matrices uses its weight.

    Args:
        graph: The graph.
        node: The node.
        data_slot: Input slot of the activations.
        slot: Input slot of the weight; 0 if it stands on the left.
        shape: Shape of the weight.
    """
    data = graph.shapes.get(node.input(data_slot))
    result = graph.shapes.get(node.outputs[0])
    if slot and len(shape) == 2 and (data is None or result is None):
        # A matrix on the right contracts the last axis and makes the last one, whatever the rank.
        return Layer(node, shape, data_slot, slot, None, -1, -1, UNKNOWN_RANK, 0, 1)
    if data is None or result is None or not shape or not data:
        return None
    into = max(len(shape) - 2, 0) if slot else len(shape) - 1
    data_axis = len(data) - 1 if slot else max(len(data) - 2, 0)
    if len(shape) == 1:
        return Layer(node, shape, data_slot, slot, None, data_axis, None, len(result), 0, None)
    out = len(shape) - 1 if slot else len(shape) - 2
    # A vector of data loses its axis in the result: the other one is then the last.
    output_axis = len(result) - 1 if slot or len(data) == 1 else len(result) - 2
    if output_axis < 0:
        return None
    return Layer(
        node, shape, data_slot, slot, None, data_axis, output_axis, len(result), into, out
    )  # fmt: skip
