"""Channel shuffles: channels change places between parts that others take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import weight_shape
from mask_document import Masks, document
from rule_cases import SIZE, MaskedNet, assert_same
from targets import TARGETS

HALF = 8
LAYERS = {"a": HALF, "b": HALF, "c": HALF, "d": HALF, "last": 2 * HALF}
STRATEGIES = ("auto", "upscale", "gather")


def shuffled(
    net: MaskedNet, tensor: str, *grid: int, axis: int = 1, perm: Sequence[int] = (1, 0)
) -> str:
    before, _, behind = (shape := net.shape(tensor))[:axis], shape[axis], shape[axis + 1 :]
    last = axis + len(grid)
    order = [*range(axis), *(axis + each for each in perm), *range(last, last + len(behind))]
    parted = net.shaped(tensor, *before, *grid, *behind)
    return net.shaped(net("Transpose", parted, perm=order), *shape)


def units(masks: Masks, opset: int = 18) -> onnx.ModelProto:
    """Two units, each of which shuffles, and takes the second half of what it gets apart."""
    net = MaskedNet(opset, 3, masks)
    first, second = (net.conv("x", name, HALF, pads=[1] * 4) for name in "ab")
    for name in "cd":
        tensor = shuffled(net, net("Concat", first, net("Relu", second), axis=1), 2, HALF)
        first, taken = net.nodes_of("Split", tensor, net.ints(HALF, HALF), outputs=2, axis=1)
        second = net.conv(taken, name, HALF, 1)
    both = net("Concat", first, net("Relu", second), axis=1)
    return net.model(net.conv(shuffled(net, both, 2, HALF), "last", 2, 1))


def check(masks: Masks, strategy: str, target: str = "cpu") -> list[int]:
    """How many channels each layer makes."""
    result = onnx_upscale.optimize(
        units({}), document(masks), strategy=strategy, target=target, verify=False
    )
    assert_same(units(masks), result.model, f"{strategy}, {masks}")
    return [(weight_shape(result.model, name) or (0,))[0] for name in "abcd"]


def test_any_channel_behind_a_shuffle_leaves() -> None:
    masks = {"a.output": [0, 5], "b.output": [1, 2, 7], "c.input": [3], "last.input": [0, 4, 15]}
    # c reads a4, b4, a5, b5 and so on; last reads a0, d0, c0, d1, b0 and so on.
    assert check(masks, "gather") == [6, 3, 8, 7]


@pytest.mark.parametrize("reader", ["before", "behind"])
def test_masks_grow_across_a_shuffle(reader: str) -> None:
    """Channels 1 and 6 of `a` lie in places 2 and 5 behind the shuffle."""

    def model(masks: Masks) -> onnx.ModelProto:
        net = MaskedNet(18, 4, masks)
        made = net.conv("x", "a", HALF, pads=[1] * 4)
        before = net.conv(made, "before", 2, 1)
        return net.model(before, net.conv(shuffled(net, made, 2, 4), "behind", 2, 1))

    both = {"before.input": [1, 6], "behind.input": [2, 5]}
    masks = {f"{reader}.input": both[f"{reader}.input"]}
    result = onnx_upscale.optimize(model({}), document(masks), strategy="constrained")
    assert_same(model(both), result.model, reader)
    assert weight_shape(result.model, "a")[0] == HALF - 2


@pytest.mark.parametrize("kind", ["three axes", "channels last", "opset 7"])
def test_forms(kind: str) -> None:
    def model(masks: Masks) -> onnx.ModelProto:
        net = MaskedNet(7 if kind == "opset 7" else 18, 4, masks)
        made = net.conv("x", "a", HALF, pads=[1] * 4)
        if kind == "three axes":
            made = shuffled(net, made, 2, 2, 2, perm=(2, 0, 1))
        elif kind == "channels last":
            last = net("Transpose", made, perm=[0, 2, 3, 1])
            made = net("Transpose", shuffled(net, last, 4, 2, axis=3), perm=[0, 3, 1, 2])
        else:
            made = shuffled(net, made, 4, 2)
        return net.model(net.conv(made, "b", 2, 1))

    masks = {"b.input": [0, 3, 5]}
    result = onnx_upscale.optimize(model({}), document(masks), strategy="gather", verify=False)
    assert_same(model(masks), result.model, kind)
    assert weight_shape(result.model, "a")[0] == HALF - 3


@pytest.mark.parametrize("kind", ["output", "read between", "moved away"])
def test_what_is_no_shuffle(kind: str) -> None:
    def model(masks: Masks) -> onnx.ModelProto:
        net = MaskedNet(18, 4, masks)
        made = net.conv("x", "a", HALF, pads=[1] * 4)
        wide = net.shaped(made, 2, 2, 4, SIZE, SIZE)
        order = [0, 3, 2, 1, 4] if kind == "moved away" else [0, 2, 1, 3, 4]
        turned = net("Transpose", wide, perm=order)
        back = net.shaped(turned, 2, HALF, SIZE, SIZE)
        extra = {"output": [back], "read between": [net("Relu", turned)]}.get(kind, [])
        return net.model(net.conv(back, "b", 2, 1), *extra)

    masks = {"b.input": [0, 3, 5]}
    for strategy in STRATEGIES:
        result = onnx_upscale.optimize(model({}), document(masks), strategy=strategy, verify=False)
        assert_same(model(masks), result.model, kind)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_random_masks(strategy: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        masks = random_masks(rng)
        check(masks, strategy)


def random_masks(rng: np.random.Generator) -> dict[str, list[int]]:
    found = {}
    for name, inputs in LAYERS.items():
        for side, size in (("input", inputs), ("output", HALF)):
            if name not in "ab" * (side == "input") and rng.random() < 0.7:
                found[f"{name}.{side}"] = rng.permutation(size)[: rng.integers(1, size)].tolist()
    found.pop("last.output", None)
    return found


@pytest.mark.parametrize("target", TARGETS)
def test_random_masks_at_any_price(target: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(2):
        check(random_masks(rng), "auto", TARGETS[target])
