"""The recurrent layers of ONNX: LSTM, GRU and RNN.

Their input channels are those that they read at every step, their output channels the hidden units,
which all directions have alike. An output mask zeroes all of a unit but what other units read of
it: its rows of both weights for all gates, its biases, its peepholes. It is then zero, unless it
starts as something else or an activation makes something of zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from onnx_upscale.optimizer.load.graph import Graph, Node
from onnx_upscale.optimizer.load.layers import Layer, Sizes, layer_operator
from onnx_upscale.optimizer.load.recurrence import BIAS_SLOT, STATE_WEIGHT_SLOT, Recurrence

_WEIGHT_SLOT, _PEEPHOLE_SLOT = 1, 7
_PEEPHOLES = 3
_ZERO_STAYS = frozenset(
    {"elu", "leakyrelu", "relu", "scaledtanh", "softsign", "tanh", "thresholdedrelu"}
)
"""Activations that make zero of zero, whatever their parameters."""


@dataclass(frozen=True)
class _Cell:
    """What the units of an operator are.

    Attributes:
        gates: Count of gates.
        candidate: The gate that makes what comes into a unit.
        activations: Those of one direction if nobody says others.
        passed: Which of these a zero must pass to stay one.
    """

    gates: int
    candidate: int
    activations: tuple[bytes, ...]
    passed: tuple[int, ...]


_CELLS: Mapping[str, _Cell] = {
    "GRU": _Cell(3, 2, (b"Sigmoid", b"Tanh"), (1,)),
    "LSTM": _Cell(4, 3, (b"Sigmoid", b"Tanh", b"Tanh"), (1, 2)),
    "RNN": _Cell(1, 0, (b"Tanh",), (0,)),
}


def _work(
    cell: _Cell, attributes: Mapping[str, Any], data: Sizes, weight: Sizes, made: Sizes
) -> int:
    """At every step each gate of each unit is a sum over the inputs and over all units."""
    directions, rows, inputs = weight
    return math.prod(data[:-1]) * directions * rows * (inputs + rows // cell.gates)


@layer_operator("GRU", partial(_work, _CELLS["GRU"]))
@layer_operator("LSTM", partial(_work, _CELLS["LSTM"]))
@layer_operator("RNN", partial(_work, _CELLS["RNN"]))
def _recurrent(graph: Graph, node: Node, slot: int, shape: tuple[int, ...]) -> Layer | None:
    cell, state = _CELLS[node.op], graph.value(node, STATE_WEIGHT_SLOT)
    if state is None or state.ndim != 3 or len(shape) != 3:
        return None
    directions, rows, units = state.shape
    blocks = {_WEIGHT_SLOT: cell.gates, STATE_WEIGHT_SLOT: cell.gates}
    others = {BIAS_SLOT: 2 * cell.gates, _PEEPHOLE_SLOT: _PEEPHOLES}
    for other, count in others.items():
        if node.input(other):
            value = graph.value(node, other)
            if value is None or value.shape != (directions, count * units):
                return None
            blocks[other] = count
    if not units or rows != cell.gates * units or shape[:2] != (directions, rows):
        return None
    rests = _rests(cell, node, directions)
    recurrence = Recurrence(units, blocks, cell.gates, cell.candidate, rests)
    return Layer(node, shape, 0, slot, None, 2, 3, 4, 2, 1, recurrence=recurrence)


def _rests(cell: _Cell, node: Node, directions: int) -> tuple[bool, ...]:
    """Per direction, whether a zero passes its activations."""
    count = len(cell.activations)
    named = list(node.attributes.get("activations") or cell.activations * directions)
    if len(named) != count * directions:
        return (False,) * directions
    stays = [name.decode("utf-8", "replace").lower() in _ZERO_STAYS for name in named]
    return tuple(
        all(stays[start + at] for at in cell.passed) for start in range(0, len(stays), count)
    )
