"""Which nodes split channels into the heads of an attention, as is seen from what comes behind."""

from __future__ import annotations

from onnx_upscale.optimizer.load.attention import ATTENTIONS, MAKES_OPERANDS
from onnx_upscale.optimizer.load.graph import Graph, Node
from onnx_upscale.optimizer.load.layers import layer_of
from onnx_upscale.optimizer.load.pointwise import MICROSOFT

_PRODUCTS = (ATTENTIONS - {MAKES_OPERANDS}) | {
    ("", "MatMul"),
    ("", "Einsum"),
    ("", "QLinearMatMul"),
    (MICROSOFT, "FusedMatMul"),
}


def nodes_in_heads(graph: Graph) -> frozenset[int]:
    """Finds the nodes between layers and a product of activations.

    A Reshape among them splits channels into axes that the product takes apart: heads, which it
    does one by one, and the channels of each, which it contracts. Elsewhere (a shuffle, groups of a
    normalization) what is split is merged again, and only its largest factor loses channels.

    Args:
        graph: The graph.

    Returns:
        Their indices.
    """
    made_by: dict[str, Node] = {name: node for node in graph.nodes for name in node.outputs}
    found: set[int] = set()
    front = [node for node in graph.nodes if (node.domain, node.op) in _PRODUCTS]
    front = [node for node in front if layer_of(graph, node) is None]
    while front:
        for name in front.pop().inputs:
            node = made_by.get(name)
            if node is None or node.index in found or name in graph.constants:
                continue
            if layer_of(graph, node) is None:
                found.add(node.index)
                front.append(node)
    return frozenset(found)
