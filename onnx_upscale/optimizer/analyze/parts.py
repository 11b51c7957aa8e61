"""Layers that can be computed in two parts: each reads some of the channels, and sums are added."""

from __future__ import annotations

from collections.abc import Mapping

from onnx_upscale.grain import Grain
from onnx_upscale.optimizer.load.graph import Graph
from onnx_upscale.optimizer.load.layers import Layer

# What onnxruntime makes a part of a convolution right before it, and would not of a sum of two.
_FUSED = frozenset({"Add", "BatchNormalization", "Div", "Mul", "Sub", "Sum"})


def find_parted(graph: Graph, layers: Mapping[int, Layer]) -> frozenset[int]:
    """Finds the layers for which a sum of two convolutions can stand.

    Those without a window are none: what adding takes is more than the parts of a block are worth.

    Args:
        graph: The graph.
        layers: Its layers, by the index of their node.

    Returns:
        The indices of their nodes.
    """
    return frozenset(index for index, layer in layers.items() if _has_parts(graph, layer))


def _has_parts(graph: Graph, layer: Layer) -> bool:
    node = layer.node
    if (node.op, node.domain) != ("Conv", "") or layer.groups > 1 or layer.window == 1:
        return False
    weight = node.inputs[layer.weight_slot]
    if layer.grain is not Grain.BLOCK or not graph.constants.is_initializer(weight):
        return False
    reader = graph.only_reader(node.outputs[0])
    return reader is None or reader.op not in _FUSED
