"""Weights that several layers share, of which masks mean one alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnx_upscale
from build import Net, assert_close, run

SIZE = 32
HALF = list(range(0, SIZE, 2))
STRATEGIES = ("auto", "gather", "upscale")


def twice(
    rows: int = 1, op: str = "MatMul", bias: bool = False, groups: int = 1
) -> onnx.ModelProto:
    """Two layers of one weight that read the input of the model and make its outputs."""
    shape = (rows, SIZE, 3, 3) if op == "Conv" else (rows, SIZE)
    net = Net(13, x=shape)
    size = (SIZE, SIZE // groups, 1, 1) if op == "Conv" else (SIZE, SIZE)
    weight = net.constant(net.random(*size), "w")
    given: dict[str, Any] = {"group": groups} if groups > 1 else {}
    biases = [net.constant(net.random(SIZE), f"{name}.bias") for name in "ab" if bias]
    made = [
        net(op, "x", weight, *biases[at : at + 1], name=name, **given)
        for at, name in enumerate("ab")
    ]
    return net.model(*(net("Exp", each) for each in made))


def weights(model: onnx.ModelProto) -> int:
    return sum(math.prod(tensor.dims) for tensor in model.graph.initializer)


def optimized(model: onnx.ModelProto, masks: dict[str, Any], strategy: str = "auto") -> Any:
    document = {"version": 1, "masks": masks}
    result = onnx_upscale.optimize(model, document, strategy=strategy)
    assert result.report.verify.ok
    onnx.checker.check_model(result.model, full_check=True)
    return result.model


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("op", ["MatMul", "Gemm", "Conv"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("sides", [("input",), ("output",), ("input", "output")])
def test_a_mask_on_one_use_does_not_double_the_weight(
    strategy: str, op: str, bias: bool, sides: tuple[str, ...]
) -> None:
    bias = bias and op != "MatMul"
    model = twice(1, op, bias)
    emitted = optimized(model, {"b": {side: HALF for side in sides}}, strategy)
    assert weights(emitted) <= weights(model) + len(sides) * SIZE
    # By hand, beside verification: zero is exp(0) at the masked outputs, and nothing else changes.
    values = {"x": np.random.default_rng(0).standard_normal(_shape(model)).astype(np.float32)}
    (before, _), (same, got) = run(model, values), run(emitted, values)
    assert_close([before], [same])
    assert ((got[:, HALF] == 1).all()) == ("output" in sides)


def _shape(model: onnx.ModelProto) -> list[int]:
    return [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]


def test_a_mask_on_what_is_zero_already_changes_nothing() -> None:
    model = twice()
    for sides in (["input"], ["input", "output"]):
        emitted = optimized(model, {"b": {side: [] for side in sides}})
        assert weights(emitted) == SIZE * SIZE
        assert "Mul" not in {node.op_type for node in emitted.graph.node}


def test_two_masks_on_one_side() -> None:
    emitted = optimized(twice(), {"b": {"input": [1, 2]}, "b.0": {"input": [2, 3]}})
    assert weights(emitted) == SIZE * SIZE + SIZE


def test_other_masks_on_each_use() -> None:
    model = twice()
    emitted = optimized(model, {"a": {"input": HALF}, "b": {"input": [1, 2, 3]}})
    assert weights(emitted) == SIZE * SIZE + 2 * SIZE


def test_the_same_mask_on_each_use_is_written_into_the_weight() -> None:
    model = twice()
    for masks in ({"w": {"input": HALF}}, {"a": {"input": HALF}, "b": {"input": HALF}}):
        emitted = optimized(model, masks)
        assert weights(emitted) == SIZE * SIZE
        assert [node.op_type for node in emitted.graph.node] == ["MatMul", "MatMul", "Exp", "Exp"]


def test_a_use_that_becomes_smaller_leaves_the_weight_to_the_other() -> None:
    net = Net(13, x=(1, SIZE))
    weight = net.constant(net.random(SIZE, SIZE), "w")
    hidden = net("Relu", net("MatMul", "x", weight, name="a"))
    model = net.model(net("MatMul", hidden, weight, name="b"))
    emitted = optimized(model, {"a": {"input": [1]}, "b": {"input": HALF}})
    assert weights(emitted) == SIZE * SIZE  # One half for each.
    assert [node.op_type for node in emitted.graph.node] == ["MatMul", "Relu", "MatMul"]


def test_a_copy_is_made_where_more_would_be_multiplied() -> None:
    emitted = optimized(twice(rows=SIZE + 1), {"b": {"input": HALF}})
    assert weights(emitted) == 2 * SIZE * SIZE
    assert "Mul" not in {node.op_type for node in emitted.graph.node}


def test_grouped_weights_are_copied() -> None:
    emitted = optimized(twice(op="Conv", groups=2), {"b": {"input": HALF}})
    assert weights(emitted) == SIZE * SIZE


def language_model() -> onnx.ModelProto:
    """An embedding, a layer beside it, and a head whose weight is the table of the embedding."""
    net = Net(13)
    net.inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ("batch", "length"))]
    table = net.constant(net.random(1000, 16), "w")
    hidden = net("Gather", table, "ids")
    wide = net("Relu", net("MatMul", hidden, net.random(16, 16), name="inner"))
    hidden = net("Add", hidden, wide)
    logits = net("MatMul", hidden, net("Transpose", table, perm=[1, 0]), name="head")
    outputs = [helper.make_tensor_value_info(logits, TensorProto.FLOAT, ("batch", "length", 1000))]
    graph = helper.make_graph(net.nodes, "tied", net.inputs, outputs, net.initializers)
    opset = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8)


@pytest.mark.parametrize("key", ["w", "head"])
def test_an_embedding_and_the_head_that_is_its_transpose(key: str) -> None:
    emitted = optimized(language_model(), {key: {"input": [14, 15]}})
    assert weights(emitted) <= 1000 * 16 + 16 * 16 + 16


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_channels_leave_an_embedding_and_its_head_together(strategy: str) -> None:
    gone = [1, 3, 5, 6]
    masks = {"inner": {"input": gone}, "w": {"input": gone}}
    emitted = optimized(language_model(), masks, strategy)
    assert weights(emitted) == 1000 * 12 + 12 * 12


def test_a_head_that_reads_less_than_the_embedding_gives_has_its_own_weight() -> None:
    emitted = optimized(language_model(), {"w": {"input": [1, 3, 5, 6]}}, "gather")
    stored = sorted(list(tensor.dims) for tensor in emitted.graph.initializer if tensor.dims != [1])
    assert [12, 1000] in stored
    assert [1000, 16] in stored


def test_a_head_with_a_mask_of_its_own_has_its_own_weight() -> None:
    gone = [1, 3, 5, 6]
    masks = {"inner": {"input": gone}, "w": {"input": [*gone, 15]}}
    emitted = optimized(language_model(), masks)
    assert weights(emitted) > 1000 * 12 + 1000 * 11


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("op", ["MatMul", "Gemm", "Conv"])
def test_two_uses_that_lose_as_much_but_not_the_same(strategy: str, op: str) -> None:
    """What is cut off them is the same, which is nothing; their masked weights are not."""
    masks = {"a": {"input": [3], "output": [1, 8]}, "b": {"input": [4], "output": [2, 9]}}
    optimized(twice(2, op), masks, strategy)
