"""Operators that act on each position by itself, with broadcasting."""

from __future__ import annotations

from collections.abc import Sequence

from onnx_upscale.optimizer.analyze.context import Context, UnclearError
from onnx_upscale.optimizer.analyze.facts import Carry, Function, How
from onnx_upscale.optimizer.analyze.rules.table import rule
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.load.quantized import scale_behind

UNARY = (
    "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast Ceil Celu Clip Cos Cosh Elu Erf Exp "
    "Floor Gelu HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal "
    "Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh "
    "ThresholdedRelu"
)
BINARY = (
    "Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less "
    "LessOrEqual Max Mean Min Mod Mul Or PRelu Pow Sub Sum Where Xor"
)


@rule(UNARY)
def unary(node: Context) -> None:
    """Each value by itself; bounds and types are the same for all."""
    for axis in range(len(node.output_shape())):
        if axis in node.axes(0):
            node.pass_on(axis, node.axes(0)[axis], How.EVALUATE)
    for slot in range(1, len(node.node.inputs)):
        node.pin_others(slot, set(), "one value for all channels")


@rule(BINARY)
def elementwise(node: Context) -> None:
    """Each output axis holds the channels of the inputs that have it in full."""
    shape = node.output_shape()
    if _scales(node):
        return
    for axis in range(len(shape)):
        broadcast_axis(node, axis, len(shape), how=How.EVALUATE)


def _scales(node: Context) -> bool:
    """Whether a scale that is found at run time is multiplied by one per channel."""
    told = scale_behind(node.graph, node.node) if node.node.op == "Mul" else None
    if told is None or node.inputs or told[1] >= 0:
        return False
    for slot in (0, 1):
        constant = node.constant(slot)
        if constant is not None and constant.ndim == 1 and constant.size > 1:
            node.param(slot, 0, node.make(0, constant.size))
            return True
    return False


def broadcast_axis(
    node: Context,
    axis: int,
    rank: int,
    how: How,
    slots: Sequence[int] = (),
    function: Function | None = None,
) -> None:
    """Couples the inputs along one axis of a broadcast result.

    Args:
        node: The node.
        axis: The axis of the result, from 0.
        rank: Rank of the result.
        how: How known values pass.
        slots: The inputs that take part; every one if there are none.
        function: What to evaluate in place of the node.
    """
    slots = slots or [slot for slot in range(len(node.node.inputs)) if node.has(slot)]
    places = {slot: axis - (rank - len(node.shape(slot))) for slot in slots}
    labelled: dict[int, IntArray] = {
        slot: node.axes(slot)[place]
        for slot, place in places.items()
        if place >= 0 and place in node.axes(slot)
    }
    if not labelled:
        return
    channels = max(len(labels) for labels in labelled.values())
    for slot in [slot for slot, labels in labelled.items() if len(labels) == 1 < channels]:
        node.pin(slot, places[slot], "one channel for all others")
        del labelled[slot]
    full = {slot: labels for slot, labels in labelled.items() if len(labels) == channels}
    opaque = False
    for slot, place in places.items():
        size = node.shape(slot)[place] if place >= 0 else 1
        if slot not in full and size != 1 and (size != channels or node.constant(slot) is None):
            opaque = True
    if opaque or len(full) < len(labelled):
        for slot in labelled:
            node.pin(slot, places[slot], "coupled with a tensor whose channels are not known")
        return
    made = node.join(axis, list(full.values()))
    for slot in places:
        if slot not in full and node.constant(slot) is not None:
            # Counted from the end: a mask may make a vector of one value for all channels.
            node.param(slot, axis - rank, made)
    if how is not How.NONE:
        inputs: dict[int, IntArray | None] = {slot: full.get(slot) for slot in slots}
        node.carry(Carry(how, inputs, axis, made, node.node.op == "Mul", function))


@rule("CastLike")
def cast_like(node: Context) -> None:
    """The second input gives a type and nothing else."""
    for axis, labels in node.axes(0).items():
        node.pass_on(axis, labels)
    node.pin_others(1, set(), "read for its type")


@rule("Dropout")
def dropout(node: Context) -> None:
    """At inference it copies its input."""
    training = node.constant(2)
    if node.has(2) and (training is None or bool(training)):
        raise UnclearError("it may be in training mode")
    for axis, labels in node.axes(0).items():
        node.pass_on(axis, labels, How.SAME)
        if node.used(1):
            node.pass_on(axis, labels, output=1)


@rule("QuantizeLinear DequantizeLinear")
def quantize(node: Context) -> None:
    """Scale and zero point are scalars, or have one entry per channel of an axis."""
    if node.attribute("block_size", 0):
        raise UnclearError("it is quantized in blocks")
    if any(node.has(slot) and node.constant(slot) is None for slot in (1, 2)):
        raise UnclearError("its scale is not constant")
    rank, per_axis = len(node.shape()), node.shape(1) not in ((), (1,))
    quantized = node.attribute("axis", 1) % rank if per_axis else -1
    for axis, labels in node.axes(0).items():
        made = node.pass_on(
            axis, labels, How.EVALUATE if axis == quantized or not per_axis else How.NONE
        )
        if axis == quantized:
            node.param(1, 0, made)
            if node.has(2):
                node.param(2, 0, made)
