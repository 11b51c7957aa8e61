"""Recurrent layers: readers at every step, and writers of hidden units that read each other."""

from __future__ import annotations

from functools import partial

from onnx_upscale.optimizer.analyze.context import Context, UnclearError
from onnx_upscale.optimizer.analyze.facts import How
from onnx_upscale.optimizer.analyze.rewrites import Count, Editor, Positions, changed
from onnx_upscale.optimizer.analyze.rules.table import rule
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.load.layers import layer_of
from onnx_upscale.optimizer.load.recurrence import LENGTHS_SLOT, START_SLOTS, STATE_WEIGHT_SLOT

_LAST = 2
"""The axis of channels in what is read, and of units in what they start and end as."""


@rule("GRU LSTM RNN")
def recurrent(node: Context) -> None:
    """A reader, and a writer of hidden units: one leaves if no other that is needed reads it."""
    layer = layer_of(node.graph, node.node)
    if layer is None or layer.recurrence is None:
        raise UnclearError("its weights are not constant")
    labels = node.axes(0).get(_LAST)
    if labels is not None and len(labels) != layer.inputs:
        raise UnclearError("its weights do not fit its input")
    node.pin_others(0, {_LAST}, "steps, or sequences side by side")
    node.pin_others(LENGTHS_SLOT, set(), "lengths of sequences")
    units = node.unbound(layer.outputs)
    for slot, blocks in layer.recurrence.blocks.items():
        rows = node.unbound(blocks * len(units))
        node.tie(rows, units, outer=blocks)
        node.param(slot, 1, rows)
    node.param(STATE_WEIGHT_SLOT, _LAST, units)
    for slot in START_SLOTS:
        _start(node, slot, units)
    for output, name in enumerate(node.node.outputs):
        if name and not output:
            node.move(layer.result_rank - 1, units)
        elif name:
            node.pass_on(_LAST, units, How.ZERO, output=output)
    node.rewrite(Count("hidden_size", units))
    node.contracts(layer, labels, units, padded=True)
    node.recurs(layer, units)


def _start(node: Context, slot: int, units: IntArray) -> None:
    """What the units start as has the same units."""
    node.pin_others(slot, {_LAST}, "sequences side by side")
    labels = node.axes(slot).get(_LAST)
    if labels is not None:
        node.tie(labels, units)
    elif node.constant(slot) is not None:
        node.param(slot, _LAST, units)
    elif node.has(slot):
        node.rewrite(partial(_select_start, slot, units))


def _select_start(slot: int, units: IntArray, editor: Editor, positions: Positions) -> None:
    """Takes the units that are kept of a tensor that has all of them."""
    if changed(units, positions):
        editor.select_input(slot, _LAST, positions(units))
