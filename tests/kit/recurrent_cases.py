"""Recurrent layers between two products, in all the ways in which they are written."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from mask_document import Masks
from recurrent_net import BATCH, READ, STEPS, UNITS, RecurrentNet

PRUNED = (1, 4)
LEFT = UNITS - len(PRUNED)

Start = Callable[[RecurrentNet], list[Any]]
Behind = Callable[[RecurrentNet, list[str]], str]


def squeezed(n: RecurrentNet, made: list[str]) -> str:
    return n.squeeze(made[0], 1)


def _shifted(n: RecurrentNet, made: list[str]) -> str:
    """What is added behind a layer that goes on with its sums is none of its own."""
    return n.squeeze(n("Add", made[0], n.random(UNITS)), 1)


def _batch_first(n: RecurrentNet, made: list[str]) -> str:
    return n("Transpose", n.squeeze(made[0], 1), perm=[1, 0, 2])


def merged(n: RecurrentNet, made: list[str]) -> str:
    """As torch's exporters lay both directions side by side."""
    turned = n("Transpose", made[0], perm=[0, 2, 1, 3])
    return n("Reshape", turned, n.ints(0, 0, -1))


def _merged_batch_first(n: RecurrentNet, made: list[str]) -> str:
    turned = n("Transpose", made[0], perm=[0, 2, 1, 3])
    merged = n("Reshape", turned, n.ints(STEPS, BATCH, -1))
    return n("Gather", n("Transpose", merged, perm=[1, 0, 2]), np.array(-1), axis=1)


def _split(n: RecurrentNet, made: list[str]) -> str:
    """As tf2onnx does."""
    how: dict[str, Any] = {"num_outputs": 2} if n.opset >= 18 else {}
    parts = n.nodes_of("Split", made[0], outputs=2, axis=1, **how)
    return n("Concat", *(n.squeeze(part, 1) for part in parts), axis=2)


def _end(n: RecurrentNet, made: list[str]) -> str:
    return n.squeeze(made[1], 0)


def _cells(n: RecurrentNet, made: list[str]) -> str:
    return n.squeeze(made[2], 0)


def _both_ends(n: RecurrentNet, made: list[str]) -> str:
    ends = [n("Gather", made[1], np.array(at), axis=0) for at in (-2, -1)]
    return n("Concat", *ends, axis=1)


def _all_three(n: RecurrentNet, made: list[str]) -> str:
    whole = n("ReduceSum", n.squeeze(made[0], 1), n.ints(0), keepdims=0)
    return n("Add", n("Add", whole, _end(n, made)), _cells(n, made))


def _nothing(n: RecurrentNet) -> list[Any]:
    return []


def _lengths(n: RecurrentNet) -> list[Any]:
    return [np.array([2, 4], np.int32)]


def _zeros(n: RecurrentNet) -> list[Any]:
    zeros = n.constant(np.zeros((1, BATCH, UNITS), np.float32))
    return ["", zeros, zeros]


def _numbers(n: RecurrentNet) -> list[Any]:
    return ["", n.random(1, BATCH, UNITS), n.random(1, BATCH, UNITS)]


def _expanded(n: RecurrentNet) -> list[Any]:
    """As torch's older exporter writes zeros of an open batch; it takes them for every layer."""
    batch = n("Gather", n("Shape", "x"), np.array(1), axis=0)
    batch = n("Unsqueeze", batch, n.ints(0))
    sizes = n("Concat", n.ints(1), batch, n.ints(UNITS), axis=0)
    return ["", n("Expand", np.zeros((), np.float32), sizes), n("ConstantOfShape", sizes)]


def _sliced(n: RecurrentNet) -> list[Any]:
    """As the newer one does."""
    batch = n("Slice", n("Shape", "x"), n.ints(1), n.ints(2))
    sizes = n("Concat", n.ints(2), batch, n.ints(UNITS), axis=0)
    zeros = n("Expand", np.zeros((1, 1, UNITS), np.float32), sizes)
    own = n("Slice", zeros, n.ints(0), n.ints(1), n.ints(0))
    return ["", own, own]


def computed(n: RecurrentNet) -> list[Any]:
    """What another layer makes, as the encoder's state that a decoder starts from."""
    first = n("Gather", "x", n.ints(0), axis=0)
    return ["", *(n("Tanh", n.product(first, name, 3, UNITS)) for name in ("start", "start_c"))]


@dataclass(frozen=True)
class Case:
    """A product, a recurrent layer, and a product that reads its units.

    Attributes:
        op: The operator of the layer.
        behind: From its outputs to what the last layer reads.
        how: Attributes and more of it.
        starts: Its lengths, and what it starts as; an LSTM has two of these.
        times: How many channels the last layer reads of each unit.
        kept: How many units are left where two are masked.
        rank: Of what the last layer reads.
        since: First operator set.
        between: What stands before it.
    """

    op: str
    behind: Behind = squeezed
    how: Mapping[str, Any] = field(default_factory=dict)
    starts: Start = _nothing
    times: int = 1
    kept: int = LEFT
    since: int = 11
    between: str = "Relu"

    def model(self, name: str, masks: Masks, opset: int = 14) -> onnx.ModelProto:
        net = RecurrentNet(opset, zlib.crc32(name.encode()), masks)
        read = net(self.between, net.product("x", "first", 3, READ))
        starts = self.starts(net)[: 3 if self.op == "LSTM" else 2]
        made = net.recurrent(self.op, read, *starts, **self.how)
        return net.model(net.product(self.behind(net, made), "last", UNITS * self.times, 2))

    def random_masks(self, rng: np.random.Generator) -> Masks:
        sizes = {"first.output": READ, "rnn.input": READ, "rnn.output": UNITS}
        sizes["last.input"] = UNITS * self.times
        return {
            key: sorted(rng.choice(size, rng.integers(0, size * 2 // 3 + 1), replace=False))
            for key, size in sizes.items()
        }


_BOTH_WAYS = {"directions": 2}
_OWN = ["Sigmoid", "Relu", "Softsign", "HardSigmoid", "Tanh", "LeakyRelu"]

CASES = {
    "LSTM": Case("LSTM"),
    "LSTM-batch-first": Case("LSTM", _batch_first),
    "LSTM-of-sigmoid": Case("LSTM", between="Sigmoid"),
    "LSTM-peepholes": Case("LSTM", _all_three, {"peepholes": True}, since=13),
    "LSTM-peepholes-starts": Case("LSTM", how={"peepholes": True}, starts=_zeros),
    "LSTM-peepholes-numbers": Case("LSTM", how={"peepholes": True}, starts=_numbers, kept=UNITS),
    "LSTM-shifted": Case("LSTM", _shifted),
    "LSTM-input-forget": Case("LSTM", how={"input_forget": 1}),
    "LSTM-clip": Case("LSTM", how={"clip": 0.5}),
    "LSTM-activations": Case("LSTM", how={"activations": ["Sigmoid", "Relu", "Softsign"]}),
    "LSTM-candidate": Case("LSTM", how={"activations": ["Sigmoid", "Sigmoid", "Tanh"]}, kept=UNITS),
    "LSTM-result": Case("LSTM", how={"activations": ["Sigmoid", "Tanh", "Sigmoid"]}, kept=UNITS),
    "LSTM-reverse": Case("LSTM", _all_three, {"direction": "reverse"}, since=13),
    "LSTM-lengths": Case("LSTM", _all_three, starts=_lengths, since=13),
    "LSTM-end": Case("LSTM", _end, {"without": [0]}),
    "LSTM-cells": Case("LSTM", _cells, {"without": [0, 1]}),
    "LSTM-zeros": Case("LSTM", starts=_zeros),
    "LSTM-numbers": Case("LSTM", starts=_numbers, kept=UNITS),
    "LSTM-expanded": Case("LSTM", starts=_expanded, since=13),
    "LSTM-sliced": Case("LSTM", starts=_sliced),
    "LSTM-computed": Case("LSTM", starts=computed, kept=UNITS),
    "LSTM-both-ways": Case("LSTM", merged, _BOTH_WAYS, times=2),
    "LSTM-both-ways-activations": Case(
        "LSTM", _split, {**_BOTH_WAYS, "activations": _OWN}, times=2, since=11
    ),
    "LSTM-both-ways-one-rests": Case(
        "LSTM", merged, {**_BOTH_WAYS, "activations": [*_OWN[:5], "Affine"]}, times=2, kept=UNITS
    ),
    "GRU": Case("GRU"),
    "GRU-linear": Case("GRU", _batch_first, {"linear_before_reset": 1}),
    "GRU-activations": Case("GRU", how={"activations": ["HardSigmoid", "Softsign"]}),
    "GRU-candidate": Case("GRU", how={"activations": ["Sigmoid", "Softplus"]}, kept=UNITS),
    "GRU-lengths": Case("GRU", _end, {"linear_before_reset": 1}, _lengths),
    "GRU-reverse": Case("GRU", _end, {"direction": "reverse"}, _lengths),
    "GRU-expanded": Case("GRU", _end, {"linear_before_reset": 1}, _expanded, since=13),
    "GRU-numbers": Case("GRU", starts=_numbers, kept=UNITS),
    "GRU-computed": Case("GRU", starts=computed, kept=UNITS),
    "GRU-both-ways": Case(
        "GRU", _merged_batch_first, {**_BOTH_WAYS, "linear_before_reset": 1}, times=2
    ),
    "GRU-both-ends": Case("GRU", _both_ends, {**_BOTH_WAYS, "without": [0]}, times=2),
    "RNN": Case("RNN"),
    "RNN-relu": Case("RNN", _end, {"activations": ["Relu"]}),
    "RNN-sigmoid": Case("RNN", how={"activations": ["Sigmoid"]}, kept=UNITS),
    "RNN-clip": Case("RNN", how={"clip": 1.0}, starts=_lengths),
    "RNN-sliced": Case("RNN", starts=_sliced),
    "RNN-both-ways": Case("RNN", _both_ends, {**_BOTH_WAYS, "activations": ["Tanh"] * 2}, times=2),
}
