"""Split attention: paths of a grouped convolution are weighed channel by channel and added up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import Net, assert_close, input_values, run, weight_shape
from targets import TARGETS

PATHS, READ, WIDTH = 2, 6, 8
STRATEGIES = ("auto", "upscale", "gather")


def build(
    read: Sequence[int] = (),
    unread: Sequence[int] = (),
    made: Sequence[int] = (),
    first: Sequence[int] = (),
) -> onnx.ModelProto:
    """Conv a, Conv b in groups, its gate, and Conv c, which reads the sum over the groups.

    Args:
        read: What c does without.
        unread: What b does without, of all that it reads.
        made: What b leaves zero.
        first: What a leaves zero.
    """
    net = Net(17, x=(2, 3, 5, 5))
    weight = net.random(PATHS * READ, 3, 1, 1)
    weight[list(first)] = 0
    tensor = net("Relu", net("Conv", "x", weight, name="a"))
    weight, bias = net.random(PATHS, WIDTH, READ, 3, 3), net.random(PATHS * WIDTH)
    for channel in unread:
        weight[channel // READ, :, channel % READ] = 0
    weight = weight.reshape(PATHS * WIDTH, READ, 3, 3)
    weight[list(made)], bias[list(made)] = 0, 0
    tensor = net("Relu", net("Conv", tensor, weight, bias, name="b", group=PATHS, pads=[1] * 4))
    paths = net("Reshape", tensor, net.ints(2, PATHS, WIDTH, 5, 5))
    pooled = net("GlobalAveragePool", net("ReduceSum", paths, net.ints(1), keepdims=0))
    less = net("Relu", net("Conv", pooled, net.random(4, WIDTH, 1, 1), name="less"))
    gate = net("Conv", less, net.random(PATHS * WIDTH, 4, 1, 1), name="gate")
    turned = net("Transpose", net("Reshape", gate, net.ints(2, 1, PATHS, WIDTH)), perm=[0, 2, 1, 3])
    shares = net("Reshape", net("Softmax", turned, axis=1), net.ints(2, PATHS, WIDTH, 1, 1))
    total = net("ReduceSum", net("Mul", paths, shares), net.ints(1), keepdims=0)
    weight = net.random(5, WIDTH, 1, 1)
    weight[:, list(read)] = 0
    return net.model(net("Conv", total, weight, name="c"))


def shapes(model: onnx.ModelProto, strategy: str) -> list[tuple[int, ...]]:
    """Output channels, and input channels of each group, of every layer."""
    result = onnx_upscale.optimize(model, strategy=strategy, target=TARGETS["blocks of 1"])
    inputs = input_values(model)
    assert_close(run(model, inputs), run(result.model, inputs), strategy)
    return [weight_shape(result.model, name)[:2] for name in ("a", "b", "less", "gate", "c")]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_channels_of_every_path_leave(strategy: str) -> None:
    """The gate's own squeeze reads the sum as well, so that only what is zero leaves."""
    gone = [1, 4, WIDTH + 1, WIDTH + 4, WIDTH + 5]
    found = shapes(build(made=gone), strategy)
    assert found == [(12, 3), (PATHS * 6, 6), (4, 6), (PATHS * 6, 4), (5, 6)]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_path_reads_channels_of_its_own(strategy: str) -> None:
    found = shapes(build(unread=[0, 1, READ + 1, READ + 5]), strategy)
    assert found[:2] == [(8, 3), (PATHS * WIDTH, 4)]


def test_a_channel_that_is_zero_in_one_path_stays() -> None:
    assert shapes(build(made=[1, WIDTH + 2]), "gather")[1] == (PATHS * WIDTH, READ)


def test_what_nobody_reads_stays_for_the_gate() -> None:
    assert shapes(build(read=[0, 3]), "gather")[1] == (PATHS * WIDTH, READ)


@pytest.mark.parametrize("zeroed", ["first", "unread"])
def test_a_path_that_reads_nothing_stays(zeroed: str) -> None:
    """Its channels are the bias, and lie in the sum with those of the other."""
    model = build(**{zeroed: list(range(READ))})
    assert shapes(model, "gather")[1] == (PATHS * WIDTH, READ)


def test_random_masks_under_every_strategy() -> None:
    random = np.random.default_rng(0)
    for _ in range(5):
        sizes = (WIDTH, PATHS * READ, PATHS * WIDTH, PATHS * READ)
        some = [random.random(size) < 0.3 for size in sizes]
        model = build(*(np.flatnonzero(each).tolist() for each in some))
        for strategy in STRATEGIES:
            shapes(model, strategy)
