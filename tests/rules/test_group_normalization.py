"""Normalizations in groups, in every form that exporters write: whole groups leave, no others."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import Net, assert_close, input_values, run, weight_shape
from targets import TARGETS

CHANNELS, GROUPS, SIZE = 24, 6, 5
EACH = CHANNELS // GROUPS
FORMS = ("by-group", "by-channel", "fixed", "shape", "open")


def build(form: str, pruned: Sequence[int] = (), side: str = "input") -> onnx.ModelProto:
    """Conv, the normalization, Relu, and two readers of the same channels."""
    opset = {"by-group": 18, "by-channel": 21}.get(form, 17)
    batch: int | str = "batch" if form == "open" else 2
    net = Net(opset, x=(batch, 3, SIZE, SIZE))
    first, last = net.random(CHANNELS, 3, 3, 3), net.random(5, CHANNELS, 1, 1)
    bias = net.random(CHANNELS)
    if side == "input":
        last[:, list(pruned)] = 0
    else:
        first[list(pruned)] = bias[list(pruned)] = 0
    made = net("Conv", "x", first, bias, name="first", pads=[1, 1, 1, 1])
    if form in ("by-group", "by-channel"):
        count = GROUPS if form == "by-group" else CHANNELS
        normed = net(
            "GroupNormalization", made, net.random(count), net.random(count), num_groups=GROUPS
        )
        net.declare(normed, (2, CHANNELS, SIZE, SIZE))
    else:
        ones = np.ones(GROUPS, np.float32)
        split = net("Reshape", made, net.ints(0, GROUPS, -1))
        normed = net("InstanceNormalization", split, ones, 0 * ones)
        sizes = net.ints(2, CHANNELS, SIZE, SIZE) if form == "fixed" else net("Shape", made)
        back = net("Reshape", normed, sizes)
        scaled = net("Mul", back, net.random(CHANNELS, 1, 1))
        normed = net("Add", scaled, net.random(CHANNELS, 1, 1))
    return net.model(net("Conv", net("Relu", normed), last, name="last"))


def group(*numbers: int) -> list[int]:
    return [EACH * number + place for number in numbers for place in range(EACH)]


def check(form: str, pruned: Sequence[int], side: str = "input", **how: Any) -> onnx.ModelProto:
    key = "last" if side == "input" else "first"
    masks = {"version": 1, "masks": {key: {side: list(pruned)}}}
    model = build(form)
    emitted = onnx_upscale.optimize(model, masks, verify=False, **how).model
    inputs = input_values(model)
    assert_close(run(build(form, pruned, side), inputs), run(emitted, inputs), str(pruned))
    return emitted


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("strategy", ["auto", "upscale", "gather", "constrained"])
def test_whole_groups_leave(form: str, strategy: str) -> None:
    made = check(form, group(1, 4), strategy=strategy, target=TARGETS["blocks of 1"])
    assert weight_shape(made, "first")[0] == weight_shape(made, "last")[1] == CHANNELS - 2 * EACH
    for node in made.graph.node:
        if node.op_type == "GroupNormalization":
            (count,) = (a.i for a in node.attribute if a.name == "num_groups")
            assert count == GROUPS - 2


@pytest.mark.parametrize("form", FORMS)
def test_what_is_no_whole_group_stays(form: str) -> None:
    pruned = [0, 1, 2, *group(2), EACH * 3 + 1]
    made = check(form, pruned, strategy="gather")
    assert weight_shape(made, "first")[0] == CHANNELS - EACH


@pytest.mark.parametrize("form", FORMS[2:])
def test_groups_that_are_zero_leave(form: str) -> None:
    made = check(form, [*group(0, 5), 9], side="output", strategy="gather")
    assert weight_shape(made, "first")[0] == CHANNELS - 2 * EACH


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("target", TARGETS)
def test_random_masks_at_any_price(form: str, target: str) -> None:
    rng = np.random.default_rng(FORMS.index(form))
    for side, share in itertools.product(("input", "output"), (0.3, 0.7)):
        gone = rng.random(CHANNELS) < 0.2
        gone |= (rng.random(GROUPS) < share).repeat(EACH)
        check(form, np.flatnonzero(gone)[: CHANNELS - 1].tolist(), side, target=TARGETS[target])


@pytest.mark.parametrize("size", [3, 30])
@pytest.mark.parametrize("sizes", ["fixed", "shape"])
def test_one_group_of_all_keeps_all_and_its_readers_take_what_they_want(
    size: int, sizes: str
) -> None:
    """Channels become space and channels again, be they fewer than there are places or not."""
    net = Net(17, x=(1, 3, size, size))
    made = net("Conv", "x", net.random(CHANNELS, 3, 1, 1), name="first")
    ones = np.ones(1, np.float32)
    split = net("Reshape", made, net.ints(0, 1, -1))
    normed = net("InstanceNormalization", split, ones, 0 * ones)
    given = net.ints(1, CHANNELS, size, size) if sizes == "fixed" else net("Shape", made)
    back = net("Add", net("Reshape", normed, given), net.random(CHANNELS, 1, 1))
    model = net.model(net("Conv", back, net.random(5, CHANNELS, 1, 1), name="last"))
    masks = {"version": 1, "masks": {"last": {"input": [1, 2, 3]}}}
    result = onnx_upscale.optimize(model, masks, strategy="gather")
    assert result.report["verify"]["ok"]
    assert weight_shape(result.model, "first")[0] == CHANNELS
    assert weight_shape(result.model, "last")[1] == CHANNELS - 3
