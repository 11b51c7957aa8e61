"""A plan is checked before anything is applied: every edge must carry what its ends expect."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from onnx_upscale.optimizer.analyze import Analysis, Needs
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.plan.edits import Edit, Select, Shift, Widen
from onnx_upscale.optimizer.plan.layout import Layout
from onnx_upscale.optimizer.plan.realizations import Reading, Writing

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
        PlanError: It does not get the channels that its weight is cut to, or lacks one it needs.
    """
    read = reading.read
    carried = layout.positions(read.inputs)
    for edit in edits:
        if isinstance(edit, Select):
            if edit.chosen.max(initial=0) >= len(carried):
                raise PlanError(f"{_name(reading)} selects channels that its input does not have")
            carried = carried[edit.chosen]
    if not np.array_equal(carried, reading.positions):
        raise PlanError(f"{_name(reading)} gets other channels than its weight is cut to")
    missing = kept.reads[read.layer.node.index].copy()
    missing[carried] = False
    if missing[layout.positions(read.inputs)].any():
        raise PlanError(f"{_name(reading)} lacks a channel that it needs")


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
