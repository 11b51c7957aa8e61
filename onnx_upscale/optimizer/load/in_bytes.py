"""Which layers onnxruntime computes with 8-bit numbers, though the model says it in real ones.

A layer that reads what DequantizeLinear makes, with a QuantizeLinear behind, is one node there.
"""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto

from onnx_upscale.optimizer.load.encoding import encoding_of
from onnx_upscale.optimizer.load.graph import Graph, Node
from onnx_upscale.optimizer.load.pointwise import MICROSOFT

_BYTES = frozenset({TensorProto.INT8, TensorProto.UINT8})
# Those that onnxruntime has kernels for; others it computes with what was decoded.
_OPERATORS = frozenset({"Conv", "Gemm", "MatMul"})
_BOUNDS = frozenset({"Relu", "Clip"})


def is_of_bytes(graph: Graph, tensor: str) -> bool:
    """Whether a tensor is what bytes with one scale stand for, so that copies are of bytes."""
    maker = graph.producers.get(tensor)
    if maker is None or not _decodes(graph, maker):
        return False
    return graph.shapes.get(maker.input(1)) in ((), (1,))


def computes_in_bytes(graph: Graph, node: Node, operands: tuple[int, int], product: bool) -> bool:
    """Whether a layer runs on 8-bit numbers.

    Args:
        graph: The graph.
        node: The node of the layer.
        operands: The input slots of its data and of its weight.
        product: Whether it is a matrix product: these may make real numbers.
    """
    if node.domain or node.op not in _OPERATORS:
        return False
    makers = [graph.producers.get(node.input(slot)) for slot in operands]
    if not all(maker is not None and _decodes(graph, maker) for maker in makers):
        return False
    return product or _is_rounded(graph, node.outputs[0])


def _is_rounded(graph: Graph, tensor: str) -> bool:
    """Whether a tensor becomes bytes at once, within bounds that rounding keeps to anyway."""
    low, high, reader = -math.inf, math.inf, graph.only_reader(tensor)
    while reader is not None and reader.op in _BOUNDS:
        least, most = _bounds(graph, reader)
        low, high = max(low, least), min(high, most)
        reader = graph.only_reader(reader.outputs[0])
    if reader is None or not _is(reader, "QuantizeLinear"):
        return False
    encoding = encoding_of(graph, reader, 1, 2, reader.outputs[0])
    if encoding is None or not encoding.single:
        return False
    kind = np.iinfo(encoding.zero.dtype)
    first, last = encoding.decode(np.array([kind.min, kind.max]))
    return bool(low <= first and last <= high)


def _bounds(graph: Graph, node: Node) -> tuple[float, float]:
    """The least and the most that a Relu or a Clip lets through; nothing where nobody knows."""
    if node.op == "Relu":
        return 0.0, math.inf
    found = [-math.inf, math.inf]
    for slot, name in enumerate(("min", "max")):
        if node.input(slot + 1):
            value = graph.value(node, slot + 1)
            found[slot] = math.nan if value is None or value.size != 1 else float(value.item())
        elif name in node.attributes:
            found[slot] = float(node.attributes[name])
    return (math.inf, -math.inf) if any(map(math.isnan, found)) else (found[0], found[1])


def _decodes(graph: Graph, node: Node) -> bool:
    return _is(node, "DequantizeLinear") and graph.types.get(node.input(0)) in _BYTES


def _is(node: Node, operator: str) -> bool:
    return node.op == operator and node.domain in ("", MICROSOFT)
