"""The layers that onnxruntime's own optimizations write, in its domain `com.microsoft`.

They are what the plain operators are, and more: a tensor is added to the result (FusedConv), an
activation follows (FusedConv, FusedGemm), an operand is transposed and the product scaled
(FusedMatMul), or what comes out are queries, keys and values that it attends with (Attention).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from onnx_upscale.optimizer.load.contractions import (
    convolution_layer,
    convolution_work,
    gemm_layer,
    product_work,
)
from onnx_upscale.optimizer.load.graph import Graph, Node
from onnx_upscale.optimizer.load.layers import Layer, Sizes, layer_operator
from onnx_upscale.optimizer.load.pointwise import MICROSOFT, Activation, activation

_SUM_SLOT = 3

_RUNS_AS = {
    "BiasGelu": "Gelu",
    "FastGelu": "Gelu",
    "FusedConv": "Conv",
    "FusedGemm": "Gemm",
    "FusedMatMul": "MatMul",
    "MatMulNBits": "MatMul",
    "SkipLayerNormalization": "LayerNormalization",
}


def runs_as(node: Node) -> str:
    """The standard operator whose kernels, and layouts, a node has; its own if there is none."""
    return _RUNS_AS.get(node.op, node.op) if node.domain == MICROSOFT else node.op


@layer_operator("FusedConv", convolution_work, domain=MICROSOFT)
def _fused_conv(graph: Graph, node: Node, slot: int, shape: tuple[int, ...]) -> Layer | None:
    layer = convolution_layer(node, shape)
    added = _SUM_SLOT if node.input(_SUM_SLOT) else None
    name = _activation_name(node)
    follows = _following(name, tuple(node.attributes.get("activation_params", ())))
    if layer is None or (name and follows is None):
        return None
    return dataclasses.replace(layer, sum_slot=added, activation=follows)


@layer_operator("FusedGemm", product_work, domain=MICROSOFT)
def _fused_gemm(graph: Graph, node: Node, slot: int, shape: tuple[int, ...]) -> Layer | None:
    layer, name = gemm_layer(node, shape), _activation_name(node)
    given = (node.attributes.get(f"activation_{kind}") for kind in ("alpha", "beta", "gamma"))
    follows = _following(name, tuple(value for value in given if value is not None))
    if layer is None or (name and follows is None):
        return None
    return dataclasses.replace(layer, activation=follows)


def _activation_name(node: Node) -> str:
    return bytes(node.attributes.get("activation", b"")).decode("utf-8", "replace")


def _following(name: str, params: tuple[float, ...]) -> Activation | None:
    return activation(name, params) if name else None


def _fused_product_work(
    attributes: Mapping[str, Any], data: Sizes, weight: Sizes, made: Sizes
) -> int:
    """Every result is a sum over the contracted axis."""
    return math.prod(made) * data[-2 if attributes.get("transA") and len(data) > 1 else -1]


@layer_operator("FusedMatMul", _fused_product_work, weight_slots=(0, 1), domain=MICROSOFT)
def _fused_matmul(graph: Graph, node: Node, slot: int, shape: tuple[int, ...]) -> Layer | None:
    data, result = graph.shapes.get(node.input(1 - slot)), graph.shapes.get(node.outputs[0])
    if data is None or result is None or min(len(data), len(shape)) < 2 or batches_turn(node):
        return None
    ranks = (len(data), len(shape)) if slot else (len(shape), len(data))
    first, second = turned(node)
    inner = ranks[0] - 1 - first, ranks[1] - 2 + second
    into, rank = inner[slot], len(result)
    out = 2 * len(shape) - 3 - into  # The other one of the last two.
    output_axis = rank - 1 if slot else rank - 2
    return Layer(node, shape, 1 - slot, slot, None, inner[1 - slot], output_axis, rank, into, out)


def _packed_work(attributes: Mapping[str, Any], data: Sizes, weight: Sizes, made: Sizes) -> int:
    """That of queries, keys and values; `attention` counts what follows."""
    return math.prod(data) * weight[-1]


@layer_operator("Attention", _packed_work, domain=MICROSOFT)
def _packed_attention(graph: Graph, node: Node, slot: int, shape: tuple[int, ...]) -> Layer | None:
    return Layer(node, shape, 0, slot, 2, 2, None, 3, 0, 1) if len(shape) == 2 else None


def turned(node: Node) -> tuple[bool, bool]:
    """Which operands of a product of matrices are transposed, each in its last two axes."""
    return bool(node.attributes.get("transA", 0)), bool(node.attributes.get("transB", 0))


def batches_turn(node: Node) -> bool:
    """Whether a FusedMatMul moves an axis of batches as well."""
    return any(node.attributes.get(name, 0) for name in ("transBatchA", "transBatchB"))
