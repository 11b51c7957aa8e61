"""docs/rules.md by itself: its example is run as it stands."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnx_upscale
from build import Net
from onnx_upscale import VerifyError, rules
from onnx_upscale.rules import Context, UnclearError, rule

PAGE = Path(__file__).parents[2] / "docs" / "rules.md"
HALF = list(range(0, 8, 2))


@pytest.fixture(autouse=True)
def own_table() -> Iterator[None]:
    with mock.patch.dict(rules.RULES):
        yield


def parts() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_the_example_runs() -> None:
    known: dict[str, Any] = {"__name__": "example"}
    for part in parts():
        exec(compile(part, str(PAGE), "exec"), known)
    sizes = {tensor.name: list(tensor.dims) for tensor in known["result"].model.graph.initializer}
    assert sizes == {"w1": [16, 16], "bias": [16], "w2": [16, 16]}


def test_every_method_of_the_page_exists() -> None:
    tables = re.findall(r"^\| (`\w+\(.*?) \|", PAGE.read_text(), re.MULTILINE)
    named = re.findall(r"`(\w+)\(", " ".join(tables))
    assert len(named) > 10
    assert [name for name in named if not callable(getattr(Context, name, None))] == []


def test_the_example_left_no_rule_behind() -> None:
    assert ("my.domain", "BiasRelu") not in rules.RULES


def mlp(op: str, domain: str) -> onnx.ModelProto:
    """An operator of one input between two layers of 8 channels."""
    net = Net(17, x=(1, 4))
    hidden = net(op, net("MatMul", "x", net.constant(net.random(4, 8), "w1")), domain=domain)
    net.declare(hidden, (1, 8))
    result = net("MatMul", hidden, net.constant(net.random(8, 4), "w2"))
    graph = helper.make_graph(
        net.nodes,
        "mlp",
        net.inputs,
        [helper.make_tensor_value_info(result, TensorProto.FLOAT, (1, 4))],
        net.initializers,
        value_info=net.value_info,
    )
    versions = {domain: 1, "": net.opset}
    opsets = [helper.make_opsetid(name, version) for name, version in versions.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def masked(key: str, side: str) -> dict[str, Any]:
    return {"version": 1, "masks": {key: {side: HALF}}}


def sizes(model: onnx.ModelProto) -> dict[str, list[int]]:
    return {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}


def elementwise(how: str) -> None:
    @rule("QuickGelu", domain="com.microsoft")
    def quick_gelu(node: Context) -> None:
        for axis, labels in node.axes(0).items():
            node.pass_on(axis, labels, how)


def test_zeros_pass_where_the_rule_says_so() -> None:
    elementwise("zero")
    result = onnx_upscale.optimize(mlp("QuickGelu", "com.microsoft"), masked("w1", "output"))
    assert sizes(result.model) == {"w1": [4, 4], "w2": [4, 4]}


def test_what_nobody_knows_how_to_compute_is_not_evaluated() -> None:
    @rule("SampleOp", domain="com.microsoft")
    def sample(node: Context) -> None:
        for axis, labels in node.axes(0).items():
            node.pass_on(axis, labels, "evaluate")

    result = onnx_upscale.optimize(mlp("SampleOp", "com.microsoft"), masked("w1", "output"))
    assert sizes(result.model) == {"w1": [4, 8], "w2": [8, 4]}


def test_a_wrong_rule_is_refused_by_verification() -> None:
    @rule("Softmax")
    def softmax(node: Context) -> None:
        for axis, labels in node.axes(0).items():
            node.pass_on(axis, labels)

    with pytest.raises(VerifyError):
        onnx_upscale.optimize(mlp("Softmax", ""), masked("w2", "input"))


def test_an_unclear_use_pins_with_its_reason() -> None:
    @rule("QuickGelu", domain="com.microsoft")
    def quick_gelu(node: Context) -> None:
        raise UnclearError("not on a Tuesday")

    result = onnx_upscale.optimize(mlp("QuickGelu", "com.microsoft"), masked("w2", "input"))
    assert result.report["segments"][0]["pinned"] == ["QuickGelu: not on a Tuesday"]


def test_a_function_of_the_model_can_have_a_rule() -> None:
    model = mlp("Twice", "my.domain")
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    onnx_opset = [helper.make_opsetid("", 17)]
    model.functions.append(
        helper.make_function("my.domain", "Twice", ["a"], ["b"], body, onnx_opset)
    )
    del model.graph.value_info[:]

    @rule("Twice", domain="my.domain")
    def twice(node: Context) -> None:
        for axis, labels in node.axes(0).items():
            node.pass_on(axis, labels, "zero")

    result = onnx_upscale.optimize(model, masked("w2", "input"))
    assert sizes(result.model) == {"w1": [4, 4], "w2": [4, 4]}
    assert result.report["verify"]["ok"]
    assert np.isfinite(result.report["verify"]["max_abs"])
