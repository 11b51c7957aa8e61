"""Axes are split, shuffled and picked from, and what leaves is beside them: other sizes follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import Net, assert_close, input_values, run, weight_shape

TOKENS, CHANNELS = 6, 8
Build: TypeAlias = Callable[[Net, str], str]


def shuffled_tokens(net: Net, tensor: str) -> str:
    """Every third token side by side."""
    cut = net("Reshape", tensor, net.ints(2, 2, 3, CHANNELS))
    return net("Reshape", net("Transpose", cut, perm=[0, 2, 1, 3]), net.ints(2, TOKENS, CHANNELS))


def shuffled_channels(net: Net, tensor: str) -> str:
    cut = net("Reshape", tensor, net.ints(2, TOKENS, 2, 4))
    return net("Reshape", net("Transpose", cut, perm=[0, 1, 3, 2]), net.ints(2, TOKENS, CHANNELS))


def picked_tokens(net: Net, tensor: str) -> str:
    """Those of two kinds."""
    cut = net("Reshape", tensor, net.ints(2, 3, 2, CHANNELS))
    one, other = (net("Gather", cut, np.array(kind), axis=2) for kind in (1, 0))
    return net("Concat", one, other, axis=1)


def parted_tokens(net: Net, tensor: str) -> str:
    cut = net("Reshape", tensor, net.ints(2, 2, 3, CHANNELS))
    parts = net.nodes_of("Split", cut, net.ints(1, 1), outputs=2, axis=1)
    one, other = (net("Squeeze", part, net.ints(1)) for part in parts)
    return net("Concat", other, one, axis=1)


def sliced_tokens(net: Net, tensor: str) -> str:
    cut = net("Reshape", tensor, net.ints(2, 2, 3, CHANNELS))
    taken = net("Slice", cut, net.ints(1), net.ints(2), net.ints(1))
    other = net("Gather", cut, np.array(0), axis=1)
    return net("Concat", net("Squeeze", taken, net.ints(1)), other, axis=1)


def picked_channels(net: Net, tensor: str) -> str:
    """Two kinds of channels, which are tokens of their own behind."""
    cut = net("Reshape", tensor, net.ints(2, TOKENS, 2, 4))
    one, other = (net("Gather", cut, np.array(kind), axis=2) for kind in (1, 0))
    return net("Concat", one, other, axis=2)


def only_kind(net: Net, tensor: str) -> str:
    """An axis of one comes and goes."""
    cut = net("Reshape", tensor, net.ints(2, TOKENS, 1, CHANNELS))
    return net("Gather", cut, np.array(0), axis=2)


def turned_tokens(net: Net, tensor: str) -> str:
    """Tokens are split and merged with the batch, as heads are."""
    cut = net("Reshape", net("Transpose", tensor, perm=[0, 2, 1]), net.ints(2 * CHANNELS, 2, 3))
    cut = net("Reshape", cut, net.ints(2, CHANNELS, 2, 3))
    whole = net("Reshape", net("Transpose", cut, perm=[0, 3, 2, 1]), net.ints(2, 6, CHANNELS))
    return net("Relu", whole)


BUILDS = (
    shuffled_tokens,
    shuffled_channels,
    picked_tokens,
    parted_tokens,
    sliced_tokens,
    picked_channels,
    only_kind,
    turned_tokens,
)


def model(build: Build, channels: Sequence[int], tokens: Sequence[int]) -> onnx.ModelProto:
    """Channels and tokens are made, and read behind `build`, by two layers that miss some."""
    net = Net(17, x=(2, 4, 5))
    read, last = net.random(CHANNELS, 3), net.random(2, TOKENS)
    read[list(channels)] = 0
    last[:, list(tokens)] = 0
    hidden = net("MatMul", "x", net.random(5, CHANNELS), name="channels")
    hidden = net("MatMul", net.random(TOKENS, 4), hidden, name="tokens")
    found = net("MatMul", build(net, net("Sigmoid", hidden)), read, name="read")
    return net.model(net("MatMul", last, found, name="last"))


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("strategy", ["auto", "gather", "constrained"])
@pytest.mark.parametrize(
    ("channels", "tokens"),
    [((1, 4), ()), ((), (2, 5)), ((1, 4, 5), (0,)), ((0, 1, 2, 3), (3, 4, 5))],
)
def test_both_may_lose_some(
    build: Build, strategy: str, channels: Sequence[int], tokens: Sequence[int]
) -> None:
    whole, masks = model(build, (), ()), {}
    for name, pruned in (("read", channels), ("last", tokens)):
        if pruned:
            masks[name] = {"input": list(pruned)}
    emitted = onnx_upscale.optimize(whole, {"version": 1, "masks": masks}, strategy=strategy).model
    onnx.checker.check_model(emitted, full_check=True)
    if strategy != "constrained":
        inputs = input_values(whole)
        assert_close(run(model(build, channels, tokens), inputs), run(emitted, inputs))


@pytest.mark.parametrize("build", BUILDS)
def test_both_leave(build: Build) -> None:
    masks = {"read": {"input": [0, 2, 4, 6]}, "last": {"input": [0, 2, 3, 5]}}
    document = {"version": 1, "masks": masks}
    emitted = onnx_upscale.optimize(model(build, (), ()), document, strategy="gather").model
    assert weight_shape(emitted, "read") == (CHANNELS - 4, 3)
    if build is not turned_tokens:  # There tokens leave by rows and columns.
        assert weight_shape(emitted, "tokens", 0)[0] == TOKENS - 4
    if build is not picked_channels:  # Tokens differ in which of a kind they have.
        assert weight_shape(emitted, "channels") == (5, CHANNELS - 4)
