"""Comparing two models piece by piece, between the nodes at which they jump.

A node jumps where a tiny change of what it reads can make a large one of what it makes: it rounds,
compares, ranks, or draws at random. Behind it two models that are equal up to rounding can be far
apart, and a large difference there proves nothing. So the emitted model is cut before and behind
each such node, and every piece is given what the reference has in its place:

1. What the reference reads and makes at its jumps is recorded in one run.
2. In the emitted model these tensors become inputs, and what would have been in them outputs.
3. Given the recorded values, every piece must make what the reference makes, within rounding.

By induction from the inputs on, the models are then equal wherever they get the same values. Which
channels of a tensor the emitted model has, in which order, is claimed by its plan; a wrong claim
makes a piece differ, it cannot make a wrong piece equal.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import onnx
from onnx import helper

from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.optimizer.verify.difference import Difference, Tolerance, Values, differences
from onnx_upscale.running import Session

View: TypeAlias = "Callable[[str, Array], Array]"
"""What a tensor of the emitted model holds, from its name and value in the original."""


def unchanged(name: str, value: Array) -> Array:
    """The view of a model that holds every tensor as the original does."""
    return value


_JUMPS = frozenset(
    {
        "ArgMax",
        "ArgMin",
        "Ceil",
        "DynamicQuantizeLinear",
        "Equal",
        "Floor",
        "Greater",
        "GreaterOrEqual",
        "Hardmax",
        "Less",
        "LessOrEqual",
        "MaxRoiPool",
        "Mod",
        "NonMaxSuppression",
        "NonZero",
        "QGemm",
        "QLinearAdd",
        "QLinearAveragePool",
        "QLinearConcat",
        "QLinearConv",
        "QLinearGlobalAveragePool",
        "QLinearLeakyRelu",
        "QLinearMatMul",
        "QLinearMul",
        "QLinearSigmoid",
        "QLinearSoftmax",
        "QuantizeLinear",
        "Round",
        "Sign",
        "TopK",
        "Unique",
    }
)
_DRAWS = frozenset(
    {
        "Bernoulli",
        "Dropout",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
_FLOATS = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE})
_MADE = "#made"


@dataclass(frozen=True)
class Cuts:
    """Where a model is cut.

    Attributes:
        tensors: The tensors that are given.
        drawn: Those of them that are random, so that they cannot be compared.
    """

    tensors: tuple[str, ...]
    drawn: frozenset[str]


def find_cuts(model: onnx.ModelProto, at: Collection[str] = ()) -> Cuts:
    """Finds the tensors before and behind the jumps of a model.

    Args:
        model: The model.
        at: Tensors to cut at in any case.

    Returns:
        The tensors, in the order of the model.
    """
    tensors: dict[str, None] = {}
    drawn: set[str] = set()
    varying = {value.name for value in model.graph.input}
    varying -= {tensor.name for tensor in model.graph.initializer}
    made: set[str] = set()
    for node in model.graph.node:
        draws = _draws(node)
        if draws or varying.intersection(node.input):
            varying.update(node.output)
            made.update(node.output)
            if draws or _jumps(node):
                tensors.update(dict.fromkeys(name for name in node.input if name in made))
                tensors.update(dict.fromkeys(name for name in node.output if name))
                drawn.update(node.output if draws else ())
            tensors.update(dict.fromkeys(name for name in node.output if name in at))
    return Cuts(tuple(tensors), frozenset(drawn))


def _draws(node: onnx.NodeProto) -> bool:
    if node.op_type == "Dropout":  # It draws in training mode only, which is its third input.
        return len(node.input) > 2 and bool(node.input[2])
    return node.op_type in _DRAWS


def _jumps(node: onnx.NodeProto) -> bool:
    if node.op_type == "Cast":
        return all(a.i not in _FLOATS for a in node.attribute if a.name == "to")
    return node.op_type in _JUMPS


def record(reference: onnx.ModelProto, cuts: Cuts, inputs: Sequence[Values]) -> list[Values]:
    """Runs the reference, and records what is in the tensors it is cut at.

    Args:
        reference: The reference.
        cuts: Where it is cut.
        inputs: Values for its inputs, per sample.

    Returns:
        Its outputs and the recorded tensors by name, per sample.
    """
    recorded = onnx.ModelProto()
    recorded.CopyFrom(reference)
    present = {value.name for value in reference.graph.output}
    names = [name for name in cuts.tensors if name not in present]
    recorded.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = Session(recorded, optimized=False)
    return [session.run(values) for values in inputs]


def compare_pieces(
    emitted: onnx.ModelProto,
    cuts: Cuts,
    inputs: Sequence[Values],
    recorded: Sequence[Values],
    view: View,
    tolerance: Tolerance,
) -> Difference:
    """Compares an emitted model with what was recorded of the reference, piece by piece.

    Args:
        emitted: The emitted model.
        cuts: Where the reference was cut.
        inputs: Values for its inputs, per sample.
        recorded: What `record` gave.
        view: What the emitted model should hold of each recorded tensor.
        tolerance: How much each may differ.

    Returns:
        The largest difference; integers must be the same.
    """
    made = {name for node in emitted.graph.node for name in node.output}
    names = [name for name in cuts.tensors if name in made and name in recorded[0]]
    wanted = [
        {name: view(name, value) if name in names else value for name, value in values.items()}
        for values in recorded
    ]
    session = Session(_cut(emitted, {name: wanted[0][name] for name in names}), optimized=False)
    outputs = {value.name for value in emitted.graph.output}
    skipped = cuts.drawn | (set(cuts.tensors) - set(names) - outputs)
    expected: list[Values] = []
    found: list[Values] = []
    for given, values in zip(inputs, wanted, strict=True):
        got = session.run({**given, **{name: values[name] for name in names}})
        got.update({name: got.pop(f"{name}{_MADE}") for name in names})
        for kept, all_of_them in ((expected, values), (found, got)):
            kept.append({name: v for name, v in all_of_them.items() if name not in skipped})
    return differences(expected, found, tolerance, "tensor" if names else "output")


def _cut(model: onnx.ModelProto, given: Mapping[str, Array]) -> onnx.ModelProto:
    """A model whose given tensors are inputs; what its nodes make of them is an output."""
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    graph = cut.graph
    for node in graph.node:
        for slot, name in enumerate(node.output):
            if name in given:
                node.output[slot] = f"{name}{_MADE}"
    kept = [value for value in graph.output if value.name not in given]
    recorded = [value for value in graph.value_info if value.name not in given]
    del graph.output[:], graph.value_info[:]
    graph.output.extend(kept)
    graph.output.extend(onnx.ValueInfoProto(name=f"{name}{_MADE}") for name in given)
    graph.value_info.extend(recorded)
    for name, value in given.items():
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        graph.input.append(helper.make_tensor_value_info(name, kind, [None] * value.ndim))
    return cut
