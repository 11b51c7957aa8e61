"""Padding and resizing."""

from __future__ import annotations

from onnx_upscale.optimizer.analyze.context import Context, UnclearError
from onnx_upscale.optimizer.analyze.facts import How
from onnx_upscale.optimizer.analyze.rules.table import rule


@rule("Pad")
def pad(node: Context) -> None:
    """Borders are added to other axes than those of channels."""
    rank = len(node.shape())
    pads = node.attribute("pads") or node.graph.entries(node.node, 1)
    if pads is None or len(pads) % 2:
        raise UnclearError("its pads are not constant")
    axes = node.constant_list(3, "axes") if node.has(3) else list(range(rank))
    assert axes is not None
    amounts = {
        int(axis) % rank: (pads[index], pads[index + len(axes)]) for index, axis in enumerate(axes)
    }
    how = How.SAME if node.attribute("mode", b"constant") != b"constant" else _border(node)
    nothing = (0, 0)  # An amount that only a run shows is one.
    for axis, labels in node.axes(0).items():
        if amounts.get(axis, nothing) != nothing:
            node.pin(0, axis, "padded")
        else:
            changes = any(pair != nothing for pair in amounts.values())
            node.pass_on(axis, labels, how if changes else How.SAME)


def _border(node: Context) -> How:
    """How known values pass where a constant is mixed in: zero survives a border of zeros."""
    value = node.attribute("value", 0.0)
    if node.has(2):
        known = node.constant(2)
        value = None if known is None else known.item()
    return How.ZERO if value == 0 else How.NONE


@rule("Resize Upsample")
def resize(node: Context) -> None:
    """Scales other axes than those of channels."""
    before, after = node.shape(), node.output_shape()
    crops = node.attribute("coordinate_transformation_mode", b"") == b"tf_crop_and_resize"
    if node.node.op == "Resize" and node.has(3):
        if node.attribute("axes", ()):
            for axis in {axis % len(before) for axis in node.attribute("axes")} & set(node.axes(0)):
                raise UnclearError(f"it gives axis {axis} a size of its own")
        else:
            node.resizes_in_place(3, after)
    for axis, labels in node.axes(0).items():
        # A scale that is not one can round back to the same size and still mix channels.
        cropped = crops and not _whole(node, axis, len(before))
        if before[axis] != after[axis] or _scale(node, axis, len(before)) != 1 or cropped:
            node.pin(0, axis, "resized")
        else:
            # A crop mixes in a value for what lies outside.
            node.pass_on(axis, labels, How.NONE if crops else How.SAME)


def _whole(node: Context, axis: int, rank: int) -> bool:
    """Whether the region of interest takes all of an axis."""
    region = node.constant(1)
    axes = [each % rank for each in node.attribute("axes", range(rank))]
    if region is None or region.size != 2 * len(axes) or axis not in axes:
        return axis not in axes
    start, end = region[axes.index(axis)], region[len(axes) + axes.index(axis)]
    return bool(start == 0 and end == 1)


def _scale(node: Context, axis: int, rank: int) -> float:
    """The factor an axis is scaled by, or 1 where sizes are given in its place."""
    if "scales" in node.node.attributes:
        return float(node.attribute("scales")[axis])
    slot = 1 if node.node.op == "Upsample" or node.graph.opset < 11 else 2
    if not node.has(slot):
        return 1.0
    scales = node.constant(slot)
    if scales is None:
        raise UnclearError("its scales are not constant")
    axes = [each % rank for each in node.attribute("axes", range(rank))]
    if not scales.size or axis not in axes:
        return 1.0
    return float(scales[axes.index(axis)])
