"""LSTM, GRU and RNN over positions in a row."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from build import Array
from builder import Builder
from case import Layer
from parts.movement import sequence

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_ACTIVATIONS = {
    "LSTM": (["Sigmoid", "Tanh", "Tanh"], ["HardSigmoid", "Softsign", "Relu"], ["Sigmoid"] * 3),
    "GRU": (["Sigmoid", "Tanh"], ["HardSigmoid", "Softsign"], ["Sigmoid", "Sigmoid"]),
    "RNN": (["Tanh"], ["Softsign"], ["Sigmoid"]),
}


def recurrent(b: Builder) -> None:
    """A layer of one or two directions, some units of which are zero, or read by no other."""
    if b.pick(3) is None:
        sequence(b)
    data = b.pick(3, lambda s: isinstance(s[1], int))
    if data is None:
        return
    steps, batch, channels = b.shapes[data]
    assert isinstance(batch, int)
    assert isinstance(channels, int)
    op = b.draw(st.sampled_from(list(_GATES)))
    units, directions = b.draw(st.integers(1, 5)), 2 if b.chance(0.3) else 1
    gates, dead, unread = _GATES[op], b.some(units), b.some(units)

    def blocks(count: int, *more: int) -> Array:
        values = b.numbers(directions, count, units, *more) / 2
        values[:, :, dead] = 0
        return values

    own, between, bias = blocks(gates, channels), blocks(gates, units), blocks(2 * gates)
    between[..., unread] = 0
    inputs = [data, *(b.constant(w.reshape(directions, gates * units, -1)) for w in (own, between))]
    inputs += [b.constant(bias.reshape(directions, -1))] if b.chance(0.7) else []
    start = b.draw(st.sampled_from(["", "zeros", "numbers"]))
    if start:
        inputs += [""] * (5 - len(inputs))
        values = b.numbers(directions, batch, units) * (start == "numbers")
        inputs += [b.constant(values)] * (2 if op == "LSTM" else 1)
    how: dict[str, Any] = {"direction": "bidirectional"} if directions == 2 else {}
    if op == "GRU" and b.chance(0.5):
        how["linear_before_reset"] = 1
    if b.chance(0.4):
        how["activations"] = b.draw(st.sampled_from(_ACTIVATIONS[op])) * directions
    shape = steps, directions, batch, units
    made, end = b.node(op, inputs, shape, (directions, batch, units), hidden_size=units, **how)
    stored = {tensor.name for tensor in b.initializers}
    weight = inputs[1] if inputs[1] in stored else None
    b.layers.append(Layer(b.nodes[-1].name, weight, (data, -1, channels), (made, -1, units), 4))
    del b.shapes[made], b.shapes[end]
    if b.chance(0.3):
        first = b.constant(np.array(directions - 1), np.int64)
        b.one("Gather", [end, first], (batch, units), axis=0)
    turned = b.hidden("Transpose", [made], perm=[0, 2, 1, 3])
    sizes = b.constant([0, 0, -1], np.int64)
    b.one("Reshape", [turned, sizes], (steps, batch, directions * units))


PARTS = (recurrent,)
