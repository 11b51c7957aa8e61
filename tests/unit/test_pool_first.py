"""Averages that change places with the pointwise convolution before them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import Array, Net, assert_close, run
from onnx_upscale.optimizer.analyze import analyze, find_structure
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.plan import plan
from onnx_upscale.optimizer.plan.cost import Costs
from onnx_upscale.prices import load_prices
from targets import TARGETS

CHANNELS = 12
MASKS = {"version": 1, "masks": {"narrow": {"input": [1, 2, 7]}}}
DEAR = TARGETS["multiply-adds dear, blocks of 1"]
POOL: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}


def transition(
    convolution: dict[str, Any] | None = None,
    pool: dict[str, Any] | None = None,
    window: int = 1,
    groups: int = 1,
    op: str = "AveragePool",
    between: str = "",
    also: str = "",
    side: int = 8,
) -> onnx.ModelProto:
    """What ends a block of a DenseNet."""
    net: Any = Net(17, x=[1, 3, side, side])
    made = net("Relu", net("Conv", "x", net.random(CHANNELS, 3, 1, 1), net.random(CHANNELS)))
    weight = net.constant(net.random(6, CHANNELS // groups, window, window), "narrow")
    data = net(
        "Conv", made, weight, net.random(6), name="narrow", group=groups, **(convolution or {})
    )
    if between:
        data = net(between, data)
    pooled = net(op, data, name="pool", **POOL | (pool or {}))
    last = net("Conv", net("Relu", pooled), net.random(4, 6, 1, 1))
    ends = [last]
    if also == "output":
        ends.append(data)
    elif also == "reader":
        ends.append(net("GlobalMaxPool", data))
    elif also:
        ends.append(net("Conv", made, net.constant(net.random(3, CHANNELS, 1, 1), also)))
    result: onnx.ModelProto = net.model(*ends)
    return result


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def pools_first(target: str) -> bool:
    masks = {"version": 1, "masks": {"narrow": {"input": [1, 2, 7, 8]}}}  # Eight are left.
    model = onnx_upscale.optimize(transition(), masks, target=target).model
    assert {each.name: each.dims for each in model.graph.initializer}["narrow"][1] == 8
    return operators(model).index("AveragePool") == 2


def masked(model: onnx.ModelProto, masks: dict[str, Any]) -> onnx.ModelProto:
    """The same with zeros in its weights, by other means than the package has."""
    zeroed = onnx.ModelProto()
    zeroed.CopyFrom(model)
    for tensor in zeroed.graph.initializer:
        if tensor.name in masks["masks"]:
            value = onnx.numpy_helper.to_array(tensor).copy()
            value[:, masks["masks"][tensor.name]["input"]] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    return zeroed


def image(side: int = 8) -> dict[str, Array]:
    return {"x": np.random.default_rng(7).standard_normal((1, 3, side, side)).astype(np.float32)}


def test_an_average_comes_before_a_pointwise_convolution() -> None:
    model = transition()
    result = onnx_upscale.optimize(model, MASKS, target=DEAR)
    assert operators(result.model) == ["Conv", "Relu", "AveragePool", "Conv", "Relu", "Conv"]
    pool, narrow = result.model.graph.node[2:4]
    assert {each.name: list(each.ints) for each in pool.attribute} == POOL
    assert narrow.input[0] == pool.output[0]
    assert_close(run(masked(model, MASKS), image()), run(result.model, image()))
    onnx.checker.check_model(result.model, full_check=True)


def test_a_copy_comes_before_both() -> None:
    model = transition(also="other")
    masks = {"version": 1, "masks": {"narrow": {"input": [1, 7]}, "other": {"input": [2, 3]}}}
    target = TARGETS["copies free, blocks of 1"]
    result = onnx_upscale.optimize(model, masks, target=target)
    found = operators(result.model)
    assert "Slice" in found
    assert found.index("Slice") < found.index("AveragePool")
    (pool,) = (node for node in result.model.graph.node if node.op_type == "AveragePool")
    (copy,) = (node for node in result.model.graph.node if pool.input[0] in node.output)
    assert copy.op_type == "Slice"
    assert_close(run(masked(model, masks), image()), run(result.model, image()))


def test_a_masked_layer_that_reads_all_channels_comes_behind_too() -> None:
    """As somebody else needs all of them, and a copy would cost more than it saves."""
    model = transition(also="other")
    result = onnx_upscale.optimize(model, MASKS, target=TARGETS["blocks of 1"])
    assert result.report["copies"]["count"] == 0
    by_op = {node.op_type: node for node in result.model.graph.node}
    (narrow,) = (node for node in result.model.graph.node if node.name == "narrow")
    assert narrow.input[0] in by_op["AveragePool"].output
    assert_close(run(masked(model, MASKS), image()), run(result.model, image()))


def test_what_channels_of_known_value_add_stays() -> None:
    net: Any = Net(17, x=[1, 3, 8, 8])
    weight = net.random(CHANNELS, 3, 1, 1)
    weight[:5] = 0  # What is left of these channels is their bias.
    made = net("Relu", net("Conv", "x", weight, np.abs(net.random(CHANNELS))))
    data = net("Conv", made, net.constant(net.random(6, CHANNELS, 1, 1), "narrow"), net.random(6))
    model = net.model(net("AveragePool", data, **POOL))
    result = onnx_upscale.optimize(model, None, target=DEAR)
    assert operators(result.model) == ["Conv", "Relu", "AveragePool", "Conv"]
    assert result.model.graph.initializer[0].dims[0] == CHANNELS - 5
    assert_close(run(model, image()), run(result.model, image()))


def test_what_loses_nothing_is_left_alone() -> None:
    model = transition()
    assert operators(onnx_upscale.optimize(model, None, target=DEAR).model) == operators(model)


@pytest.mark.parametrize("strategy", ["gather", "upscale", "constrained"])
def test_only_auto_does_it(strategy: str) -> None:
    result = onnx_upscale.optimize(transition(), MASKS, target=DEAR, strategy=strategy)
    assert operators(result.model) == operators(transition())


def test_prices_decide() -> None:
    assert pools_first(DEAR)
    assert not pools_first(TARGETS["multiply-adds free"])


def test_whole_blocks_are_liked_where_an_average_may_come_first() -> None:
    structure = find_structure(load(transition()).graph)
    costs = Costs(structure, load_prices("cpu-avx512"))
    (narrow,) = (structure.layers[index] for index in structure.poolings)
    assert costs.liked(narrow, 18) == (20, 32)
    assert {(20,)} == {
        costs.liked(layer, 18) for layer in structure.layers.values() if layer is not narrow
    }


def test_predictions_count_it() -> None:
    prices = load_prices(DEAR)
    behind, before = (
        plan(analyze(load(each, MASKS).graph), "auto", prices)
        for each in (transition(pool={"ceil_mode": 1}), transition())
    )
    # Of nine channels that it reads it makes six, at 16 places in place of 64.
    assert behind.seconds - before.seconds == pytest.approx(9 * 6 * (64 - 16), rel=0.01)
    assert [kernel.inputs for kernel in before.kernels if kernel.family == "pool"] == [9]


def test_costs_are_those_of_the_structure_that_is_planned_for() -> None:
    prices = load_prices(TARGETS["multiply-adds free"])
    without = find_structure(load(transition(op="MaxPool")).graph)
    masks = {"version": 1, "masks": {"narrow": {"input": [1, 2, 7, 8]}}}
    analysis = analyze(load(transition(), masks).graph)
    kept, fresh = (plan(analysis, "auto", each) for each in (Costs(without, prices), prices))
    assert kept.edits.keys() == fresh.edits.keys()


@pytest.mark.parametrize(
    "net",
    [
        transition(pool={"pads": [1, 1, 1, 1]}),
        transition(pool={"pads": [1, 1, 1, 1], "count_include_pad": 1}),
        transition(pool={"auto_pad": "SAME_UPPER"}),
        transition(pool={"ceil_mode": 1}),
        transition({"pads": [1, 1, 1, 1]}),
        transition({"strides": [2, 2]}),
        transition({"pads": [1, 1, 1, 1]}, window=3),
        transition(groups=2),
        transition(op="MaxPool"),
        transition(between="Relu"),
        transition(also="output"),
        transition(also="reader"),
    ],
    ids=[
        "padded", "padding counts", "padded to the same size", "windows beyond the border",
        "padded convolution", "convolution in steps", "wider window", "groups", "a maximum",
        "something in between", "an output", "another reader",
    ],
)  # fmt: skip
def test_what_cannot_change_places(net: onnx.ModelProto) -> None:
    structure = find_structure(load(net).graph)
    assert not structure.poolings


@pytest.mark.parametrize("more", [{}, {"auto_pad": "VALID"}, {"pads": [0] * 4}], ids=str)
def test_what_can(more: dict[str, Any]) -> None:
    structure = find_structure(load(transition(more, more)).graph)
    assert [pool.title for pool in structure.poolings.values()] == ["pool"]
