"""Models on whole numbers: layers in QOperator form, and what stands between them.

As in `rule_cases`, the expected model is built anew, with zero points written into its weights.
It is run by ONNX's reference implementation and numpy as well, which round as they see fit.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import Array, input_values, run, weight_shape
from mask_document import Masks, document
from onnx_upscale.optimizer.analyze.facts import Concatenation
from onnx_upscale.optimizer.analyze.rules.quantized import _fit_concat
from quantized_net import MICROSOFT, QNet
from quantized_reference import by_reference
from rule_cases import CHANNELS, PRUNED, SIZE
from several import emitted

PROFILES = ("as built in", "copies free", "copies dear", "blocks of 8", "copies free, align 2")
WAYS = (("upscale", "as built in"), *(("auto", profile) for profile in PROFILES))

Tensor = tuple[str, Array, Array]
Build = Callable[[QNet, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """Between a layer `first` and one `last`.

    Attributes:
        build: The operator.
        at: Whose mask makes the channels of `first` go.
        last: How the last layer reads: `conv`, `gemm` or `matmul`.
        inner: How many channels it reads; None for those of `first`.
        kept: How many channels of `first` are left.
    """

    build: Build
    at: str = "last.input"
    last: str = "conv"
    inner: int = CHANNELS
    kept: int = CHANNELS - len(PRUNED)
    kind: Any = np.uint8
    unsigned: bool = False
    layer: bool = False
    near: float = 0.02

    def model(self, name: str, masks: Masks) -> onnx.ModelProto:
        net = QNet(zlib.crc32(name.encode()), masks, self.kind, self.unsigned)
        encoding = net.encoding(0.03)
        data = net("QuantizeLinear", "x", *encoding), *encoding
        data = net.conv(data, "first", (CHANNELS, 3, 3, 3), pads=[1, 1, 1, 1])
        data = self.build(net, data)
        if self.last == "conv":
            result, *made = net.conv(data, "last", (2, self.inner, 1, 1))
        else:
            weight, made = net.weights("last", (self.inner, 2), 0, 1, False), [*net.encoding(0.1)]
            if self.last == "gemm":
                bias = net.bias("last", 2)
                inputs: list[Any] = [*data, *weight, bias, *made]
                result = net("QGemm", *inputs, name="last", domain=MICROSOFT)
            else:
                result = net("QLinearMatMul", *data, *weight, *made, name="last")
        rank = {"conv": 4, "gemm": 2, "matmul": 3}[self.last]
        return net.finished(net("DequantizeLinear", result, *made), rank)

    def random_masks(self, rng: np.random.Generator) -> Masks:
        sizes = {"first.output": CHANNELS, "last.input": self.inner}
        if self.layer:
            sizes |= {"op.input": CHANNELS, "op.output": self.inner}
        return {
            key: sorted(rng.choice(size, rng.integers(0, size * 2 // 3 + 1), replace=False))
            for key, size in sizes.items()
        }


def _tokens(n: QNet, data: Tensor) -> Tensor:
    flat = n("Reshape", data[0], n.ints(2, CHANNELS, SIZE * SIZE))
    return n("Transpose", flat, perm=[0, 2, 1]), *data[1:]


def _flat(n: QNet, data: Tensor) -> Tensor:
    pooled = n.microsoft("QLinearGlobalAveragePool", *data, scale=0.02)
    return n("Flatten", pooled[0]), *pooled[1:]


def _conv(**how: Any) -> Build:
    shape = how.pop("shape", (5, CHANNELS, 3, 3))
    return lambda n, data: n.conv(data, "op", shape, **how)


def _gemm(transposed: int, bias: bool = True) -> Build:
    def build(n: QNet, data: Tensor) -> Tensor:
        shape, into, out = ((5, 8), 1, 0) if transposed else ((8, 5), 0, 1)
        weight = n.weights("op", shape, into, out)
        inputs = [*_flat(n, data), *weight, n.bias("op", 5) if bias else ""]
        return n.microsoft("QGemm", *inputs, name="op", transB=transposed)

    return build


def _matmul(n: QNet, data: Tensor) -> Tensor:
    weight, made = n.weights("op", (8, 5), 0, 1), n.encoding(0.1)
    return n("QLinearMatMul", *_tokens(n, data), *weight, *made, name="op"), *made


def _shifted(op: str, shape: tuple[int, ...]) -> Build:
    """A constant behind the first layer, whose output mask takes its entries along."""

    def build(n: QNet, data: Tensor) -> Tensor:
        scale, zero = n.encoding()
        value = n.rng.integers(-90, 90, shape) + int(zero)
        gone = n.gone("first.output")
        if op == "QLinearAdd" and gone:
            value = np.broadcast_to(value, (CHANNELS, 1, 1)).copy()
            value[gone] = zero
        return n.microsoft(op, *data, value.astype(n.kind), scale, zero, scale=0.2)

    return build


def _joined(op: str) -> Build:
    def build(n: QNet, data: Tensor) -> Tensor:
        encoding = n.encoding(0.03)
        other = n("QuantizeLinear", "x", *encoding), *encoding
        other = n.conv(other, "other", (CHANNELS, 3, 1, 1))
        return n.microsoft(op, *data, *other, scale=0.2)

    return build


def _gated(n: QNet, data: Tensor) -> Tensor:
    """Squeeze and excite."""
    gate = n.microsoft("QLinearGlobalAveragePool", *data, scale=0.02)
    gate = n.microsoft("QLinearSigmoid", *gate, scale=0.004)
    return n.microsoft("QLinearMul", *data, *gate)


def _concat(n: QNet, data: Tensor, alike: bool = False) -> Tensor:
    encoding = n.encoding(0.03)
    other = n("QuantizeLinear", "x", *encoding), *encoding
    other = n.conv(other, "other", (4, 3, 1, 1))
    made = data[1:] if alike else n.encoding(0.1)
    name = n("QLinearConcat", *made, *data, *other, domain=MICROSOFT, axis=1)
    return name, *made


def _plain(op: str, **how: Any) -> Build:
    return lambda n, data: (n(op, data[0], **how), *data[1:])


def _one(op: str, scale: float = 0.05, **how: Any) -> Build:
    return lambda n, data: n.microsoft(op, *data, scale=scale, **how)


def _real(n: QNet, data: Tensor) -> Tensor:
    made = n.encoding()
    real = n("Exp", n("Neg", n("Relu", n("DequantizeLinear", *data))))
    return n("QuantizeLinear", real, *made), *made


def _attention(n: QNet, data: Tensor) -> Tensor:
    tokens = _tokens(n, data)
    products = []
    for _ in range(2):
        weight, made = n.weights("", (CHANNELS, 4), 0, 1, False), n.encoding(0.1)
        products.append((n("QLinearMatMul", *tokens, *weight, *made), *made))
    queries, keys = products
    turned = n("Transpose", keys[0], perm=[0, 2, 1]), *keys[1:]
    made = n.encoding(0.2)
    scores = n("QLinearMatMul", *queries, *turned, *made), *made
    weights = n.microsoft("QLinearSoftmax", *scores, scale=0.004, axis=-1, opset=13)
    made = n.encoding(0.1)
    return n("QLinearMatMul", *weights, *tokens, *made), *made


def _batches(n: QNet, data: Tensor) -> Tensor:
    """Products of channels that may hold one value each, which is none of the product's."""
    real, made = _real(n, data), n.encoding(0.4)
    return n("QLinearMatMul", *real, *real, *made), *made


_LAYER: dict[str, Any] = {"at": "op.input", "layer": True, "inner": 5}
CASES = {
    "QLinearConv": Case(_conv(), **_LAYER),
    "QLinearConv-padded": Case(_conv(pads=[1, 0, 1, 0]), **_LAYER),
    "QLinearConv-without-bias": Case(_conv(bias=False), **_LAYER),
    "QLinearConv-one-scale": Case(_conv(per_channel=False), **_LAYER),
    "QLinearConv-unsigned": Case(_conv(), unsigned=True, **_LAYER),
    "QLinearConv-signed": Case(_conv(), kind=np.int8, **_LAYER),
    "QLinearConv-depthwise": Case(
        _conv(shape=(8, 1, 3, 3), group=8), layer=True, kind=np.uint8, inner=8
    ),
    "QGemm": Case(_gemm(0), last="gemm", **_LAYER),
    "QGemm-transposed": Case(_gemm(1), last="gemm", **_LAYER),
    "QGemm-without-bias": Case(_gemm(0, bias=False), last="gemm", **_LAYER),
    "QLinearMatMul": Case(_matmul, last="matmul", **_LAYER),
    "QLinearMatMul-unsigned": Case(_matmul, last="matmul", unsigned=True, **_LAYER),
    "QLinearMatMul-activations": Case(_attention, last="matmul", kept=CHANNELS, near=0.1),
    "QLinearMatMul-batches": Case(_batches, near=0.1),
    "QLinearAdd": Case(_joined("QLinearAdd")),
    "QLinearAdd-attached": Case(_shifted("QLinearAdd", (CHANNELS, 1, 1))),
    "QLinearAdd-attached-scalar": Case(_shifted("QLinearAdd", ())),
    "QLinearMul": Case(_joined("QLinearMul")),
    "QLinearMul-attached": Case(_shifted("QLinearMul", (CHANNELS, 1, 1))),
    "QLinearMul-gate": Case(_gated),
    "QLinearSigmoid": Case(_one("QLinearSigmoid", 0.004)),
    "QLinearLeakyRelu": Case(_one("QLinearLeakyRelu", alpha=0.2)),
    "QLinearGlobalAveragePool": Case(_one("QLinearGlobalAveragePool", 0.02)),
    "QLinearAveragePool": Case(
        _one("QLinearAveragePool", kernel_shape=[2, 2], pads=[0, 0, 1, 1], count_include_pad=1)
    ),
    "QLinearConcat": Case(_concat, inner=12),
    "QLinearConcat-alike": Case(lambda n, x: _concat(n, x, alike=True), inner=12),
    "QLinearSoftmax": Case(_one("QLinearSoftmax", 0.004, axis=1, opset=13), kept=CHANNELS),
    "QLinearSoftmax-rows": Case(_one("QLinearSoftmax", 0.004, axis=3, opset=13)),
    "MaxPool": Case(_plain("MaxPool", kernel_shape=[2, 2])),
    "real": Case(_real),
}


def _assert_same(wanted: Sequence[Array], got: Sequence[Array], what: str) -> None:
    for one, other in zip(wanted, got, strict=True):
        np.testing.assert_array_equal(other, one, what)


def _assert_near(case: Case, wanted: Sequence[Array], got: Sequence[Array]) -> None:
    """Nearly all is the same; what was rounded the other way is a few steps away."""
    for one, other in zip(wanted, got, strict=True):
        assert other.shape == one.shape
        assert np.abs(one).max() > 0
        apart = np.abs(one - other) / np.abs(one).max()
        assert np.mean(apart > 0.1) <= case.near
        assert np.mean(apart > 1e-5) <= 0.2


@pytest.mark.parametrize("name", CASES)
def test_random_masks_leave_the_numbers_of_the_masked_model(name: str) -> None:
    case = CASES[name]
    rng = np.random.default_rng(zlib.crc32(f"{name} masks".encode()))
    for draw in range(2):
        masks = case.random_masks(rng)
        original, expected = case.model(name, {}), case.model(name, masks)
        inputs = input_values(original)
        wanted = run(expected, inputs)
        proven = onnx_upscale.optimize(original, document(masks), strategy="gather").model
        made: dict[Any, onnx.ModelProto] = {"proven": proven}
        made |= emitted(original, document(masks), WAYS)
        for way, model in made.items():
            onnx.checker.check_model(model)
            _assert_same(wanted, run(model, inputs), f"{draw}, {way}: {masks}")
        _assert_near(case, by_reference(expected, inputs), run(proven, inputs))
        onnx_upscale.optimize(original, document(masks), strategy="constrained")


@pytest.mark.parametrize("name", CASES)
def test_channels_that_nobody_reads_go(name: str) -> None:
    case = CASES[name]
    masks = {case.at: PRUNED}
    original, expected = case.model(name, {}), case.model(name, masks)
    inputs = input_values(original)
    for strategy in ("upscale", "gather"):
        result = onnx_upscale.optimize(original, document(masks), strategy=strategy)
        _assert_same(run(expected, inputs), run(result.model, inputs), strategy)
        assert weight_shape(result.model, "first", 3)[0] == case.kept


@pytest.mark.parametrize("name", ["real", "QLinearSigmoid", "QLinearConcat", "QLinearAdd"])
def test_channels_that_are_zero_go_into_the_bias(name: str) -> None:
    """They are no zero where they are read, and what they add is known to the last bit."""
    case = CASES[name]
    masks = {"first.output": PRUNED}
    original, expected = case.model(name, {}), case.model(name, masks)
    inputs = input_values(original)
    result = onnx_upscale.optimize(original, document(masks), strategy="gather")
    _assert_same(run(expected, inputs), run(result.model, inputs), name)
    if name != "QLinearAdd":  # The other operand is still there.
        assert weight_shape(result.model, "first", 3)[0] == case.kept
        assert weight_shape(result.model, "last", 3)[1] == case.inner - len(PRUNED)


def test_a_product_of_what_is_known_is_not_known() -> None:
    case, masks = CASES["QLinearMatMul-batches"], {"first.output": PRUNED}
    original, expected = case.model("known", {}), case.model("known", masks)
    inputs = input_values(original)
    result = onnx_upscale.optimize(original, document(masks), strategy="gather")
    _assert_same(run(expected, inputs), run(result.model, inputs), "known")
    assert weight_shape(result.model, "last", 3)[1] == CHANNELS


@pytest.mark.parametrize("name", ["QLinearConcat", "QLinearConcat-alike"])
@pytest.mark.parametrize("gone", [range(8), range(8, 12)])
def test_one_part_of_a_concat_is_left(name: str, gone: Sequence[int]) -> None:
    case = CASES[name]
    masks = {"last.input": gone}
    original, expected = case.model(name, {}), case.model(name, masks)
    inputs = input_values(original)
    result = onnx_upscale.optimize(original, document(masks), strategy="gather")
    _assert_same(run(expected, inputs), run(result.model, inputs), name)
    assert weight_shape(result.model, "last", 3)[1] == case.inner - len(gone)


def test_what_is_known_becomes_a_bias_where_there_was_none() -> None:
    def build(n: QNet, data: Tensor) -> Tensor:
        return n.conv(_real(n, data), "op", (5, CHANNELS, 1, 1), bias=False)

    case, masks = Case(build, inner=5), {"first.output": PRUNED}
    original, expected = case.model("no bias", {}), case.model("no bias", masks)
    inputs = input_values(original)
    result = onnx_upscale.optimize(original, document(masks), strategy="gather")
    _assert_same(run(expected, inputs), run(result.model, inputs), "no bias")
    assert weight_shape(result.model, "op", 3)[1] == CHANNELS - len(PRUNED)


def test_parts_of_a_concat_change_places_with_their_scales() -> None:
    parts = np.arange(3), np.arange(3, 5)
    whole = np.concatenate(parts)
    kept = {3: np.array([0, 2]), 2: np.array([1, 0]), 5: np.array([4, 3, 0, 2])}
    editor = mock.Mock()
    _fit_concat(Concatenation(parts, whole), (True, False), editor, lambda axis: kept[len(axis)])
    editor.take_inputs.assert_called_once_with([0, 1, 5, 6, 7, 2, 3, 4])
    editor.bypass.assert_not_called()


@pytest.mark.parametrize(
    "name", ["QLinearAdd", "QLinearConcat", "QLinearMul-gate", "QLinearLeakyRelu"]
)
def test_channels_go_where_the_model_must_not_run(name: str) -> None:
    original, masks = CASES[name].model(name, {}), document({"last.input": PRUNED})
    result = onnx_upscale.optimize(original, masks, strategy="gather", verify=False)
    assert weight_shape(result.model, "first", 3)[0] == CASES[name].kept


@pytest.mark.parametrize("transposed", [0, 1])
def test_channels_of_a_product_go_where_the_model_must_not_run(transposed: int) -> None:
    def build(n: QNet, data: Tensor) -> Tensor:
        made = _gemm(transposed)(n, data)
        return n("Reshape", made[0], n.ints(-1, 5, 1, 1)), *made[1:]

    original = Case(build, inner=5).model("reshaped", {})
    masks = document({"last.input": [0, 2]})
    result = onnx_upscale.optimize(original, masks, strategy="gather", verify=False)
    assert weight_shape(result.model, "op", 3)[0 if transposed else 1] == 3
    assert weight_shape(result.model, "last", 3)[1] == 3
