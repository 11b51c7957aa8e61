"""Constants that onnxruntime has named may stand in its way when it loads a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_upscale
from build import Net
from mask_document import document
from onnx_upscale.optimizer.apply.generated import rename_generated

SHAPE = "gemm_input_shape_token_6"


def saved(into: str, back: str) -> onnx.ModelProto:
    """A model as onnxruntime saves it: one product on two axes, the two behind it without a bias.

    A mask on the first of these gives the second one a bias: then there is a MatMul to fuse.
    """
    net = Net(17, x=[2, 3, 8])
    flat = net("Reshape", "x", net.constant(np.array([6, 8]), into))
    made = net("Gemm", flat, net.random(8, 8), net.random(8))
    folded = net("Reshape", made, net.constant(np.array([2, 3, 8]), back))
    first = net("MatMul", net("Relu", folded), net.random(8, 8), name="first")
    return net.model(net("MatMul", net("Sigmoid", first), net.random(8, 8), name="second"))


def constants(model: onnx.ModelProto) -> list[str]:
    return [tensor.name for tensor in model.graph.initializer]


@pytest.mark.parametrize(
    ("into", "back"),
    [
        ("gemm_input_shape", "gemm_output_shape"),
        ("gemm_input_shape", "back"),
        ("into", "gemm_output_shape"),
    ],
)
def test_what_is_emitted_loads(into: str, back: str) -> None:
    model = saved(into, back)
    masks = document({"first.output": [2, 5]})
    found = onnx_upscale.optimize(model, masks).model  # Verified, so that it loads.
    assert "Add" in [node.op_type for node in found.graph.node]
    kept = {name: f"{name}.kept" for name in (into, back) if name.startswith("gemm_")}
    assert constants(found)[:4] == [kept.get(name, name) for name in constants(model)[:4]]
    assert constants(model)[0] == into  # What was read is left as it is.


def test_names_that_only_look_alike_stay() -> None:
    into, back = "my.gemm_input_shape", "gemm_output_shape_token_x"
    model = saved(into, back)
    model.graph.initializer[1].name = model.graph.node[1].input[1] = "cls_token_1"
    before = model.SerializeToString(deterministic=True)
    rename_generated(model.graph)
    assert model.SerializeToString(deterministic=True) == before
    names = constants(onnx_upscale.optimize(model, document({"first.output": [2]})).model)
    assert {into, back, "cls_token_1"} < set(names)


def body(shape: str, *own: onnx.TensorProto) -> onnx.GraphProto:
    reshape = helper.make_node("Reshape", ["x", shape], ["r"])
    made = helper.make_tensor_value_info("r", TensorProto.FLOAT, None)
    return helper.make_graph([reshape], "body", [], [made], own)


def graph_of(*nodes: onnx.NodeProto, outputs: tuple[str, ...] = ("y",)) -> onnx.GraphProto:
    shape = numpy_helper.from_array(np.array([3, 2]), SHAPE)
    inputs = [("x", TensorProto.FLOAT), ("flag", TensorProto.BOOL)]
    given = [helper.make_tensor_value_info(name, kind, None) for name, kind in inputs]
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    return helper.make_graph(nodes, "main", given, made, [shape])


def test_all_that_read_it_follow() -> None:
    own = numpy_helper.from_array(np.array([6]), SHAPE)
    branches: dict[str, Any] = {"then_branch": body(SHAPE), "else_branch": body(SHAPE, own)}
    graph = graph_of(
        helper.make_node("If", ["flag"], ["y"], f"{SHAPE}.kept", **branches),
        helper.make_node("Reshape", ["x", SHAPE], ["z"]),
    )
    graph.value_info.append(helper.make_tensor_value_info(SHAPE, TensorProto.INT64, [2]))
    note = graph.quantization_annotation.add(tensor_name=SHAPE)
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value=SHAPE)
    rename_generated(graph)
    new = f"{SHAPE}.kept.1"  # A node has the first name that comes to mind.
    assert graph.initializer[0].name == graph.value_info[0].name == new
    assert graph.node[1].input[1] == new
    assert note.tensor_name == note.quant_parameter_tensor_names[0].value == new
    inner = {attribute.name: attribute.g for attribute in graph.node[0].attribute}
    assert inner["then_branch"].node[0].input[1] == new
    assert inner["else_branch"].node[0].input[1] == inner["else_branch"].initializer[0].name


@pytest.mark.parametrize("as_input", [True, False])
def test_what_a_caller_sees_keeps_its_name(as_input: bool) -> None:
    node = helper.make_node("Reshape", ["x", SHAPE], ["y"])
    graph = graph_of(node, outputs=("y",) if as_input else ("y", SHAPE))
    if as_input:
        graph.input.append(helper.make_tensor_value_info(SHAPE, TensorProto.INT64, [2]))
    before = graph.SerializeToString(deterministic=True)
    rename_generated(graph)
    assert graph.SerializeToString(deterministic=True) == before
