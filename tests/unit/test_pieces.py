"""Verification of models that are not continuous, and of models that differ from themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_upscale
from build import Net, Operand
from onnx_upscale.errors import UsageError, VerifyError
from onnx_upscale.optimizer.plan import Plan
from onnx_upscale.optimizer.verify import verify
from onnx_upscale.optimizer.verify.pieces import find_cuts

MASKS = {"version": 1, "masks": {"w1": {"input": [0, 3, 5]}, "w2": {"output": [1, 2]}}}


def layers(net: Any, between: Any = lambda net, data: data) -> str:
    """Three layers, with something behind each."""
    data = "x"
    for index, (ins, outs) in enumerate([(3, 8), (8, 8), (8, 8)]):
        weight = net.constant(net.random(outs, ins, 3, 3), f"w{index}")
        data = between(net, net("Relu", net("Conv", data, weight, net.random(outs))))
    return data


def quantized(net: Any, data: str) -> str:
    scale, zero = np.float32(0.05), np.uint8(3)
    made: str = net("DequantizeLinear", net("QuantizeLinear", data, scale, zero), scale, zero)
    return made


def dropped(net: Any, data: str) -> str:
    made: str = net("Dropout", data, np.float32(0.5), np.bool_(True))
    return made


def steep(net: Any, data: str) -> str:
    """Rounding to coarse steps, so that one rounding error becomes a large difference."""
    made: str = net("Mul", net("Floor", net("Mul", data, np.float32(40))), np.float32(5))
    return made


def spoiled(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with one weight wrong."""
    wrong = onnx.ModelProto()
    wrong.CopyFrom(model)
    tensor = max(wrong.graph.initializer, key=lambda each: np.prod(each.dims))
    values = numpy_helper.to_array(tensor).copy()
    values.flat[np.abs(values).argmax()] *= 1.25
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return wrong


@pytest.mark.parametrize("between", [quantized, dropped, steep])
@pytest.mark.parametrize("strategy", ["auto", "upscale", "gather", "constrained"])
def test_a_model_that_jumps_is_compared_in_pieces(
    between: Any, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net: Any = Net(17, x=[2, 3, 12, 12])
    model = net.model(layers(net, between))
    proof = onnx_upscale.optimize(model, MASKS, strategy=strategy).report["verify"]
    assert proof["ok"]
    assert proof["max_rel"] < 1e-5
    if between is dropped:
        assert proof["pieces"] >= 3
        assert "differs from itself" in proof["warnings"][-1]
    # A wrong claim of which channels are where makes pieces differ; it cannot make them equal.
    monkeypatch.setattr(Plan, "view", lambda self, name, value: value[:, ::-1])
    if between is dropped:
        with pytest.raises(VerifyError):
            onnx_upscale.optimize(model, MASKS, strategy=strategy)


@pytest.mark.parametrize("between", [quantized, dropped, steep])
def test_one_wrong_weight_between_jumps(between: Any) -> None:
    net: Any = Net(17, x=[2, 3, 12, 12])
    model = net.model(layers(net, between))
    found = verify(model, spoiled(model))
    assert not found.ok
    assert found.failure is not None and "tensor" in found.failure


def selecting(pairs: Sequence[tuple[str, Operand]] = ()) -> onnx.ModelProto:
    """The largest scores and their places, which a tie decides."""
    net: Any = Net(17, x=[1, 3, 12, 12])
    data = layers(net)
    scores = net("Mul", net("ReduceMean", data, axes=[1], keepdims=0), np.float32(1e-7))
    flat = net("Reshape", net("Add", scores, np.float32(1)), net.ints(1, -1))
    values, places = net.nodes_of("TopK", flat, net.ints(5), outputs=2, name="top")
    model: onnx.ModelProto = net.model(values, places)
    return model


def test_places_of_a_selection() -> None:
    """Scores that differ by less than a rounding: their ranks are noise."""
    proof = onnx_upscale.optimize(selecting(), MASKS).report["verify"]
    assert proof["ok"]


def test_whole_numbers_must_be_the_same() -> None:
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.INT64)],
        "numbers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    shifted = onnx.ModelProto()
    shifted.CopyFrom(model)
    one = numpy_helper.from_array(np.array(1, np.int64), "one")
    shifted.graph.initializer.append(one)
    shifted.graph.node[0].output[0] = "z"
    shifted.graph.node.append(helper.make_node("Add", ["z", "one"], ["y"]))
    assert not verify(model, shifted).ok


class TestVerifyAt:
    def model(self) -> onnx.ModelProto:
        net: Any = Net(17, x=[1, 3, 12, 12])
        inner = layers(net)
        chaos = inner
        for _ in range(8):
            chaos = net("Sin", net("Mul", chaos, np.float32(300)))
        model: onnx.ModelProto = net.model(chaos)
        return model

    def tensor(self) -> str:
        return next(
            node.output[0] for node in reversed(self.model().graph.node) if node.op_type == "Relu"
        )

    def test_what_lies_behind_is_given_the_same_values(self) -> None:
        proof = onnx_upscale.optimize(self.model(), MASKS, verify_at=[self.tensor()])
        assert proof.report["verify"]["pieces"] == 1
        assert proof.report["verify"]["max_rel"] < 1e-4

    def test_without_it_noise_is_all_there_is(self) -> None:
        report = onnx_upscale.optimize(self.model(), MASKS).report["verify"]
        assert report["noise"] > 0.1
        assert "differs from itself" in report["warnings"][-1]

    def test_no_such_tensor(self) -> None:
        with pytest.raises(UsageError, match="`verify_at` nowhere: no node"):
            onnx_upscale.optimize(self.model(), MASKS, verify_at=["nowhere"])


def test_an_earlier_result_is_compared_in_pieces_as_well() -> None:
    net: Any = Net(17, x=[2, 3, 12, 12])
    model = net.model(layers(net, dropped))
    emitted = onnx_upscale.optimize(model, MASKS).model
    found = onnx_upscale.verify(model, MASKS, emitted)
    assert found.ok
    assert found.pieces > 0
    with pytest.raises(VerifyError):
        onnx_upscale.verify(model, MASKS, spoiled(emitted), rtol=1e-5)


def test_cuts_stand_before_and_behind_jumps_that_depend_on_the_inputs() -> None:
    net: Any = Net(17, x=[1, 3, 12, 12])
    first = net("Relu", "x")
    rounded = net("Round", first)
    fixed = net("Round", net.constant(np.array([1.2], np.float32)))
    model = net.model(net("Add", rounded, fixed))
    assert find_cuts(model).tensors == (first, rounded)
    assert find_cuts(model, [model.graph.output[0].name]).tensors[-1] == "n3.0"
