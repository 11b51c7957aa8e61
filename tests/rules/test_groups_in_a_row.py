"""Grouped convolutions in a row, with the same groups: each group loses its own channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
from test_grouped_convolution import of_each, random_masks

import onnx_upscale
from build import Net, assert_close, input_values, run, weight_shape
from targets import TARGETS

GROUPS, READ, BETWEEN, MADE, SIZE = 4, 6, 5, 3, 5
LAYERS = {
    "a": (GROUPS * READ, 3),
    "b": (GROUPS * BETWEEN, GROUPS * READ),
    "c": (GROUPS * MADE, GROUPS * BETWEEN),
    "d": (5, GROUPS * MADE),
}
SIZES = {**LAYERS, "other": LAYERS["b"], "again": (GROUPS * BETWEEN, GROUPS * BETWEEN)}
BETWEENS = ("nothing", "norm", "joined", "depthwise", "squeezed", "three")
TRAPS = ("other groups", "shuffle", "read", "concat", "split", "also ungrouped")
Masks = Mapping[str, Sequence[int]]


def build(between: str, masks: Masks) -> onnx.ModelProto:
    """Conv a, grouped Convs b and c with something between them, Conv d."""
    net, middle = Net(17, 29, x=(2, 3, SIZE, SIZE)), GROUPS * BETWEEN

    def gone(key: str) -> list[int]:
        return list(masks.get(key, ()))

    def conv(tensor: str, name: str, groups: int = 1) -> str:
        outputs, inputs = SIZES[name]
        weight = net.random(groups, outputs // groups, inputs // groups, 3, 3)
        for channel in gone(f"{name}.input"):
            weight[channel // (inputs // groups), :, channel % (inputs // groups)] = 0
        weight, bias = weight.reshape(outputs, -1, 3, 3), net.random(outputs)
        weight[gone(f"{name}.output")] = 0
        bias[gone(f"{name}.output")] = 0
        return net("Conv", tensor, weight, bias, name=name, group=groups, pads=[1, 1, 1, 1])

    extra: list[str] = []
    start = net("Relu", conv("x", "a"))
    tensor = net("Relu", conv(start, "b", GROUPS))
    if between == "norm":
        parameters = (net.random(middle) for _ in range(3))
        tensor = net("BatchNormalization", tensor, *parameters, np.abs(net.random(middle)))
        tensor = net("Relu", tensor)
    elif between == "joined":
        tensor = net("Add", tensor, conv(start, "other", GROUPS))
    elif between == "depthwise":
        tensor = net("Conv", tensor, net.random(middle, 1, 3, 3), group=middle, pads=[1] * 4)
    elif between == "squeezed":
        less = net("Conv", net("GlobalAveragePool", tensor), net.random(4, middle, 1, 1))
        gate = net("Conv", net("Relu", less), net.random(middle, 4, 1, 1))
        tensor = net("Mul", tensor, net("Sigmoid", gate))
    elif between == "three":
        tensor = net("Relu", conv(tensor, "again", GROUPS))
    elif between == "other groups":
        tensor = net("Conv", tensor, net.random(middle, middle // 2, 1, 1), group=2)
    elif between == "shuffle":
        parts = net("Reshape", tensor, net.ints(2, GROUPS, BETWEEN, SIZE, SIZE))
        turned = net("Transpose", parts, perm=[0, 2, 1, 3, 4])
        tensor = net("Reshape", turned, net.ints(2, middle, SIZE, SIZE))
    elif between == "read":
        extra.append(tensor)
    elif between == "concat":
        both = net("Concat", tensor, net("Conv", "x", net.random(4, 3, 1, 1)), axis=1)
        extra.append(net("Conv", both, net.random(2, middle + 4, 1, 1)))
    elif between == "split":
        first, second = net.nodes_of("Split", tensor, net.ints(10, 10), outputs=2, axis=1)
        tensor = net("Concat", net("Relu", first), net("Sigmoid", second), axis=1)
    elif between == "also ungrouped":
        extra.append(net("Conv", tensor, net.random(2, middle, 1, 1)))
    tensor = net("Sigmoid", conv(tensor, "c", GROUPS))
    return net.model(conv(tensor, "d"), *extra)


def check(
    between: str, masks: Masks, strategy: str = "gather", target: str = "cpu"
) -> list[tuple[int, ...]]:
    """Output channels, and input channels of each group, of a, b, c and d."""
    sides: dict[str, dict[str, list[int]]] = {}
    for key, pruned in masks.items():
        name, side = key.split(".")
        sides.setdefault(name, {})[side] = list(pruned)
    model, document = build(between, {}), {"version": 1, "masks": sides}
    result = onnx_upscale.optimize(
        model, document, strategy=strategy, target=target, verify=strategy == "constrained"
    )
    onnx.checker.check_model(result.model, full_check=True)
    inputs = input_values(model)
    if strategy != "constrained":
        assert_close(run(build(between, masks), inputs), run(result.model, inputs), f"{masks}")
    return [weight_shape(result.model, name)[:2] for name in "abcd"]


OWN = {
    "b.input": of_each(READ, [0, 1], [4, 5], [0, 5], [2, 3]),
    "c.input": of_each(BETWEEN, [0, 1], [3, 4], [0, 4], [2, 3]),
    "d.input": of_each(MADE, [2], [0], [1], [0]),
}


@pytest.mark.parametrize("between", ["nothing", "norm", "joined", "depthwise"])
@pytest.mark.parametrize("strategy", ["auto", "upscale", "gather"])
def test_each_group_loses_channels_of_its_own(between: str, strategy: str) -> None:
    masks = {**OWN, "other.input": OWN["b.input"]} if between == "joined" else OWN
    found = check(between, masks, strategy, TARGETS["blocks of 1"])
    assert found == [(4 * GROUPS, 3), (3 * GROUPS, 4), (2 * GROUPS, 3), (5, 2 * GROUPS)]


def test_groups_of_different_counts_go_down_to_the_largest() -> None:
    masks = {"c.input": of_each(BETWEEN, [0, 1, 2], [3, 4], [0], [2, 3])}
    assert check("nothing", masks)[1:3] == [(4 * GROUPS, READ), (MADE * GROUPS, 4)]


def test_what_is_zero_leaves_both() -> None:
    masks = {"b.output": of_each(BETWEEN, [0, 1], [3, 4], [0, 4], [2, 3])}
    assert check("nothing", masks)[1:3] == [(3 * GROUPS, READ), (MADE * GROUPS, 3)]


def test_a_whole_group_leaves_all_of_them_with_channels_of_others() -> None:
    masks = {
        "b.input": of_each(READ, [0], [], [2, 3], [4]),
        "c.input": of_each(BETWEEN, [0, 1], [], [0, 4], [2, 3]),
        "d.input": of_each(MADE, [2], [0, 1, 2], [1], [0]),
    }
    assert check("nothing", masks) == [(3 * 5, 3), (3 * 3, 5), (3 * 2, 3), (5, 3 * 2)]


def test_three_in_a_row() -> None:
    masks = {**OWN, "again.input": of_each(BETWEEN, [4], [2], [1, 0], [0])}
    assert check("three", masks) == [(16, 3), (16, 4), (8, 3), (5, 8)]


@pytest.mark.parametrize("between", ["other groups", "shuffle", "read", "concat", "split"])
def test_groups_stay_whole_where_others_want_their_order(between: str) -> None:
    """In the middle: at both ends nobody does, but groups are those of the middle."""
    found = check(between, OWN)
    assert found[1][0] == GROUPS * BETWEEN
    assert found[2][1] == BETWEEN


@pytest.mark.parametrize("between", BETWEENS + TRAPS)
@pytest.mark.parametrize("strategy", ["auto", "upscale", "gather", "constrained"])
def test_random_masks(between: str, strategy: str) -> None:
    for seed in range(6):
        check(between, random_masks(seed, LAYERS, GROUPS), strategy)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("between", ["norm", "joined", "three", "also ungrouped"])
def test_random_masks_at_any_price(between: str, target: str) -> None:
    for seed in range(3):
        check(between, random_masks(10 + seed, LAYERS, GROUPS), "auto", TARGETS[target])
