"""Poolings: averages behind pointwise convolutions, which may as well come before them.

Such a convolution does the same at every place, and the weights of an average add up to one, so
that it does not matter which is first; but behind the average there are fewer places.
"""

from __future__ import annotations

from collections.abc import Mapping

from onnx_upscale.optimizer.load.graph import Graph, Node
from onnx_upscale.optimizer.load.layers import Layer

_NOT_PADDED = (b"NOTSET", b"VALID")


def find_poolings(graph: Graph, layers: Mapping[int, Layer]) -> Mapping[int, Node]:
    """Finds the averages that can change places with a layer.

    Args:
        graph: The graph.
        layers: Its layers, by the index of their node.

    Returns:
        By the index of each pointwise convolution, the AveragePool that alone reads what it makes.
    """
    found = {}
    for index, layer in layers.items():
        reader = graph.only_reader(layer.node.outputs[0])
        if reader is not None and _is_pointwise(layer) and _is_average(reader):
            found[index] = reader
    return found


def _is_pointwise(layer: Layer) -> bool:
    node = layer.node
    steps = node.attributes.get("strides", ())
    return (
        (node.op, node.domain) == ("Conv", "")
        and layer.groups == layer.window == 1
        and all(step == 1 for step in steps)
        and _is_unpadded(node)
    )


def _is_average(node: Node) -> bool:
    # With a part of a window beyond the border, what it counts for is a matter of versions.
    whole = not node.attributes.get("ceil_mode", 0)
    return (node.op, node.domain) == ("AveragePool", "") and whole and _is_unpadded(node)


def _is_unpadded(node: Node) -> bool:
    unpadded = node.attributes.get("auto_pad", _NOT_PADDED[0]) in _NOT_PADDED
    return unpadded and not any(node.attributes.get("pads", ()))
