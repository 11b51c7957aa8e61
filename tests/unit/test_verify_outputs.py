"""Outputs of all kinds are compared: several, sequences, maps, and optionals that may be empty."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, TypeProto, helper

import onnx_upscale
from build import Floats, Net
from onnx_upscale.optimizer.verify import verify
from onnx_upscale.running import Session, random_inputs

TENSOR = helper.make_tensor_type_proto(TensorProto.FLOAT, [1, 8])
SEQUENCE = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
MAPS = TypeProto()
MAPS.sequence_type.elem_type.map_type.key_type = TensorProto.INT64
MAPS.sequence_type.elem_type.map_type.value_type.tensor_type.elem_type = TensorProto.FLOAT

Head = Callable[[Net, str], "tuple[str, TypeProto]"]


def _sequence(net: Net, tensor: str) -> tuple[str, TypeProto]:
    return net("SequenceConstruct", net("Neg", tensor), tensor), SEQUENCE


def _split(net: Net, tensor: str) -> tuple[str, TypeProto]:
    return net("SplitToSequence", tensor, np.array(4), axis=1), SEQUENCE


def _optional(net: Net, tensor: str) -> tuple[str, TypeProto]:
    return net("Optional", tensor), helper.make_optional_type_proto(TENSOR)


def _optional_sequence(net: Net, tensor: str) -> tuple[str, TypeProto]:
    sequence, kind = _sequence(net, tensor)
    return net("Optional", sequence), helper.make_optional_type_proto(kind)


def _map(net: Net, tensor: str) -> tuple[str, TypeProto]:
    return net("ZipMap", tensor, classlabels_int64s=list(range(8)), domain="ai.onnx.ml"), MAPS


HEADS: tuple[Head, ...] = (_sequence, _split, _optional, _optional_sequence, _map)


def built(*heads: Head, change: float = 0.0, rounds: bool = False) -> onnx.ModelProto:
    """Two layers, and outputs of what the second makes; `change` is added to one of its weights."""
    net = Net(17, x=(1, 4))
    hidden = net("Relu", net("MatMul", "x", net.constant(net.random(4, 6), "w1")))
    if rounds:
        hidden = net("Ceil", hidden)
    weight: Floats = net.random(6, 8)
    weight[2, 1] += change
    made = net("MatMul", hidden, net.constant(weight, "w2"))
    outputs = [helper.make_value_info(*head(net, made)) for head in heads]
    graph = helper.make_graph(net.nodes, "heads", net.inputs, outputs, net.initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize("head", HEADS)
def test_what_is_equal_is_so_without_a_doubt(head: Head) -> None:
    masks = {"version": 1, "masks": {"w2": {"input": [1, 4]}}}
    report = onnx_upscale.optimize(built(head), masks).report
    assert report.output.params < report.input.params
    assert report.verify.ok
    assert report.verify.warnings == ()


@pytest.mark.parametrize("head", HEADS)
def test_what_differs_is_found(head: Head) -> None:
    found = verify(built(head), built(head, change=0.5))
    assert not found.ok
    assert "differs by" in (found.failure or "")


def test_the_last_of_several_is_compared_too() -> None:
    def plain(net: Net, tensor: str) -> tuple[str, TypeProto]:
        return net("Identity", "x"), helper.make_tensor_type_proto(TensorProto.FLOAT, [1, 4])

    assert verify(built(plain, _sequence), built(plain, _sequence)).ok
    assert not verify(built(plain, _sequence), built(plain, _sequence, change=0.5)).ok


def test_sequences_are_compared_piece_by_piece_as_well() -> None:
    assert verify(built(_sequence, rounds=True), built(_sequence, rounds=True), at=["n2.0"]).ok
    wrong = built(_sequence, rounds=True, change=0.5)
    found = verify(built(_sequence, rounds=True), wrong, at=["n2.0"])
    name = built(_sequence, rounds=True).graph.output[0].name
    assert (found.failure or "").startswith(f"tensor '{name}[")


def test_sequences_of_other_lengths_differ() -> None:
    def longer(net: Net, tensor: str) -> tuple[str, TypeProto]:
        return net("SequenceConstruct", net("Neg", tensor), tensor, tensor), SEQUENCE

    name = built(_sequence).graph.output[0].name
    assert built(longer).graph.output[0].name == name
    for one, other in ((_sequence, longer), (longer, _sequence)):
        found = verify(built(one), built(other))
        assert f"'{name}[2]' is " in (found.failure or "")


@pytest.mark.parametrize("at", [[], ["n1.0"]])
def test_sequences_whose_length_depends_on_the_inputs(at: list[str]) -> None:
    def positive(net: Net, tensor: str, op: str = "Relu") -> tuple[str, TypeProto]:
        found = net("Cast", net("NonZero", net(op, tensor)), to=TensorProto.FLOAT)
        return net("SplitToSequence", found, np.array(1), axis=1), SEQUENCE

    def all_of_them(net: Net, tensor: str) -> tuple[str, TypeProto]:
        return positive(net, tensor, "Identity")

    model = built(positive)
    session = Session(model)
    lengths = [len(session.run(random_inputs(model, {"x": (1, 4)}, seed))) for seed in (5, 6)]
    assert lengths[0] != lengths[1]
    found = verify(model, model, original=model, at=at, seed=5)
    assert found.ok
    assert len(found.warnings) == 1  # There are no masks; but the outputs do change.
    assert not verify(model, built(all_of_them), at=at, seed=5).ok


def test_who_wants_nothing_gets_nothing() -> None:
    """onnxruntime takes an empty list of outputs for all of them."""
    model = built(lambda net, tensor: (net("Relu", tensor), TENSOR))
    assert Session(model).run(random_inputs(model, {"x": (1, 4)}, 0), []) == {}


def test_an_optional_that_is_empty() -> None:
    def empty(net: Net, tensor: str) -> tuple[str, TypeProto]:
        return net("Optional", type=TENSOR), helper.make_optional_type_proto(TENSOR)

    report = onnx_upscale.optimize(built(empty)).report
    assert report.verify.warnings == (
        "the model makes no tensor on these inputs, so there is nothing to compare",
    )
    assert verify(built(empty, _sequence), built(empty, _sequence)).warnings == ()
    assert not verify(built(empty, _sequence), built(empty, _sequence, change=0.5)).ok


def test_the_elements_have_names() -> None:
    values = {"x": np.ones((1, 4), np.float32)}
    (name,) = (value.name for value in built(_map).graph.output)
    assert set(Session(built(_map)).run(values)) == {f"{name}[0][{key}]" for key in range(8)}
