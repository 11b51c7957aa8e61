"""Dynamically quantized models: the range of a tensor is that of all its channels.

The expected model is built anew, with zero points written into its weights, and run by onnxruntime
and by ONNX's reference implementation.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

import onnx_upscale
from build import Array, input_values, run, weight_shape
from mask_document import Masks, document
from rule_cases import CHANNELS, PRUNED, SIZE, MaskedNet
from targets import TARGETS

PROFILES = ("as built in", "copies free", "blocks of 8", "copies free, align 2")


class _Net(MaskedNet):
    """A net whose layers are written as dynamic quantization writes them."""

    def integers(
        self, name: str, shape: tuple[int, ...], into: int, out: int, per_channel: bool
    ) -> tuple[Array, Array, Array]:
        """A weight, its zero point, its scale."""
        steps = self.rng.integers(1, 60, shape) * self.rng.choice([-1, 1], shape)
        for side, axis in (("input", into), ("output", out)):
            np.moveaxis(steps, axis, 0)[self.gone(f"{name}.{side}")] = 0
        count = shape[out] if per_channel else 1
        zero = self.rng.integers(-4, 5, count)
        spread = [1] * len(shape)
        spread[out] = count
        stored = (steps + zero.reshape(spread)).astype(np.int8)
        scale = self.rng.uniform(0.005, 0.02, count).astype(np.float32)
        if per_channel:
            return stored, zero.astype(np.int8), scale
        return stored, np.array(zero[0], np.int8), np.array(scale[0])

    def quantized(self, tensor: str) -> list[str]:
        """The numbers, the scale and the zero point of a tensor."""
        return self.nodes_of("DynamicQuantizeLinear", tensor, outputs=3)

    def layer(
        self, read: Sequence[str], name: str, shape: tuple[int, ...], bias: bool = True,
        per_channel: bool = False, **attributes: Any,
    ) -> str:  # fmt: skip
        """A ConvInteger or MatMulInteger, and what undoes its scales."""
        convolves = len(shape) == 4
        into, out = (1, 0) if convolves else (0, 1)
        weight, zero, scale = self.integers(name, shape, into, out, per_channel)
        op = "ConvInteger" if convolves else "MatMulInteger"
        sums = self(op, read[0], weight, read[2], zero, name=name, **attributes)
        scales = self("Mul", read[1], scale)
        made = self("Mul", self("Cast", sums, to=TensorProto.FLOAT), scales)
        if not bias:
            return made
        added = self.random(shape[out])
        added[self.gone(f"{name}.output")] = 0
        return self("Add", made, added.reshape(-1, 1, 1) if convolves else added)


@dataclass(frozen=True)
class _Case:
    """first (real), op (ConvInteger or MatMulInteger), last (MatMulInteger).

    Attributes:
        first: What stands behind `first`.
        inner: What stands behind `op`.
        product: Whether `op` is a MatMulInteger.
        attributes: Of `op`.
        reads: Whether somebody takes what the first DynamicQuantizeLinear makes for real numbers.
    """

    first: str = "Relu"
    inner: str = "Relu"
    product: bool = False
    per_channel: bool = False
    attributes: tuple[tuple[str, Any], ...] = ()
    reads: bool = False

    def model(self, name: str, masks: Masks) -> onnx.ModelProto:
        net = _Net(19, zlib.crc32(name.encode()), masks)
        made = net(self.first, net.conv("x", "first", CHANNELS, pads=[1, 1, 1, 1]))
        if self.product:
            made = net("Transpose", net.shaped(made, 2, CHANNELS, SIZE * SIZE), perm=[0, 2, 1])
        read = net.quantized(made)
        shape = (CHANNELS, 6) if self.product else (6, CHANNELS, 3, 3)
        made = net.layer(read, "op", shape, per_channel=self.per_channel, **dict(self.attributes))
        made = net(self.inner, made)
        if not self.product:
            made = net("Flatten", net("GlobalMaxPool", made))
        result = net.layer(net.quantized(made), "last", (6, 2), bias=False)
        if not self.reads:
            return net.model(result)
        numbers = net("Cast", read[0], to=TensorProto.FLOAT)
        return net.model(result, net.conv(numbers, "other", 2, 1))


_BORDER = (("pads", [1, 0, 0, 1]),)
CASES = {
    "ConvInteger": _Case(),
    "ConvInteger-padded": _Case(attributes=_BORDER),
    "MatMulInteger": _Case(product=True),
    "MatMulInteger-scales": _Case(product=True, per_channel=True),
    "no-zeros": _Case(first="Sigmoid", inner="Sigmoid"),
    "read-as-it-is": _Case(reads=True),
}


def _assert_near(wanted: Sequence[Array], got: Sequence[Array], what: str, few: float) -> None:
    """Sums of real numbers are rounded to whole ones, now and then to another."""
    for one, other in zip(wanted, got, strict=True):
        assert other.shape == one.shape, what
        np.testing.assert_allclose(other, one, rtol=0, atol=few * np.abs(one).max(), err_msg=what)


@pytest.mark.parametrize("name", CASES)
def test_random_masks_leave_the_function_of_the_masked_model(name: str) -> None:
    case = CASES[name]
    rng = np.random.default_rng(zlib.crc32(f"{name} masks".encode()))
    sizes = {"first.output": 8, "op.input": 8, "op.output": 6, "last.input": 6}
    masks = {
        key: sorted(rng.choice(size, rng.integers(1, size * 2 // 3 + 1), replace=False).tolist())
        for key, size in sizes.items()
    }
    original, expected = case.model(name, {}), case.model(name, masks)
    inputs = input_values(original)
    wanted = run(expected, inputs)
    for strategy in ("gather", "upscale", "constrained"):
        onnx_upscale.optimize(original, document(masks), strategy=strategy)
    for each in PROFILES:
        result = onnx_upscale.optimize(original, document(masks), target=TARGETS[each])
        _assert_near(wanted, run(result.model, inputs), f"{each}: {masks}", 0.01)
    by_reference = ReferenceEvaluator(expected).run(None, inputs)
    _assert_near([np.asarray(each) for each in by_reference], wanted, name, 0.02)


def _shapes(name: str, masks: Masks) -> tuple[tuple[int, ...], ...]:
    case = CASES[name]
    result = onnx_upscale.optimize(case.model(name, {}), document(masks), strategy="gather")
    inputs = input_values(result.model)
    wanted = run(case.model(name, masks), inputs)
    _assert_near(wanted, run(result.model, inputs), name, 0.01)
    return tuple(weight_shape(result.model, layer)[:2] for layer in ("first", "op", "last"))


def test_channels_that_nobody_reads_stay_for_the_range_is_theirs() -> None:
    masks = {"op.input": PRUNED, "last.input": [0, 3]}
    assert _shapes("ConvInteger", masks) == ((8, 3), (6, 5), (4, 2))
    assert _shapes("MatMulInteger", masks) == ((8, 3), (5, 6), (4, 2))


@pytest.mark.parametrize("name", ["ConvInteger", "ConvInteger-padded"])
def test_channels_that_are_zero_cannot_be_at_the_end_of_a_range(name: str) -> None:
    masks = {"first.output": PRUNED, "op.output": [2, 5]}
    assert _shapes(name, masks) == ((5, 3), (4, 5), (4, 2))


@pytest.mark.parametrize("name", ["MatMulInteger", "MatMulInteger-scales"])
def test_scales_per_channel_follow_the_output_channels(name: str) -> None:
    assert _shapes(name, {"first.output": PRUNED, "op.output": [2, 5]}) == ((5, 3), (5, 4), (4, 2))


def test_channels_of_another_known_value_stay() -> None:
    masks = {"first.output": PRUNED, "op.output": [2, 5]}
    assert _shapes("no-zeros", masks) == ((8, 3), (6, 8), (6, 2))


def test_channels_stay_where_the_numbers_are_read_as_they_are() -> None:
    assert _shapes("read-as-it-is", {"first.output": PRUNED})[0] == (8, 3)
