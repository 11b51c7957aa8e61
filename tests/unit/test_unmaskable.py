"""What is said of layers that are in a model and that no mask can act on."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_upscale
from build import Net
from onnx_upscale import MaskError, UsageError


def listed(*names: str, ir_version: int = 8) -> onnx.ModelProto:
    """Two layers; some of their initializers are listed among the inputs."""
    net = Net(13, x=(1, 4))
    made = net("MatMul", "x", net.constant(net.random(4, 8), "w1"), name="first")
    turned = net("Transpose", net.constant(net.random(4, 8), "w2"), perm=[1, 0])
    model = net.model(net("MatMul", net("Relu", made), turned, name="second"))
    model.ir_version = ir_version
    model.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in model.graph.initializer
        if tensor.name in names
    )
    return model


def refusal(model: onnx.ModelProto, key: str) -> str:
    with pytest.raises(MaskError) as caught:
        onnx_upscale.optimize(model, {"version": 1, "masks": {key: {"input": [0]}}})
    return str(caught.value)


@pytest.mark.parametrize("key", ["w2", "second", "second.0"])
def test_a_weight_that_a_caller_may_override_is_named_as_such(key: str) -> None:
    said = refusal(listed("w2"), key)
    assert said.startswith(f"mask '{key}', side 'input': a caller may override ")
    assert "listed among the inputs" in said
    assert "'w2'" in said or "this weight" in said


def test_the_other_weights_of_such_a_model_are_masked_as_ever() -> None:
    masks = {"version": 1, "masks": {"w1": {"output": [1, 2]}}}
    result = onnx_upscale.optimize(listed("w2"), masks)
    assert result.report.verify.ok
    assert result.report.warnings


def test_in_older_models_they_are_weights() -> None:
    masks = {"version": 1, "masks": {"w2": {"input": [1, 2]}}}
    result = onnx_upscale.optimize(listed("w1", "w2", ir_version=3), masks)
    assert result.report.output.params == 6 * 4 * 2
    given = {tensor.name for tensor in result.model.graph.initializer}
    assert {value.name for value in result.model.graph.input} == {"x", *given}


def test_without_a_layer_every_way_says_so() -> None:
    model = listed("w1", "w2")
    (warning,) = onnx_upscale.optimize(model).report.warnings
    assert warning.startswith("nothing is removed: a caller may override its weights, as 'w1'")
    with pytest.raises(UsageError, match="no layer to prune: a caller may override its weights"):
        onnx_upscale.mask(model, criterion="l1", amount=0.5)
    samples = [{"x": np.ones((1, 4), np.float32)}] * 8
    with pytest.raises(UsageError, match="no layer to prune: a caller may override its weights"):
        onnx_upscale.prune(model, samples, macs=0.5)


def test_a_weight_that_is_computed_is_not_called_overridable() -> None:
    net = Net(13, x=(4, 4))
    model = net.model(net("MatMul", "x", net("Relu", "x"), name="only"))
    assert "is not constant, or the shapes" in refusal(model, "only")


def branch(name: str) -> onnx.GraphProto:
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), f"{name}.weight")
    return helper.make_graph(
        [helper.make_node("MatMul", ["x", weight.name], [f"{name}.out"], f"{name}.layer")],
        name,
        [],
        [helper.make_tensor_value_info(f"{name}.out", TensorProto.FLOAT, [1, 4])],
        [weight],
    )


@pytest.mark.parametrize("key", ["yes.weight", "yes.layer", "no.out"])
def test_a_layer_inside_a_body_is_called_by_its_path(key: str) -> None:
    net = Net(13, x=(1, 4))
    answer = net.constant(np.array(True))
    made = net("If", answer, name="choice", then_branch=branch("yes"), else_branch=branch("no"))
    path = f"choice/{'then' if key.startswith('yes') else 'else'}_branch/{key}"
    assert refusal(net.model(made), key) == (
        f"mask '{key}', side 'input': it is inside the body of a node, and called {path}"
    )
    assert onnx_upscale.optimize(net.model(made), {"version": 1, "masks": {path: {"input": [0]}}})


def test_a_layer_inside_another_subgraph_is_said_to_be_there() -> None:
    """SequenceMap has a body too, but nothing is known here of what it does with it."""
    net = Net(17, x=(1, 4))
    inner = branch("inner")
    inner.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4]))
    model = net.model(net("Relu", "x"))
    sequence = helper.make_node("SequenceConstruct", ["x"], ["many"])
    mapped = helper.make_node("SequenceMap", ["many"], ["made"], "each", body=inner)
    model.graph.node.extend([sequence, mapped])
    assert refusal(model, "inner.layer").endswith(
        "it is inside node 'each' (SequenceMap), where no mask can act"
    )


def with_function(opset: int) -> onnx.ModelProto:
    """Twice a product that stands in a function, written for an operator set."""
    net = Net(13, x=(1, 4))
    model = net.model(net("Relu", "x"))
    body = [helper.make_node("MatMul", ["a", "b"], ["c"], "deep")]
    dense = helper.make_function(
        "own", "Dense", ["a", "b"], ["c"], body, [helper.make_opsetid("", opset)]
    )
    model.functions.append(dense)
    model.opset_import.append(helper.make_opsetid("own", 1))
    for number in range(2):
        weight = np.ones((4, 4), np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, f"b{number}"))
        call = helper.make_node("Dense", ["x", f"b{number}"], [f"d{number}"], domain="own")
        model.graph.node.append(call)
        made = helper.make_tensor_value_info(f"d{number}", TensorProto.FLOAT, [1, 4])
        model.graph.output.append(made)
    return model


def test_a_layer_inside_a_function_is_called_otherwise() -> None:
    said = refusal(with_function(13), "deep")
    assert said.endswith("functions are inlined, and there it is called deep__1, deep__2")


def test_a_layer_inside_a_function_that_stays_is_said_to_be_there() -> None:
    assert "it is inside function 'own.Dense'" in refusal(with_function(12), "deep")
