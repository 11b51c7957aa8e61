"""Operators that onnxruntime's own tools write in the place of several standard ones."""

from __future__ import annotations

from onnx_upscale.optimizer.analyze.context import Context, UnclearError
from onnx_upscale.optimizer.analyze.facts import How
from onnx_upscale.optimizer.analyze.rules.elementwise import broadcast_axis, elementwise
from onnx_upscale.optimizer.analyze.rules.layers import convolution, gemm, matmul
from onnx_upscale.optimizer.analyze.rules.table import rule
from onnx_upscale.optimizer.load.fused import batches_turn
from onnx_upscale.optimizer.load.layers import Layer, layer_of
from onnx_upscale.optimizer.load.pointwise import MICROSOFT


@rule("BiasAdd BiasGelu FastGelu Gelu QuickGelu", MICROSOFT)
def biased(node: Context) -> None:
    """Adds up what it reads, and activates it."""
    elementwise(node)


@rule("FusedConv", MICROSOFT)
def fused_convolution(node: Context) -> None:
    """A convolution to which a tensor may be added, and an activation."""
    convolution(node)
    layer = layer_of(node.graph, node.node)
    if layer is not None and layer.sum_slot is not None:
        _add(node, layer, layer.sum_slot)


def _add(node: Context, layer: Layer, slot: int) -> None:
    """Couples what is added with what the layer makes."""
    made, labels = node.outputs.get(0, {}).get(1), node.axes(slot).get(1)
    if node.shape(slot)[1] != layer.outputs:
        raise UnclearError("what is added to it has other channels")
    node.pin_others(slot, {1}, "added to a convolution")
    if made is None:
        node.pin_others(slot, set(), "added to a tensor whose channels are not known")
    elif labels is not None:
        node.tie(made, labels)
    elif node.constant(slot) is not None:
        node.param(slot, 1, made)
    else:
        node.pin_part(slot, 1, made, "added to a tensor that cannot change")


@rule("FusedGemm", MICROSOFT)
def fused_gemm(node: Context) -> None:
    """A Gemm, and an activation."""
    gemm(node)


@rule("FusedMatMul", MICROSOFT)
def fused_matmul(node: Context) -> None:
    """A MatMul whose operands may be transposed."""
    if batches_turn(node.node):
        raise UnclearError("it transposes batches")
    matmul(node)


@rule("BiasSplitGelu", MICROSOFT)
def bias_split_gelu(node: Context) -> None:
    """Multiplies one half of the last axis with what becomes of the other half."""
    last = len(node.shape()) - 1
    if node.constant(1) is None or last < 1:
        raise UnclearError("its bias is not constant")
    for axis, labels in node.axes(0).items():
        if axis != last:
            node.pass_on(axis, labels)
            continue
        if len(labels) % 2 or node.shape(1) != (len(labels),):
            raise UnclearError("its halves are not equal")
        node.tie(labels, node.make(axis, len(labels) // 2), outer=2)
        node.param(1, 0, labels)


@rule("SkipLayerNormalization SkipSimplifiedLayerNormalization", MICROSOFT)
def skip_layer_normalization(node: Context) -> None:
    """Adds up two tensors and a bias, and normalizes the last axis; the sum may be an output."""
    if node.used(1) or node.used(2):
        raise UnclearError("its mean or its deviation is read")
    rank = len(node.shape())
    for axis in range(rank):
        broadcast_axis(node, axis, rank, how=How.NONE)
    for axis, labels in list(node.outputs.get(0, {}).items()):
        if node.used(3):
            node.pass_on(axis, labels, output=3)
    for slot in (0, 1):
        place = len(node.shape(slot)) - 1
        if place in node.axes(slot):
            node.need(slot, place, "normalized together")


@rule("EmbedLayerNormalization", MICROSOFT)
def embed_layer_normalization(node: Context) -> None:
    """Looks rows of several tables up, adds and normalizes them: all channels are needed."""
    tables = {slot: 1 for slot in (2, 3, 4) if node.has(slot)} | {5: 0, 6: 0}
    if node.inputs or any(node.constant(slot) is None for slot in tables):
        raise UnclearError("its tables are not constant, or its indices have channels")
    width = node.shape(2)[1]
    if not isinstance(width, int) or any(
        node.shape(s)[axis] != width for s, axis in tables.items()
    ):
        raise UnclearError("its tables do not fit each other")
    made = node.make(2, width)
    for slot, axis in tables.items():
        node.param(slot, axis, made)
    node.embeds(made)
    node.need_made(2, 1, made, "normalized together")
    if node.used(2):
        node.pass_on(2, made, output=2)
