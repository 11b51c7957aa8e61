"""Products with matrices of few bits, of which each block of a row has a scale of its own."""

from __future__ import annotations

import dataclasses

import numpy as np

from onnx_upscale.optimizer.load.contractions import product_work
from onnx_upscale.optimizer.load.graph import Graph, Node
from onnx_upscale.optimizer.load.layers import UNKNOWN_RANK, Layer, layer_operator
from onnx_upscale.optimizer.load.packed import PRODUCT_OF_BITS, SCALES, ZERO_POINTS
from onnx_upscale.optimizer.load.scale_blocks import BlockCoding, scale_blocks
from onnx_upscale.optimizer.load.values import Array

_GROUP_INDEX, _BIAS = 4, 5
# Besides how exactly it computes; any other may change what its numbers mean.
_SIZES = frozenset({"K", "N", "accuracy_level", "bits", "block_size"})


@layer_operator(PRODUCT_OF_BITS[1], product_work, domain=PRODUCT_OF_BITS[0])
def _product_of_bits(graph: Graph, node: Node, slot: int, shape: tuple[int, ...]) -> Layer | None:
    told = node.attributes
    size = int(told.get("block_size", 0))
    if any(told[name] for name in told.keys() - _SIZES) or not size:
        return None
    if node.input(_GROUP_INDEX):
        return None  # Kernels of onnxruntime do not agree on which scale is meant then.
    if shape != (told.get("N"), told.get("K")):
        return None
    outputs, inputs = shape
    scale = graph.value(node, SCALES)
    if scale is None or scale.shape != (outputs, -(-inputs // size)):
        return None
    zero = _zero_points(graph, node, scale)
    if zero is None:
        return None
    data = graph.shapes.get(node.input(0))
    axis = -1 if data is None else len(data) - 1
    rank = UNKNOWN_RANK if data is None else len(data)
    layer = Layer(node, shape, 0, slot, _BIAS, axis, axis, rank, 1, 0)
    slots = tuple(each for each in (SCALES, ZERO_POINTS) if node.input(each))
    return dataclasses.replace(
        layer,
        coding=BlockCoding(scale, zero, size, slots),
        scale_blocks=scale_blocks(1, inputs, size),
    )


def _zero_points(graph: Graph, node: Node, scale: Array) -> Array | None:
    """A zero point for each scale; None where one is not constant, or no number of the matrix."""
    bits = int(node.attributes.get("bits", 4))
    if not node.input(ZERO_POINTS):
        return np.broadcast_to(np.uint8(1 << bits - 1), scale.shape)
    points = graph.value(node, ZERO_POINTS)
    if points is None or points.shape != scale.shape:
        return None
    if points.dtype == np.uint8:
        return points
    real = points.astype(np.float32)
    whole = (real == np.rint(real)) & (real >= 0) & (real < 1 << bits)
    return real.astype(np.uint8) if whole.all() else None
