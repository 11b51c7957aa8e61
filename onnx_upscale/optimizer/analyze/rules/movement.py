"""Operators that move channels and leave their values alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from onnx_upscale.optimizer.analyze.context import Context, UnclearError
from onnx_upscale.optimizer.analyze.facts import Concatenation, How
from onnx_upscale.optimizer.analyze.rewrites import Editor, Positions
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
    along = node.attribute("axis") % rank
    for axis in range(rank):
        if axis != along:
            broadcast_axis(node, axis, rank, How.EVALUATE, function=_same_in_all)
        elif any(along in node.axes(slot) for slot in range(len(node.node.inputs))):
            _concatenate(node, along)


def _same_in_all(parts: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """The value that a channel has in all parts; NaN where they differ or one is not known."""
    first, *others = parts
    same = np.all([first == other for other in others], axis=0)
    return np.where(same, first, np.nan)


def _concatenate(node: Context, axis: int) -> None:
    parts: list[IntArray] = []
    for slot in range(len(node.node.inputs)):
        labels = node.axes(slot).get(axis)
        if labels is None:
            size = node.shape(slot)[axis]
            if not isinstance(size, int):
                raise UnclearError("it concatenates parts of unknown size")
            labels = node.unbound(size)
            if node.constant(slot) is not None:
                node.param(slot, axis, labels)
            else:
                node.pin_part(slot, axis, labels, "concatenated with a tensor that cannot change")
        parts.append(labels)
    whole = np.concatenate(parts)
    node.move(axis, whole)
    concatenation = Concatenation(tuple(parts), whole)
    node.concatenates(concatenation)
    node.rewrite(partial(_fit_concat, concatenation))


def _fit_concat(concatenation: Concatenation, editor: Editor, positions: Positions) -> None:
    """Takes the parts in the order of the layout; a single part needs no Concat."""
    slots = concatenation.order(positions)
    assert slots is not None
    if slots != list(range(len(concatenation.parts))):
        editor.take_inputs(slots)
    if len(slots) == 1:
        editor.bypass()


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
