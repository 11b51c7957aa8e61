"""Nodes in any order, as some converters write them, and what no order can mend."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnx_upscale
from build import Net, assert_close, input_values, run
from onnx_upscale.optimizer.load.model import read_model


def net() -> Net:
    net = Net(17, x=[1, 3, 6, 6])
    first = net("Conv", "x", net.random(8, 3, 3, 3), name="first")
    weight = net.random(4, 8, 1, 1)
    weight[:, [1, 4, 6]] = 0
    second = net("Conv", net("Relu", first, name="relu"), weight, name="second")
    net("Add", second, net("Sigmoid", second, name="gate"), name="sum")
    return net


def names(model: onnx.ModelProto) -> list[str]:
    return [node.name for node in model.graph.node]


def reordered(model: onnx.ModelProto, order: list[int]) -> onnx.ModelProto:
    """The model with its nodes in another order; each has a doc string that must survive."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.node[:]
    for index in order:
        node = changed.graph.node.add()
        node.CopyFrom(model.graph.node[index])
        node.doc_string = f"doc of {node.name}"
    return changed


@pytest.mark.parametrize("seed", range(8))
def test_unsorted_models_are_sorted(seed: int) -> None:
    model = net().model("sum.0")
    shuffled = reordered(model, np.random.default_rng(seed).permutation(5).tolist())
    emitted = onnx_upscale.optimize(shuffled).model
    onnx.checker.check_model(emitted, full_check=True)
    assert {node.doc_string for node in emitted.graph.node} == {f"doc of {n}" for n in names(model)}
    values = input_values(model)
    assert_close(run(model, values), run(emitted, values))
    again = onnx_upscale.optimize(shuffled).model
    assert again.SerializeToString() == emitted.SerializeToString()


def test_a_sorted_model_keeps_its_order() -> None:
    # One that depth first from the outputs, or breadth first from the inputs, would change.
    net = Net(17, x=[1, 4])
    late = net("Relu", "x", name="late")
    one = net("Sigmoid", "x", name="one")
    two = net("Tanh", one, name="two")
    other = net("Exp", "x", name="other")
    net("Sum", two, other, late, name="sum")
    model = net.model("sum.0")
    assert names(read_model(model)) == ["late", "one", "two", "other", "sum"]


def test_a_node_moves_only_in_front_of_its_first_reader() -> None:
    model = reordered(net().model("sum.0"), [0, 2, 4, 1, 3])  # first second sum relu gate
    assert names(read_model(model)) == ["first", "relu", "second", "gate", "sum"]


def test_what_a_subgraph_captures_is_made_before() -> None:
    scaled = helper.make_node("Mul", ["late", "half"], ["scaled"], "scaled")
    half = helper.make_node("Sqrt", ["late"], ["half"], "half")
    out = helper.make_tensor_value_info("scaled", TensorProto.FLOAT, None)
    then = helper.make_graph([scaled, half], "then", [], [out])  # Unsorted as well.
    same = helper.make_node("Identity", ["late"], ["scaled"], "same")
    otherwise = helper.make_graph([same], "otherwise", [], [out])
    choice = helper.make_node(
        "If", ["flag"], ["y"], "choice", then_branch=then, else_branch=otherwise
    )
    late = helper.make_node("Exp", ["x"], ["late"], "late")
    graph = helper.make_graph(
        [choice, late],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor("flag", TensorProto.BOOL, [], [True])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    emitted = onnx_upscale.optimize(model).model
    onnx.checker.check_model(emitted, full_check=True)
    assert names(emitted) == ["late", "choice"]


def test_a_name_made_inside_a_subgraph_is_no_capture() -> None:
    """A later node makes a tensor of the same name; waiting for it would be a false cycle."""
    inner = helper.make_node("Exp", ["x"], ["t"], "inner")
    out = helper.make_tensor_value_info("t", TensorProto.FLOAT, None)
    branches: dict[str, Any] = {
        side: helper.make_graph([inner], side, [], [out]) for side in ("then_branch", "else_branch")
    }
    choice = helper.make_node("If", ["flag"], ["y"], "choice", **branches)
    graph = helper.make_graph(
        [choice, helper.make_node("Relu", ["y"], ["t"], "later")],
        "net",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4]),
            helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, [1, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    assert names(read_model(model)) == ["choice", "later"]


def test_a_long_chain_in_reverse() -> None:
    net = Net(17, x=[1, 4])
    tensor = "x"
    for number in range(5000):
        tensor = net("Relu", tensor, name=f"n{number}")
    graph = helper.make_graph(
        net.nodes[::-1],
        "net",
        net.inputs,
        [helper.make_tensor_value_info(tensor, TensorProto.FLOAT, [1, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    assert names(read_model(model)) == [node.name for node in net.nodes]


def broken(what: str) -> onnx.ModelProto:
    model = net().model("sum.0")
    relu = next(node for node in model.graph.node if node.name == "relu")
    if what == "cycle":
        relu.op_type = "Add"
        relu.input.append("second.0")
    elif what == "self":
        relu.input[0] = relu.output[0]
    elif what == "missing":
        relu.input[0] = "nowhere"
    else:
        model.graph.output[0].name = "nowhere"
    return model


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            "cycle",
            "nodes 'relu' (Add), 'second' (Conv) form a cycle, so none can run: the model is",
        ),
        ("self", "nodes 'relu' (Relu) form a cycle"),
        ("missing", "node 'relu' (Relu) reads tensor 'nowhere', which nothing makes: the model is"),
        ("output", "graph output 'nowhere' is made by no node: the model is broken"),
    ],
)
def test_what_no_order_mends(what: str, message: str) -> None:
    with pytest.raises(onnx_upscale.ModelError) as refused:
        onnx_upscale.optimize(broken(what))
    assert message in str(refused.value)
