"""Normalizations: those that act per channel, and those that mix channels."""

from __future__ import annotations

from onnx_upscale.optimizer.analyze.context import Context, UnclearError
from onnx_upscale.optimizer.analyze.facts import How
from onnx_upscale.optimizer.analyze.rewrites import Count
from onnx_upscale.optimizer.analyze.rules.table import rule


@rule("BatchNormalization")
def batch_normalization(node: Context) -> None:
    """An affine map per channel."""
    if node.attribute("training_mode", 0) or any(node.used(index) for index in range(1, 5)):
        raise UnclearError("it is in training mode")
    node.pin_others(0, {1}, "normalized over")
    # Before operator set 9 it could have parameters for every position.
    _per_channel(node, range(1, 5), How.EVALUATE if node.attribute("spatial", 1) else How.NONE)


@rule("InstanceNormalization")
def instance_normalization(node: Context) -> None:
    """Statistics over space, an affine map per channel.

    Exporters write a normalization in one group with it, for which channels become space.
    """
    _per_channel(node, range(1, 3))
    for axis, labels in node.axes(0).items():
        if axis > 1:
            node.pass_on(axis, labels)
            node.need(0, axis, "normalized together")


@rule("GroupNormalization")
def group_normalization(node: Context) -> None:
    """Statistics over groups of channels: whole groups stay together."""
    if node.constant(1) is None or node.constant(2) is None:
        raise UnclearError("its parameters are not constant")
    node.pin_others(0, {1}, "normalized over")
    labels = node.axes(0).get(1)
    if labels is None:
        return
    groups = node.unbound(int(node.attribute("num_groups")))
    if len(labels) % len(groups):
        raise UnclearError("its channels are no whole groups")
    made = node.make(1, len(labels))
    for axis in (labels, made):
        node.tie(axis, groups, inner=len(labels) // len(groups))
    for slot in (1, 2):  # Per group before operator set 21, per channel since.
        node.param(slot, 0, made if node.graph.opset >= 21 else groups)
    node.rewrite(Count("num_groups", groups))


def _per_channel(node: Context, params: range, how: How = How.EVALUATE) -> None:
    if any(node.constant(slot) is None for slot in params):
        raise UnclearError("its parameters are not constant")
    labels = node.axes(0).get(1)
    if labels is not None:
        made = node.pass_on(1, labels, how)
        for slot in params:
            node.param(slot, 0, made)


@rule("LayerNormalization RMSNormalization SimplifiedLayerNormalization")
def layer_normalization(node: Context) -> None:
    """Mixes every axis from `axis` on: all channels are needed, their order is free."""
    rank = len(node.shape())
    start = node.attribute("axis", -1) % rank
    if any(node.has(slot) and node.constant(slot) is None for slot in (1, 2)):
        raise UnclearError("its parameters are not constant")
    for axis, labels in node.axes(0).items():
        made = node.pass_on(axis, labels)
        for output in (1, 2):
            if node.used(output) and axis < start:
                node.pass_on(axis, labels, output=output)
        if axis < start:
            continue
        node.need(0, axis, "normalized together")
        for slot in (1, 2):
            if node.has(slot):
                place = axis - (rank - len(node.shape(slot)))
                if place >= 0 and node.shape(slot)[place] != 1:
                    node.param(slot, place, made)


@rule("Softmax LogSoftmax")
def softmax(node: Context) -> None:
    """Mixes one axis, or in old operator sets every axis from one on."""
    rank = len(node.shape())
    start = node.attribute("axis", -1 if node.graph.opset >= 13 else 1) % rank
    mixed = {start} if node.graph.opset >= 13 else set(range(start, rank))
    _mix(node, mixed)


@rule("LpNormalization")
def lp_normalization(node: Context) -> None:
    """Divides by a norm over one axis."""
    _mix(node, {node.attribute("axis", -1) % len(node.shape())})


@rule("MeanVarianceNormalization")
def mean_variance_normalization(node: Context) -> None:
    """Statistics over the given axes."""
    rank = len(node.shape())
    _mix(node, {axis % rank for axis in node.attribute("axes", (0, 2, 3))})


def _mix(node: Context, mixed: set[int]) -> None:
    for axis, labels in node.axes(0).items():
        node.pass_on(axis, labels)
        if axis in mixed:
            node.need(0, axis, "normalized together")
