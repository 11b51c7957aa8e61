"""Local functions: their nodes stand in place of the calls, and lose channels like all others."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_upscale
from build import run
from onnx_upscale.optimizer.load import inlining
from onnx_upscale.optimizer.load.model import read_model

OWN = "own"


def blocks(opset: int = 17, inner: int = 17) -> onnx.ModelProto:
    """Two calls of a function with a layer, an activation that is a function, and a constant.

    Args:
        opset: The operator set of the function; that of the model is 17.
        inner: That of the activation.
    """
    rng = np.random.default_rng(0)
    standard, own = helper.make_opsetid("", opset), helper.make_opsetid(OWN, 1)
    slope = onnx.AttributeProto(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="slope")
    leaky = helper.make_node("LeakyRelu", ["x"], ["y"], "leaky")
    leaky.attribute.append(slope)
    act = helper.make_function(
        OWN, "Act", ["x"], ["y"], [leaky], [helper.make_opsetid("", inner)], ["slope"]
    )
    half = numpy_helper.from_array(np.array(0.5, np.float32))
    body = [
        helper.make_node("Constant", [], ["half"], "half", value=half),
        helper.make_node("MatMul", ["x", "w"], ["made"], "layer"),
        helper.make_node("Mul", ["made", "half"], ["less"], "scale"),
        helper.make_node("Act", ["less"], ["y"], "act", domain=OWN, slope=0.3),
    ]
    block = helper.make_function(OWN, "Block", ["x", "w"], ["y"], body, [standard, own])
    sizes = {"w1": (4, 16), "w2": (16, 8), "half": (8, 3)}  # One has a name from the function.
    weights = [
        numpy_helper.from_array(rng.standard_normal(size).astype(np.float32), name)
        for name, size in sizes.items()
    ]
    graph = helper.make_graph(
        [
            helper.make_node("Block", ["x", "w1"], ["one"], "first", domain=OWN),
            helper.make_node("Block", ["one", "w2"], ["two"], "second", domain=OWN),
            helper.make_node("MatMul", ["two", "half"], ["out"], "last"),
        ],
        "blocks",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 3])],
        weights,
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 17), own],
        functions=[block, act],
        ir_version=8,
    )


def test_what_is_read_computes_the_same() -> None:
    model, read = blocks(), read_model(blocks())
    assert not read.functions
    assert {node.domain for node in read.graph.node} == {""}
    assert read.graph.initializer == model.graph.initializer
    x = {"x": np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)}
    for one, other in zip(run(model, x), run(read, x), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("strategy", ["auto", "gather"])
def test_channels_leave_through_functions(strategy: str) -> None:
    masks = {"version": 1, "masks": {"w1": {"output": [0, 3, 7]}, "half": {"input": [1, 2]}}}
    result = onnx_upscale.optimize(blocks(), masks, strategy=strategy)
    assert result.report.verify.ok
    assert result.report.output.params == 4 * 13 + 13 * 6 + 6 * 3
    masked = blocks()
    weights = {
        tensor.name: numpy_helper.to_array(tensor).copy() for tensor in masked.graph.initializer
    }
    weights["w1"][:, [0, 3, 7]] = 0
    weights["half"][[1, 2]] = 0
    del masked.graph.initializer[:]
    masked.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in weights.items())
    x = {"x": np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)}
    for one, other in zip(run(masked, x), run(result.model, x), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("inner", [16, 17])
def test_functions_in_another_operator_set_stay(inner: int) -> None:
    """All of them, for one of two is called by the other."""
    read = read_model(blocks(16, inner))
    assert [function.name for function in read.functions] == ["Block", "Act"]
    assert len(read.graph.node) == 3
    assert onnx_upscale.optimize(blocks(16, inner)).report.verify.ok


def test_functions_that_somebody_has_a_rule_for_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inlining, "SPARED", {(OWN, "Act")})
    read = read_model(blocks())
    assert [function.name for function in read.functions] == ["Act"]
    assert [node.op_type for node in read.graph.node if node.domain] == ["Act", "Act"]
    x = {"x": np.ones((5, 4), np.float32)}
    for one, other in zip(run(blocks(), x), run(read, x), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_function_that_nobody_calls_is_none_of_our_business() -> None:
    model = blocks()
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("MatMul", ["x", "w1"], ["out"]))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 16
    assert [function.name for function in read_model(model).functions] == ["Block", "Act"]
