"""Queries, keys and values of a single head, packed into one layer: an axis of one is no factor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import Net, assert_close, input_values, run, weight_shape
from targets import TARGETS

TOKENS, WIDTH = 4, 8
GONE = [0, 3, 6]
STRATEGIES = ("auto", "upscale", "gather")


# How the channels of all are split, and in which order the axes go on: kinds first, and kinds last.
PACKED = {
    "kinds first": ((3, 1, -1), (2, 0, 3, 1, 4)),
    "kinds last": ((1, -1, 3), (4, 0, 2, 1, 3)),
}


def build(
    read: Sequence[int], residual: bool, packed_as: str, width: int = WIDTH
) -> onnx.ModelProto:
    """Attention by one head, as Hiera and MViT begin.

    Args:
        read: What the projection does without.
        residual: Whether queries are added to what attention gives, as in MViT.
        packed_as: One of PACKED.
        width: Channels of the head.
    """
    net = Net(17, x=(2, TOKENS, 5))
    packed = net("MatMul", "x", net.random(5, 3 * width), name="qkv")
    packed = net("Add", net.random(3 * width), packed)
    split, order = PACKED[packed_as]
    packed = net("Reshape", packed, net.ints(2, TOKENS, *split))
    packed = net("Transpose", packed, perm=order)
    queries, keys, values = (
        net("Gather", packed, net.constant(np.array(kind)), axis=0) for kind in range(3)
    )
    scores = net("MatMul", queries, net("Transpose", keys, perm=[0, 1, 3, 2]))
    result = net("MatMul", net("Softmax", scores), values)
    if residual:
        result = net("Add", result, queries)
    result = net("Reshape", net("Transpose", result, perm=[0, 2, 1, 3]), net.ints(2, TOKENS, width))
    weight = net.random(width, 6)
    weight[list(read)] = 0
    return net.model(net("MatMul", result, weight, name="project"))


def shapes(model: onnx.ModelProto, strategy: str, target: str) -> list[tuple[int, ...]]:
    result = onnx_upscale.optimize(model, strategy=strategy, target=TARGETS[target], verify=False)
    inputs = input_values(model)
    assert_close(run(model, inputs), run(result.model, inputs), strategy)
    return [weight_shape(result.model, name) for name in ("qkv", "project")]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("packed_as", PACKED)
def test_queries_keep_the_order_of_what_they_are_added_to(
    packed_as: str, strategy: str, target: str
) -> None:
    model = build(GONE, residual=True, packed_as=packed_as)
    assert shapes(model, strategy, target)[0] == (5, 3 * WIDTH)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("packed_as", PACKED)
def test_values_that_nobody_reads_leave(packed_as: str, strategy: str) -> None:
    model = build(GONE, residual=False, packed_as=packed_as)
    found = shapes(model, strategy, "blocks of 1")
    assert found == [(5, 3 * WIDTH - len(GONE)), (WIDTH - len(GONE), 6)]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("packed_as", PACKED)
def test_what_is_zero_in_queries_or_in_keys_leaves_both(packed_as: str, strategy: str) -> None:
    gone = {0: [0, 3], 1: [3, 6]}
    model = build((), residual=False, packed_as=packed_as)
    places = np.arange(3 * WIDTH).reshape(PACKED[packed_as][0])
    kinds = places.reshape(3, WIDTH) if packed_as == "kinds first" else places.reshape(WIDTH, 3).T
    masks = {"qkv": {"output": [int(kinds[kind, at]) for kind in gone for at in gone[kind]]}}
    result = onnx_upscale.optimize(
        model, {"version": 1, "masks": masks}, strategy=strategy, target=TARGETS["blocks of 1"]
    )
    assert weight_shape(result.model, "qkv") == (5, 3 * WIDTH - 2 * len({0, 3, 6}))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("packed_as", PACKED)
def test_a_head_of_a_single_channel(packed_as: str, strategy: str) -> None:
    model = build((), residual=False, packed_as=packed_as, width=1)
    assert shapes(model, strategy, "blocks of 1") == [(5, 3), (1, 6)]
