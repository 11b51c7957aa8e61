"""Operators that take some positions of an axis: Split, Slice and Gather, with their rewrites."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np

from onnx_upscale.optimizer.analyze.context import Context, UnclearError
from onnx_upscale.optimizer.analyze.rewrites import Editor, Positions
from onnx_upscale.optimizer.analyze.rules.table import rule
from onnx_upscale.optimizer.load.graph import IntArray

_SLICE_INPUTS_SINCE = 10
_SPLIT_INPUT_SINCE = 13
_END = np.iinfo(np.int64).max

Fit: TypeAlias = "Callable[[Editor, int, list[IntArray], int], None]"
"""Makes a node take places, one array per output, of an axis that has so many."""


@dataclass(frozen=True)
class _Selection:
    """Each output holds chosen positions of an axis of the input."""

    axis: int
    source: IntArray
    picks: tuple[IntArray, ...]
    fit: Fit

    def __call__(self, editor: Editor, positions: Positions) -> None:
        """Takes the same channels from the new layout."""
        source = positions(self.source)
        place = np.full(len(self.source), -1, np.int64)
        place[source] = np.arange(len(source))
        picks = [place[pick[positions(self.source[pick])]] for pick in self.picks]
        same = len(source) == len(self.source) and all(map(np.array_equal, picks, self.picks))
        if not same:
            self.fit(editor, self.axis, picks, len(source))


def _select(
    node: Context, axis: int, labels: IntArray, picks: Sequence[IntArray], fit: Fit
) -> None:
    if any(len(pick) == 0 for pick in picks):
        raise UnclearError("it takes nothing")
    for output, pick in enumerate(picks):
        node.move(axis, labels[pick], output)
    node.rewrite(_Selection(axis, labels, tuple(picks), fit))


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
        _select(node, axis, labels, np.split(np.arange(len(labels)), ends[:-1]), _fit_split)


def _fit_split(editor: Editor, axis: int, picks: list[IntArray], size: int) -> None:
    present = [output for output, pick in enumerate(picks) if len(pick)]
    present.sort(key=lambda output: int(picks[output].min()))
    laid = np.concatenate([picks[output] for output in present])
    if not np.array_equal(laid, np.arange(size)):
        editor.replace_by_copies(axis, {output: picks[output] for output in present})
        return
    sizes = [len(picks[output]) for output in present]
    editor.take_outputs(present)
    editor.set_attribute("num_outputs", None)
    if editor.opset >= _SPLIT_INPUT_SINCE:
        editor.set_integers(1, f"{editor.result}.split", sizes)
    else:
        editor.set_attribute("split", sizes)


@rule("Slice")
def slice_(node: Context) -> None:
    """Takes ranges of axes."""
    rank = len(node.shape())
    axes = node.constant_list(3, "axes")
    if axes is None:
        starts = node.constant_list(1, "starts")
        axes = list(range(len(starts or ())))
    sliced = [int(axis) % rank for axis in axes]
    for axis, labels in node.axes(0).items():
        if axis not in sliced:  # Bounds of others may be known at run time only.
            node.move(axis, labels)
            continue
        starts, ends = node.constant_list(1, "starts"), node.constant_list(2, "ends")
        if starts is None or ends is None:
            raise UnclearError("it has no bounds")
        steps, at = node.constant_list(4, "steps") or [1] * len(sliced), sliced.index(axis)
        start, end, step = int(starts[at]), int(ends[at]), int(steps[at])
        pick = np.arange(len(labels))[start:end:step]
        _select(node, axis, labels, [pick], partial(_fit_slice, rank))


def _fit_slice(rank: int, editor: Editor, axis: int, picks: list[IntArray], size: int) -> None:
    (pick,) = picks
    bounds = 0, _END, 1
    if np.array_equal(pick, np.arange(pick[0], pick[0] + len(pick))):
        bounds = int(pick[0]), int(pick[0]) + len(pick), 1
    else:
        editor.gather_result(axis, pick)
    names = ("starts", "ends", "axes", "steps")
    by_attribute = editor.opset < _SLICE_INPUTS_SINCE
    starts, ends, axes, steps = (
        list(editor.attribute(name) or ()) if by_attribute else editor.integers(slot)
        for slot, name in enumerate(names, start=1)
    )
    axes = [value % rank for value in axes or range(len(starts))]
    steps = steps or [1] * len(axes)
    at = axes.index(axis)
    starts[at], ends[at], steps[at] = bounds
    if by_attribute:
        editor.set_attribute("starts", starts)
        editor.set_attribute("ends", ends)
        return
    for slot, values in enumerate((starts, ends, axes, steps), start=1):
        editor.set_integers(slot, f"{editor.node.outputs[0]}.{names[slot - 1]}", values)


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
            _select(node, axis, labels, [picks], _fit_gather)


def _fit_gather(editor: Editor, axis: int, picks: list[IntArray], size: int) -> None:
    editor.set_integers(1, f"{editor.node.outputs[0]}.indices", picks[0])


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
