"""One constant that several inputs or nodes read, and parts of which nothing is there."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import Net, assert_close, input_values, run


def normalized(pruned: Sequence[int], slots: Sequence[int]) -> onnx.ModelProto:
    """A Conv and a BatchNormalization that has one constant in several slots."""
    net = Net(17, x=(1, 3, 4, 4))
    shared = np.abs(net.random(6)) + 0.5
    weight = net.random(6, 3, 1, 1)
    given = [np.abs(net.random(6)) + 0.5 for _ in range(4)]
    scale, bias = (shared.copy() if slot in slots else given[slot - 1].copy() for slot in (1, 2))
    for each in (weight, scale, bias):
        each[list(pruned)] = 0
    name = net.constant(shared, "shared")
    own = [name if slot in slots else value for slot, value in enumerate(given, 1)]
    if pruned:
        own[:2] = [scale, bias]
    hidden = net("BatchNormalization", net("Conv", "x", weight, name="conv"), *own)
    return net.model(net("Conv", net("Sigmoid", hidden), net.random(4, 6, 1, 1)))


@pytest.mark.parametrize("slots", [*itertools.combinations(range(1, 5), 2), (1, 2, 3, 4)])
def test_a_mask_changes_what_one_slot_holds_of_a_constant(slots: Sequence[int]) -> None:
    """It zeroes scale and bias, not the mean and the variance that are the same constant."""
    whole, masks = normalized((), slots), {"conv": {"output": [1, 4]}}
    for strategy in ("auto", "gather"):
        document = {"version": 1, "masks": masks}
        emitted = onnx_upscale.optimize(whole, document, strategy=strategy).model
        inputs = input_values(whole)
        assert_close(run(normalized((1, 4), slots), inputs), run(emitted, inputs))


@pytest.mark.parametrize("order", ["".join(order) for order in itertools.permutations("ABC")])
def test_what_is_cut_for_several_stands_before_all_of_them(order: Sequence[str]) -> None:
    """Whatever masks name first; a weight behind a DequantizeLinear is cut once."""
    net = Net(13, x=(2, 6))
    stored = net.rng.integers(-90, 90, (6, 6)).astype(np.int8)
    weight, tensor = net("DequantizeLinear", stored, np.float32(0.02)), "x"
    for name in "ABC":
        tensor = net("Relu", net("MatMul", tensor, weight, name=name))
    model = net.model(net("MatMul", tensor, net.random(6, 2)))
    masks = {name: {"input": [1, 4]} for name in order}
    emitted = onnx_upscale.optimize(model, {"version": 1, "masks": masks}).model
    onnx.checker.check_model(emitted, full_check=True)
    first = onnx_upscale.optimize(model, {"version": 1, "masks": dict(sorted(masks.items()))})
    assert emitted == first.model


@pytest.mark.parametrize("empty", ["input", "slice"])
def test_a_part_of_a_concat_may_be_empty(empty: str) -> None:
    """As a cache is at the first step."""
    net = Net(17, x=(2, 5), cache=(2, 0))
    made = net("MatMul", "x", net.random(5, 6), name="made")
    nothing = "cache"
    if empty == "slice":
        nothing = net("Slice", net("Neg", "x"), net.ints(0), net.ints(0), net.ints(1))
    whole = net("Concat", net("Relu", made), nothing, axis=1)
    model = net.model(net("MatMul", whole, net.random(6, 3), name="read"))
    masks = {"made": {"output": [1, 4]}, "read": {"input": [0]}}
    result = onnx_upscale.optimize(model, {"version": 1, "masks": masks})
    assert result.report.verify.ok
