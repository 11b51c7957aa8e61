"""A plan is checked before anything is applied: every edge must carry what its ends expect."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from onnx_upscale.optimizer.analyze import Analysis, Needs
from onnx_upscale.optimizer.analyze.facts import Facts
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.load.scale_blocks import whole_blocks
from onnx_upscale.optimizer.plan.edits import Edit, Select, SelectParts, Shift, Widen
from onnx_upscale.optimizer.plan.layout import Layout
from onnx_upscale.optimizer.plan.readings import Reading
from onnx_upscale.optimizer.plan.writings import Writing

_ZERO = -1


class PlanError(Exception):
    """A plan contradicts itself, which is a mistake of this package."""


def check_reader(layout: Layout, kept: Needs, reading: Reading, edits: Iterable[Edit]) -> None:
    """Follows the channels along the edge into a reader.

    Args:
        layout: The layout.
        kept: What is computed.
        reading: How the reader gets its channels.
        edits: All edits of its node, in order.

    Raises:
        PlanError: It does not get the channels that its weight is cut to, or lacks one it needs,
            or it reads a part of a block that shares scales.
    """
    read = reading.read
    carried = layout.positions(read.inputs)
    for edit in edits:
        if isinstance(edit, Select):
            carried = _selected(carried, edit, _name(reading))
        if isinstance(edit, SelectParts) and not 0 < edit.first < len(edit.chosen):
            raise PlanError(f"{_name(reading)} has a part without a channel")
    if not np.array_equal(carried, reading.positions):
        raise PlanError(f"{_name(reading)} gets other channels than its weight is cut to")
    missing = kept.reads[read.layer.node.index].copy()
    missing[carried] = False
    if missing[layout.positions(read.inputs)].any():
        raise PlanError(f"{_name(reading)} lacks a channel that it needs")
    if whole_blocks(reading.positions, read.layer.together) is None:
        raise PlanError(f"{_name(reading)} reads a part of the channels that share a scale")


def check_node(layout: Layout, facts: Facts, edits: Iterable[Edit]) -> None:
    """Checks that a node that works channel by channel gets everywhere what it makes.

    Args:
        layout: The layout.
        facts: What is known of the node.
        edits: All edits of it, in order.

    Raises:
        PlanError: It gets other channels on one axis than on another that is coupled with it.
    """
    selects = {(edit.slot, edit.axis): edit for edit in edits if isinstance(edit, Select)}
    arriving: dict[bytes, IntArray] = {}
    name = f"node '{facts.node.title}'"
    layer = None if facts.read is None else facts.read.layer
    for slot, axes in facts.inputs.items():
        for axis, labels in axes.items():
            if layer is not None and (slot, axis) == (layer.data_slot, layer.data_axis):
                continue  # What it contracts; it may add the same tensor whole.
            carried = layout.positions(labels)
            if (slot, axis) in selects:
                carried = _selected(carried, selects[slot, axis], name)
            if not np.array_equal(arriving.setdefault(labels.tobytes(), carried), carried):
                raise PlanError(f"{name} gets the same channels in two ways")
    for tie in facts.ties:
        if tie.outer == tie.inner == 1:
            one, other = (
                arriving.get(labels.tobytes(), layout.positions(labels))
                for labels in (tie.flat, tie.part)
            )
            if not np.array_equal(one, other):
                raise PlanError(f"{name} gets other channels than it makes")


def _selected(carried: IntArray, select: Select, name: str) -> IntArray:
    if select.chosen.max(initial=0) >= len(carried):
        raise PlanError(f"{name} selects channels that its input does not have")
    return carried[select.chosen]


def check_writer(
    analysis: Analysis, layout: Layout, writing: Writing, edits: Iterable[Edit]
) -> None:
    """Follows the channels along the edge from a writer.

    Args:
        analysis: The analysis.
        layout: The layout.
        writing: How the writer fills its layout.
        edits: All edits of its node, in order.

    Raises:
        PlanError: What arrives is not the layout, or something on the way has another width.
    """
    carried: IntArray = writing.positions
    for edit in edits:
        if isinstance(edit, Shift) and not np.array_equal(edit.positions, carried):
            raise PlanError(f"{_name(writing)} is shifted where it has other channels")
        if isinstance(edit, Widen):
            carried = np.pad(carried, (edit.before, edit.after), constant_values=_ZERO)
    wanted, added = layout.positions(writing.write.outputs), carried == _ZERO
    if len(carried) != len(wanted) or not np.array_equal(carried[~added], wanted[~added]):
        raise PlanError(f"{_name(writing)} does not fill its layout")
    if (analysis.values[writing.write.outputs[wanted[added]]] != 0).any():
        raise PlanError(f"{_name(writing)} has zeros where something else is known")


def _name(realization: Reading | Writing) -> str:
    """How messages call the node of a realization."""
    if isinstance(realization, Reading):
        return f"reader '{realization.read.layer.node.title}' ({realization.name})"
    layer = realization.write.layer
    return f"writer '{layer.node.title if layer else '?'}' ({realization.name})"
