"""Heads whose queries, keys and values one layer makes head by head, and rotated heads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest

import onnx_upscale
from attention import CHANNELS, FLAT, HEADS, TOKENS, WIDTH, head, of_each
from build import Net, assert_close, input_values, run, weight_shape
from mask_document import Masks

BATCH = 2


class HeadNet(Net):
    """Attention with zeros where masks say so."""

    def __init__(self, masks: Masks) -> None:
        super().__init__(18, x=(BATCH, TOKENS, CHANNELS))
        self.masks = masks

    def linear(self, name: str, outputs: int) -> str:
        weight, bias = self.random(CHANNELS, outputs), self.random(outputs)
        gone = list(self.masks.get(name, ()))
        weight[:, gone] = 0
        bias[gone] = 0
        return self("Add", self("MatMul", "x", weight, name=name), bias)

    def by_heads(self, tensor: str) -> str:
        return self("Transpose", tensor, perm=[0, 2, 1, 3])

    def attended(self, queries: str, keys: str, values: str) -> onnx.ModelProto:
        turned = self("Transpose", keys, perm=[0, 1, 3, 2])
        scores = self("MatMul", self("Mul", queries, np.float32(0.5)), turned)
        mixed = self("MatMul", self("Softmax", scores, axis=-1), values)
        weight = self.random(FLAT, CHANNELS)
        weight[list(self.masks.get("o", ()))] = 0
        flat = self("Reshape", self.by_heads(mixed), self.ints(0, TOKENS, FLAT))
        return self.model(self("MatMul", flat, weight, name="o"))


def _split(net: HeadNet, cut: str, axis: int) -> list[str]:
    taken = net.nodes_of("Split", cut, net.ints(1, 1, 1), outputs=3, axis=axis)
    return [net("Squeeze", each, net.ints(axis)) for each in taken]


def interleaved(form: str, masks: Masks) -> onnx.ModelProto:
    """Each head has its queries, its keys and its values side by side, or channel by channel."""
    net = HeadNet(masks)
    flat = net.linear("qkv", 3 * FLAT)
    if form.startswith("beside"):
        cut = net("Reshape", flat, net.ints(0, TOKENS, HEADS, 3 * WIDTH))
        if form == "beside, split":
            parts = net.nodes_of("Split", cut, net.ints(*[WIDTH] * 3), outputs=3, axis=-1)
        else:
            ends = [(WIDTH * place, WIDTH * (place + 1)) for place in range(3)]
            parts = [net("Slice", cut, net.ints(a), net.ints(b), net.ints(3)) for a, b in ends]
    else:
        kinds = (3, WIDTH) if form.startswith("axis") else (WIDTH, 3)
        axis = 3 + (kinds[0] != 3)
        cut = net("Reshape", flat, net.ints(BATCH, TOKENS, HEADS, *kinds))
        if form.endswith("split"):
            parts = _split(net, cut, axis)
        else:
            parts = [net("Gather", cut, np.array(place), axis=axis) for place in range(3)]
    return net.attended(*(net.by_heads(part) for part in parts))


def optimized(model: onnx.ModelProto, strategy: str) -> onnx.ModelProto:
    emitted = onnx_upscale.optimize(model, strategy=strategy).model
    inputs = input_values(model)
    assert_close(run(model, inputs), run(emitted, inputs))
    return emitted


FORMS = ("beside, split", "beside, slices", "axis", "axis, split", "channels", "channels, split")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("strategy", ["auto", "gather"])
def test_whole_heads_leave(form: str, strategy: str) -> None:
    made = optimized(interleaved(form, {"o": head(1)}), strategy)
    assert weight_shape(made, "qkv") == (CHANNELS, 3 * (HEADS - 1) * WIDTH)
    assert weight_shape(made, "o") == ((HEADS - 1) * WIDTH, CHANNELS)


@pytest.mark.parametrize("form", FORMS[:2])
@pytest.mark.parametrize("strategy", ["auto", "gather"])
def test_channels_of_values_leave_that_lie_beside_others(form: str, strategy: str) -> None:
    made = optimized(interleaved(form, {"o": of_each(0, 2)}), strategy)
    assert weight_shape(made, "qkv") == (CHANNELS, HEADS * (3 * WIDTH - 2))


@pytest.mark.parametrize("form", FORMS)
def test_random_zeros(form: str) -> None:
    rng = np.random.default_rng(FORMS.index(form))
    for _ in range(4):
        gone: dict[str, Sequence[int]] = {
            name: np.flatnonzero(
                (rng.random((HEADS, size)) < 0.3) | (rng.random((HEADS, 1)) < 0.4)
            ).tolist()
            for name, size in (("qkv", 3 * WIDTH), ("o", WIDTH))
        }
        optimized(interleaved(form, gone), "auto")


def rotated(masks: Masks) -> onnx.ModelProto:
    """Pairs of channels of queries and keys are rotated by angles that are found at run time."""
    net = HeadNet(masks)
    sizes = net.ints(0, TOKENS, HEADS, WIDTH)
    queries, keys, values = (
        net.by_heads(net("Reshape", net.linear(name, FLAT), sizes)) for name in "qkv"
    )
    places = net("ReduceSum", "x", net.ints(2), keepdims=1)
    angles = net("Mul", places, net.random(WIDTH // 2))
    both = net("Unsqueeze", net("Concat", angles, angles, axis=-1), net.ints(1))
    cosines, sines = net("Cos", both), net("Sin", both)

    def turn(tensor: str) -> str:
        half, axis = net.ints(WIDTH // 2), net.ints(3)
        first = net("Slice", tensor, net.ints(0), half, axis)
        second = net("Slice", tensor, half, net.ints(2**62), axis)
        other = net("Concat", net("Neg", second), first, axis=-1)
        return net("Add", net("Mul", tensor, cosines), net("Mul", other, sines))

    return net.attended(turn(queries), turn(keys), values)


@pytest.mark.parametrize("strategy", ["auto", "gather"])
@pytest.mark.parametrize("part", ["v", "o"])
def test_rotated_heads_leave(part: str, strategy: str) -> None:
    made = optimized(rotated({part: head(0, 2)}), strategy)
    assert [weight_shape(made, name)[1] for name in "qkv"] == [WIDTH] * 3
    assert weight_shape(made, "o") == (WIDTH, CHANNELS)


@pytest.mark.parametrize("part", ["q", "k"])
def test_rotated_channels_are_right(part: str) -> None:
    gone = [0, 2, WIDTH + 1, WIDTH + 2, 2 * WIDTH, 2 * WIDTH + 3]
    for channels in (gone, of_each(0, 2), of_each(1), head(1)):
        optimized(rotated({part: channels, "v": of_each(3)}), "gather")
