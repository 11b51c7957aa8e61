"""Layers: the writers and readers of channels."""

from __future__ import annotations

from onnx_upscale.optimizer.analyze.context import Context, UnclearError
from onnx_upscale.optimizer.analyze.facts import Function, How
from onnx_upscale.optimizer.analyze.rules.elementwise import broadcast_axis
from onnx_upscale.optimizer.analyze.rules.table import rule
from onnx_upscale.optimizer.load.fused import turned
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.load.layers import Layer, layer_of
from onnx_upscale.optimizer.load.sides import Side


def has_padding(node: Context) -> bool:
    """Whether positions outside the input take part."""
    if node.attribute("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return True
    return any(node.attribute("pads", ()))


def _padded(node: Context, layer: Layer) -> bool:
    """Whether some results of a convolution lack a part of its kernel, or all lack a bias."""
    return layer.transposed or layer.bias_slot is None or has_padding(node)


def need_constant_bias(node: Context, layer: Layer) -> None:
    """Raises UnclearError for a layer whose bias only a run shows."""
    slot = layer.bias_slot
    if slot is not None and node.has(slot) and node.constant(slot) is None:
        raise UnclearError("its bias is not constant")


@rule("Conv ConvInteger ConvTranspose QLinearConv")
def convolution(node: Context) -> None:
    """A reader and a writer; of groups as many channels leave each, or all of one."""
    layer = layer_of(node.graph, node.node)
    if layer is None or node.inputs.keys() - {0, layer.sum_slot}:
        raise UnclearError("its weight is not constant")
    need_constant_bias(node, layer)
    if node.shape()[1] != layer.inputs:
        raise UnclearError("its weight does not fit its input")
    node.pin_others(0, {1}, "convolved over")
    if layer.groups > 1:
        _grouped(node, layer)
    else:
        contract(node, layer, padded=_padded(node, layer))


def _grouped(node: Context, layer: Layer) -> None:
    labels = node.axes(0).get(1)
    if labels is None:
        return
    groups = node.unbound(layer.groups)
    made = node.make(1, layer.outputs)
    index, apart = node.node.index, False
    for axis, side in ((labels, Side.INPUT), (made, Side.OUTPUT)):
        each = len(axis) // layer.groups
        if each == 1 or layer.transposed or (index, side) in node.together.whole:
            node.tie(axis, groups, inner=each)
            continue
        apart = True
        if (index, side) in node.together.alike:
            node.tie(axis, node.unbound(each), outer=layer.groups)
            node.keep_groups(groups)
        else:
            node.grid(axis, (groups, node.unbound(each)), splits=False)
    if apart:
        node.contracts_in_groups(layer, labels, made)
    node.param(layer.weight_slot, 0, labels if layer.transposed else made)
    _per_output(node, layer, made)
    node.counts_groups(groups)
    node.contracts(layer, labels, made, _padded(node, layer))


def contract(node: Context, layer: Layer, padded: bool) -> IntArray | None:
    """An ungrouped layer writes its output channels and reads its input channels.

    Args:
        node: The node; what becomes of its other axes is for its rule to say.
        layer: How it uses its weight.
        padded: Whether what an input channel of a known value adds is not the same everywhere.

    Returns:
        Its output channels, or None where it has none.
    """
    labels = node.axes(layer.data_slot).get(layer.data_axis)
    made: IntArray | None = None
    if layer.weight_output_axis is not None:
        axis, count = layer.output_axis, layer.outputs
        made = node.unbound(count) if axis is None else node.make(axis, count)
        node.param(layer.weight_slot, layer.weight_output_axis, made)
        _per_output(node, layer, made)
    _in_scale_blocks(node, layer, labels, made)
    node.contracts(layer, labels, made, padded)
    return made


def _in_scale_blocks(
    node: Context, layer: Layer, read: IntArray | None, made: IntArray | None
) -> None:
    """Couples the channels that share scales in the weight, so that they leave together."""
    blocks = layer.scale_blocks
    if blocks is None:
        return
    sides = {layer.weight_input_axis: read, layer.weight_output_axis: made}
    side = sides.get(blocks.axis)
    if side is not None:
        node.tie(side, node.unbound(len(side) // blocks.size), inner=blocks.size)


def _per_output(node: Context, layer: Layer, made: IntArray) -> None:
    """Bias, scales and the like follow the output channels."""
    for slot in layer.per_output:
        if node.constant(slot) is not None:
            node.param(slot, -1, made)
    for slot in layer.coding.slots if layer.coding is not None else ():
        node.param(slot, 0, made)


@rule("Gemm")
def gemm(node: Context) -> None:
    """A matrix product with a constant matrix and an optional bias."""
    layer = layer_of(node.graph, node.node)
    if layer is None or node.inputs.keys() - {layer.data_slot}:
        raise UnclearError("its matrix or bias is not constant")
    need_constant_bias(node, layer)
    node.pin_others(0, {layer.data_axis}, "rows of a Gemm")
    contract(node, layer, padded=layer.bias_factor == 0)


@rule("MatMul")
def matmul(node: Context) -> None:
    """With a constant operand a reader and writer, with two activations a coupling."""
    layer = layer_of(node.graph, node.node)
    if layer is None:
        product_of_activations(node)
        return
    data, result = node.shape(layer.data_slot), node.output_shape()
    weight = node.shape(layer.weight_slot)
    for axis, labels in node.axes(layer.data_slot).items():
        if axis == layer.data_axis:
            continue
        if len(weight) > 2 and axis < len(data) - 2:
            node.pin(layer.data_slot, axis, "multiplied by a batch of constant matrices")
        elif len(weight) == 1:
            place = axis if axis < layer.data_axis else axis - 1
            node.pass_on(place, labels, slot=layer.data_slot)
        elif axis < len(data) - 2:
            node.pass_on(axis - len(data) + len(result), labels, slot=layer.data_slot)
        else:
            place = len(result) - (1 if layer.data_slot else 2)
            node.pass_on(place, labels, slot=layer.data_slot)
    # What a known value adds differs from matrix to matrix of a batch, so only zeros are absorbed;
    # nor can anything be added to sums of whole numbers where there is no bias.
    batches = any(size != 1 for size in weight[:-2])
    contract(node, layer, padded=batches or layer.quantization is not None)


def product_of_activations(
    node: Context,
    slots: tuple[int, int] = (0, 1),
    zeros: tuple[Function | None, ...] = (None, None, None, None),
) -> None:
    """Contraction axes of both operands are coupled; rows, columns and batches pass through.

    Args:
        node: The node.
        slots: The input slots of the operands.
        zeros: For operands in which a zero is not stored as one: what says where products of two
            channels are zero, what becomes of a zero of the left one, of the right one, and of
            batches of which either may be zero.
    """
    one, other = (len(node.shape(slot)) for slot in slots)
    rank = len(node.output_shape())
    if one < 2 or other < 2:
        raise UnclearError("it multiplies a vector")
    first, second = turned(node.node)
    row, column = one - 2 + first, other - 1 - second
    inner = (2 * one - 3 - row, 2 * other - 3 - column)  # The other ones of the last two.
    left, right = (node.axes(slot) for slot in slots)
    if inner[0] in left and inner[1] in right:
        node.contracts_pairs(left[inner[0]], right[inner[1]], inner[0], slots, zeros[0])
    else:
        for slot, axis in zip(slots, inner, strict=True):
            if axis in node.axes(slot):
                node.pin(slot, axis, "contracted with a tensor whose channels are not known")
    if row in left:
        node.pass_on(rank - 2, left[row], How.ZERO, slots[0], function=zeros[1])
    if column in right:
        node.pass_on(rank - 1, right[column], How.ZERO, slots[1], function=zeros[2])
    for axis in range(rank - 2):
        broadcast_axis(node, axis, rank, How.ZERO, slots, function=zeros[3])
        if axis not in node.outputs.get(0, {}):
            _pass_pinned(node, axis, rank, slots)


def _pass_pinned(node: Context, axis: int, rank: int, slots: tuple[int, int]) -> None:
    """Heads that are pinned, as those of scores are not known, are still heads of the result."""
    for slot in slots:
        labels = node.axes(slot).get(axis - (rank - len(node.shape(slot))))
        if labels is not None and len(labels) == node.output_shape()[axis]:
            node.pass_on(axis, labels)
            return
