"""Operators that move channels and leave their values alone."""

from __future__ import annotations

import numpy as np

from onnx_upscale.optimizer.analyze.context import Context, UnclearError
from onnx_upscale.optimizer.analyze.facts import How, Join, Selection
from onnx_upscale.optimizer.analyze.rules.elementwise import broadcast_axis
from onnx_upscale.optimizer.analyze.rules.table import rule
from onnx_upscale.optimizer.load.graph import IntArray


@rule("Transpose")
def transpose(node: Context) -> None:
    """Axes change places."""
    rank = len(node.shape())
    order = node.attribute("perm", tuple(reversed(range(rank))))
    for place, axis in enumerate(order):
        if axis in node.axes(0):
            node.move(place, node.axes(0)[axis])


@rule("Concat")
def concat(node: Context) -> None:
    """Along its axis parts lie side by side; along the others they are coupled."""
    rank = len(node.output_shape())
    joined = node.attribute("axis") % rank
    for axis in range(rank):
        if axis != joined:
            broadcast_axis(node, axis, rank, how=How.NONE)
        elif any(joined in node.axes(slot) for slot in range(len(node.node.inputs))):
            _join(node, joined)


def _join(node: Context, axis: int) -> None:
    parts: list[IntArray] = []
    for slot in range(len(node.node.inputs)):
        labels = node.axes(slot).get(axis)
        if labels is None:
            size = node.shape(slot)[axis]
            if not isinstance(size, int):
                raise UnclearError("it joins parts of unknown size")
            labels = node.unbound(size)
            if node.constant(slot) is not None:
                node.param(slot, axis, labels)
            else:
                node.pin_part(slot, axis, labels, "joined with a tensor that cannot change")
        parts.append(labels)
    whole = np.concatenate(parts)
    node.move(axis, whole)
    node.joins(Join(axis, tuple(range(len(parts))), tuple(parts), whole))


@rule("Split")
def split(node: Context) -> None:
    """Cuts an axis into parts."""
    rank = len(node.shape())
    cut = node.attribute("axis", 0) % rank
    for axis, labels in node.axes(0).items():
        if axis != cut:
            for output in range(len(node.node.outputs)):
                node.move(axis, labels, output)
            continue
        shapes = [node.output_shape(output) for output in range(len(node.node.outputs))]
        sizes = [shape[cut] for shape in shapes if isinstance(shape[cut], int)]
        ends = np.cumsum(np.array(sizes, np.int64))
        if len(sizes) < len(shapes) or ends[-1] != len(labels):
            node.pin(0, axis, "split into parts of unknown size")
            continue
        _select(node, axis, labels, np.split(np.arange(len(labels)), ends[:-1]))


@rule("Slice")
def slice_(node: Context) -> None:
    """Takes ranges of axes."""
    rank = len(node.shape())
    starts, ends = node.constant_list(1, "starts"), node.constant_list(2, "ends")
    axes = node.constant_list(3, "axes")
    steps = node.constant_list(4, "steps")
    if starts is None or ends is None:
        raise UnclearError("it has no bounds")
    sliced = [int(axis) % rank for axis in (axes if axes is not None else range(len(starts)))]
    bounds = dict(
        zip(sliced, zip(starts, ends, steps or [1] * len(starts), strict=True), strict=True)
    )
    for axis, labels in node.axes(0).items():
        if axis not in bounds:
            node.move(axis, labels)
            continue
        start, end, step = (int(bound) for bound in bounds[axis])
        _select(node, axis, labels, [np.arange(len(labels))[start:end:step]])


@rule("Gather")
def gather(node: Context) -> None:
    """Takes positions of one axis, in any order; from a constant table it is an embedding."""
    data, indices = node.shape(0), node.constant(1)
    if node.constant(0) is not None:
        _embed(node)
        return
    if node.inputs.keys() - {0}:
        raise UnclearError("its indices have channels")
    along = node.attribute("axis", 0) % len(data)
    added = (indices.ndim if indices is not None else len(node.shape(1))) - 1
    for axis, labels in node.axes(0).items():
        if axis != along:
            node.move(axis if axis < along else axis + added, labels)
        elif indices is None or indices.ndim > 1:
            node.pin(0, axis, "gathered from by position")
        elif indices.ndim == 0:
            node.pin(0, axis, "one of its channels is taken out")
        else:
            picks = np.where(indices < 0, indices + len(labels), indices).astype(np.int64)
            _select(node, axis, labels, [picks])


def _select(node: Context, axis: int, labels: IntArray, picks: list[IntArray]) -> None:
    if any(len(pick) == 0 for pick in picks):
        raise UnclearError("it takes nothing")
    for output, pick in enumerate(picks):
        node.move(axis, labels[pick], output)
    node.selects(Selection(axis, labels, tuple(picks)))


def _embed(node: Context) -> None:
    table, indices = node.shape(0), node.shape(1)
    if node.inputs:
        raise UnclearError("its indices have channels")
    along = node.attribute("axis", 0) % len(table)
    width = table[-1]
    if along != 0 or len(table) != 2 or not isinstance(width, int):
        return
    made = node.make(len(indices), width)
    node.param(0, 1, made)
    node.embeds(made)


@rule("Tile")
def tile(node: Context) -> None:
    """Repeats axes."""
    repeats = node.constant_list(1, "repeats")
    if repeats is None:
        raise UnclearError("its repeats are not constant")
    for axis, labels in node.axes(0).items():
        times = int(repeats[axis])
        if times == 1:
            node.pass_on(axis, labels, How.SAME)
        else:
            node.tie(node.make(axis, times * len(labels)), labels, outer=times)


@rule("DepthToSpace SpaceToDepth")
def shuffle_pixels(node: Context) -> None:
    """Blocks of pixels become channels, or the other way round."""
    node.pin_others(0, {1}, "pixels are moved along it")
    labels, block = node.axes(0).get(1), int(node.attribute("blocksize")) ** 2
    if labels is None:
        return
    side = "inner" if node.attribute("mode", b"DCR") == b"CRD" else "outer"
    if node.node.op == "SpaceToDepth":
        node.tie(node.make(1, len(labels) * block), labels, **{side: block})
    else:
        node.tie(labels, node.make(1, len(labels) // block), **{side: block})
