"""Small recurrent models, in which masks are zeros that are written as the weights are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx

from build import Array, Floats, Net, node

STEPS, BATCH, READ, UNITS = 4, 2, 8, 6
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


class RecurrentNet(Net):
    """A net of products and recurrent layers.

    Args:
        opset: Its operator set.
        seed: Of the weights.
        masks: By layer and side, the channels that are pruned.
        inputs: Shapes of its inputs; x by default.
    """

    def __init__(
        self,
        opset: int,
        seed: int,
        masks: Mapping[str, Sequence[int]],
        **inputs: Sequence[int | str],
    ) -> None:
        super().__init__(opset, seed, **{"x": (STEPS, BATCH, 3), **inputs})
        self.masks = masks

    def gone(self, key: str) -> list[int]:
        """What is pruned of a side."""
        return list(self.masks.get(key, ()))

    def product(self, tensor: str, name: str, inputs: int, outputs: int) -> str:
        """A product with a bias that is added behind it."""
        weight, bias = self.random(inputs, outputs), self.random(outputs)
        weight[self.gone(f"{name}.input")] = 0
        weight[:, self.gone(f"{name}.output")] = 0
        bias[self.gone(f"{name}.output")] = 0
        return self("Add", self("MatMul", tensor, weight, name=name), bias)

    def constants(
        self, op: str, name: str, inputs: int, directions: int = 1, peepholes: bool = False
    ) -> list[Floats]:
        """Both weights, biases and perhaps peepholes, by gate: zero for units that are pruned."""
        gates, units = GATES[op], UNITS
        shapes: list[tuple[int, ...]] = [
            (directions, gates, units, inputs),
            (directions, gates, units, units),
        ]
        shapes += [(directions, 2 * gates, units), (directions, 3, units)][: 1 + peepholes]
        made = [self.random(*shape) for shape in shapes]
        for each in made:
            each[:, :, self.gone(f"{name}.output")] = 0
        made[0][..., self.gone(f"{name}.input")] = 0
        weights = [each.reshape(directions, -1, each.shape[-1]) for each in made[:2]]
        return weights + [each.reshape(directions, -1) for each in made[2:]]

    def recurrent(
        self,
        op: str,
        tensor: str,
        *more: str | Array,
        name: str = "rnn",
        inputs: int = READ,
        directions: int = 1,
        peepholes: bool = False,
        outputs: int | None = None,
        without: Sequence[int] = (),
        **attributes: Any,
    ) -> list[str]:
        """A recurrent layer.

        Args:
            op: Its operator.
            tensor: What it reads.
            more: Lengths, then what it starts as.
            name: Its name.
            inputs: Channels that it reads.
            directions: How many.
            peepholes: Whether it has some.
            outputs: How many; all by default.
            without: The outputs that are left out.
            attributes: Those of the node.
        """
        constants: list[str | Array] = [*self.constants(op, name, inputs, directions, peepholes)]
        starts = list(more) + [""] * (4 - len(more) if peepholes else 0)
        read = [*constants[:3], *(starts[:3] if peepholes else starts), *constants[3:]]
        if directions == 2:
            attributes["direction"] = "bidirectional"
        count = outputs or (3 if op == "LSTM" else 2)
        made = self.nodes_of(
            op, tensor, *read, name=name, outputs=count, hidden_size=UNITS, **attributes
        )
        for output in without:
            self.nodes[-1].output[output] = ""
        return made

    def squeeze(self, tensor: str, *axes: int) -> str:
        """Takes axes of size one away."""
        if self.opset >= 13:
            return self("Squeeze", tensor, self.ints(*axes))
        return self("Squeeze", tensor, axes=list(axes))


def hidden_size(model: onnx.ModelProto, name: str = "rnn") -> int:
    """How many units a layer says that it has, which is what its weights are made for."""
    found = node(model, name)
    assert found is not None
    said = next(each.i for each in found.attribute if each.name == "hidden_size")
    stored = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    gates = GATES[found.op_type]
    assert stored[found.input[1]][1] == gates * said
    assert stored[found.input[2]][1:] == (gates * said, said)
    return int(said)
