"""The bound of tools/sweep.py, on models small enough to count by hand."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest

from attention import CHANNELS, FLAT, HEADS, TOKENS, WIDTH, Attention, of_each
from build import Net, input_values
from case import Masks
from masked import masked
from sweeping.known import named
from sweeping.layers import case, find, random_masks

pytest.importorskip("torch")

from sweeping.bound import Bound, bound, wanted

PLACES = 6 * 6


def found(model: onnx.ModelProto, masks: Masks) -> Bound:
    names = named(model)
    keys = {layer.key: layer.key for layer in find(names)}
    keys |= {node.name: node.output[0] for node in model.graph.node}
    renamed = {keys[name]: sides for name, sides in masks.items()}
    reference = masked(case(names, list(find(names)), renamed))
    return bound(reference, input_values(model), wanted(names, input_values(model)))


def chain(between: str = "Relu") -> onnx.ModelProto:
    net = Net(18, x=(1, 4, 6, 6))
    first = net("Conv", "x", net.random(16, 4, 3, 3), pads=[1] * 4, name="first")
    middle = net(between, first) if between else first
    if between == "Sigmoid":
        middle = net("Identity", middle)
    return net.model(net("Conv", middle, net.random(8, 16, 3, 3), pads=[1] * 4, name="second"))


FIRST, SECOND = PLACES * 9 * 4, PLACES * 9 * 8
"""Multiply-adds of the chain per channel between its layers."""


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_channel_between_two_layers_leaves_both(side: str) -> None:
    name = "second" if side == "input" else "first"
    limit = found(chain(), {name: {side: [1, 5, 7]}})
    assert limit.full == 16 * (FIRST + SECOND)
    assert limit.coupled == limit.free == 13 * (FIRST + SECOND)
    assert not limit.opaque


def test_what_is_constant_stays_where_its_reader_pads() -> None:
    limit = found(chain("Sigmoid"), {"first": {"output": [1, 5, 7]}})
    assert limit.free == 16 * SECOND + 13 * FIRST
    assert limit.coupled == limit.full


@pytest.mark.parametrize("pads", [0, 1])
def test_what_is_constant_stays_where_it_differs_from_place_to_place(pads: int) -> None:
    net = Net(18, x=(1, 4, 8, 8))
    first = net("Sigmoid", net("Conv", "x", net.random(16, 4, 1, 1), name="first"))
    each = net("Conv", first, net.random(16, 1, 3, 3), pads=[pads] * 4, group=16)
    model = net.model(net("Conv", each, net.random(8, 16, 1, 1), name="second"))
    limit = found(model, {"first": {"output": [1, 5, 7]}})
    (*_, (_, _, left)) = limit.by_node
    assert left == (16 if pads else 13) * (8 + 2 * pads - 2) ** 2 * 8


def test_a_constant_that_an_activation_makes_zero_leaves() -> None:
    net = Net(18, x=(1, 4, 6, 6))
    first = net("Conv", "x", net.random(16, 4, 1, 1), name="first")
    below = net("Relu", net("Sub", net("Abs", first), np.full((1, 1, 1), 0.1, np.float32)))
    model = net.model(net("Conv", below, net.random(8, 16, 3, 3), pads=[1] * 4, name="second"))
    limit = found(model, {"first": {"output": [1, 5, 7]}})
    assert limit.coupled == 13 * PLACES * (4 + 9 * 8)


def test_who_writes_into_a_sum() -> None:
    net = Net(18, x=(1, 4, 6, 6))
    made = [net("Conv", "x", net.random(16, 4, 1, 1), name=name) for name in "ab"]
    net_sum = net("Add", *made)
    model = net.model(net("Conv", net_sum, net.random(8, 16, 1, 1), name="c"))
    limit = found(model, {"a": {"output": [0, 1]}, "b": {"output": [1, 2]}, "c": {"input": [9]}})
    left = 16 - 2
    assert limit.coupled == PLACES * (2 * left * 4 + left * 8)
    assert limit.free == PLACES * ((left - 1) * 2 * 4 + left * 8)


def test_groups_keep_as_many_as_the_fullest() -> None:
    net = Net(18, x=(1, 4, 6, 6))
    first = net("Conv", "x", net.random(12, 4, 1, 1), name="a")
    grouped = net("Conv", first, net.random(12, 4, 1, 1), group=3, name="g")
    model = net.model(net("Conv", grouped, net.random(8, 12, 1, 1), name="c"))
    limit = found(model, {"g": {"input": [0, 1, 4, 8, 9, 10, 11]}})
    # One group reads nothing, and what it makes is constant; of the others one reads three.
    assert limit.coupled == PLACES * (6 * 4 + 2 * 3 * 4 + 8 * 8)


def test_heads_keep_as_many_as_the_fullest() -> None:
    model = Attention("separate", {}).attention()
    masks: Masks = {"q": {"output": [0, WIDTH]}, "k": {"output": [1, WIDTH + 1, 2 * WIDTH + 1]}}
    masks["o"] = {"input": of_each(2)}
    limit = found(model, masks)
    rows, left = 2 * TOKENS, HEADS * (WIDTH - 1)
    layers = 3 * rows * CHANNELS * left + rows * left * CHANNELS
    products = 2 * 2 * HEADS * TOKENS * TOKENS * (WIDTH - 1)
    assert limit.coupled == layers + products


def test_places_that_nobody_reads_are_not_for_masks_to_take() -> None:
    """Of two rows of scores, one is read, with and without masks."""
    net = Net(18, x=(1, 2, 4))
    queries, keys = (net("MatMul", "x", net.random(4, 6), name=name) for name in "qk")
    scores = net("MatMul", queries, net("Transpose", keys, perm=[0, 2, 1]))
    first = net("Slice", scores, net.ints(0), net.ints(1), net.ints(1))
    masks: Masks = {"q": {"output": [1, 4]}, "k": {"output": [1, 4]}}
    limit = found(net.model(first), masks)
    assert limit.full == 2 * 2 * 4 * 6 + 2 * 6 * 2
    assert limit.coupled == limit.full * 4 / 6


def test_random_masks_take_as_many_of_each_group() -> None:
    net = Net(18, x=(1, 12, 6, 6))
    grouped = net("Conv", "x", net.random(24, 4, 1, 1), group=3, name="g")
    alone = net("Conv", grouped, net.random(24, 1, 3, 3), group=24, name="alone")
    layers = list(find(named(net.model(net("Relu", alone)))))
    masks = random_masks(layers, "output", 0.3, 0)
    (sides,) = masks.values()
    assert np.bincount(np.array(sides["output"]) // 8).tolist() == [math.floor(8 * 0.3)] * 3
    assert FLAT == HEADS * WIDTH
