"""What onnxruntime's own tools fuse: layers, activations and norms of its domain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import Floats, Net, assert_close, input_values, run, weight_shape
from onnx_upscale.optimizer.analyze import find_structure
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.load.layers import layers
from rule_cases import (
    CHANNELS,
    SIZE,
    Build,
    Case,
    MaskedNet,
    check_counts,
    check_random_masks,
    pinned,
    runs,
)
from targets import TARGETS

MICROSOFT = "com.microsoft"
PLACES = SIZE * SIZE


def fused(n: MaskedNet, op: str, like: tuple[int, ...], *inputs: str | Floats, **how: Any) -> str:
    """A node of onnxruntime's domain; what it makes has a shape that onnx does not infer."""
    return n.declare(n(op, *inputs, domain=MICROSOFT, **how), like)


_PRICES = ("copies free, blocks of 1", "copies free, align 2", "multiply-adds dear, blocks of 1")


def tokens(n: MaskedNet, x: str) -> str:
    """(batch, place, channel)"""
    return n("Relu", n("Transpose", n.shaped(x, 2, CHANNELS, PLACES), perm=[0, 2, 1]))


def _convolution(kind: str = "", added: str = "", bias: bool = True, **how: Any) -> Build:
    """A FusedConv of 5 channels with an activation, to which something is added."""

    def build(n: MaskedNet, x: str) -> str:
        groups = how.get("group", 1)
        if groups == 1:
            weight = n.weight("op", 5, CHANNELS, 3, 3, into=1, out=0)
        else:
            weight = n.random(CHANNELS, CHANNELS // groups, 3, 3)
            for channel in n.gone("op.input"):
                each = CHANNELS // groups
                rows = slice(channel // each * each, (channel // each + 1) * each)
                weight[rows, channel % each] = 0
            weight[n.gone("op.output")] = 0
        made = len(weight)
        read: list[str | Floats] = [n("Sigmoid", x), weight]
        read.append(n.weight("op", made, out=0) if bias else "")
        if added:
            other = n.conv("x", "other", made, pads=[1, 1, 1, 1])
            read.append(n("Relu", other) if added == "activations" else n.random(2, made, 6, 6))
            if added == "opaque":
                n.inputs.append(n.inputs[0].__class__())
                n.inputs[-1].CopyFrom(n.inputs[0])
                n.inputs[-1].name = "z"
                n.inputs[-1].type.tensor_type.shape.dim[1].dim_value = made
                read[-1] = "z"
        while not isinstance(read[-1], np.ndarray) and not read[-1]:
            read.pop()
        attributes = {**how, **({"activation": kind} if kind else {})}
        return fused(
            n, "FusedConv", (2, made, 6, 6), *read, name="op", pads=[1, 1, 1, 1], **attributes
        )

    return build


def _gemm(kind: str, **how: Any) -> Build:
    def build(n: MaskedNet, x: str) -> str:
        data = n("Flatten", n("GlobalMaxPool", n("Sigmoid", x)))
        if how.get("transA"):
            data = n("Transpose", data)
        back = bool(how.get("transB"))
        shape, into, out = ((5, 8), 1, 0) if back else ((8, 5), 0, 1)
        weight, bias = n.weight("op", *shape, into=into, out=out), n.weight("op", 5, out=0)
        return fused(n, "FusedGemm", (2, 5), data, weight, bias, name="op", activation=kind, **how)

    return build


def _product(slot: int, turn: tuple[int, int], batch: int = 0) -> Build:
    """A FusedMatMul with its weight in a slot, of which both operands may be transposed."""

    def build(n: MaskedNet, x: str) -> str:
        own, other = turn[slot], turn[1 - slot]
        # The weight is (..., 8, 5) on the right, (..., 5, 8) on the left, unless it is turned.
        rows = own == (1 - slot)
        shape = (CHANNELS, 5) if rows else (5, CHANNELS)
        lead = (batch,) if batch else ()
        into, out = (len(lead) + (0 if rows else 1), len(lead) + (1 if rows else 0))
        weight = n.weight("op", *lead, *shape, into=into, out=out)
        data = tokens(n, x)
        if (slot == 1) == bool(other):
            data = n("Transpose", data, perm=[0, 2, 1])
        read = (data, weight) if slot else (weight, data)
        made = (2, PLACES, 5) if slot else (2, 5, PLACES)
        flags = {"transA": turn[0], "transB": turn[1]}
        result = fused(n, "FusedMatMul", made, *read, name="op", alpha=0.5, **flags)
        return n("Sigmoid", result)

    return build


def _norm(op: str, skip: str, bias: bool, summed: bool = False) -> Build:
    def build(n: MaskedNet, x: str) -> str:
        data = tokens(n, x)
        shape = (2, PLACES, CHANNELS)
        other: str | Floats = n("Tanh", data) if skip == "same" else n.random(*shape[1:])
        if skip == "other":
            other = tokens(n, n.conv("x", "other", CHANNELS, pads=[1, 1, 1, 1]))
        read = [data, other, n.random(CHANNELS)]
        if op == "SkipLayerNormalization":
            read.append(n.random(CHANNELS))
        if bias:
            read.append(n.random(CHANNELS))
        outputs = n.nodes_of(op, *read, outputs=4 if summed else 1, domain=MICROSOFT)
        for index in (1, 2):
            if summed:
                n.nodes[-1].output[index] = ""
        made = n.declare(outputs[0], shape)
        return n("Add", made, n.declare(outputs[3], shape)) if summed else made

    return build


def _fused() -> Iterator[Case]:
    def layer(name: str, build: Build, inner: int = 5, **how: Any) -> Case:
        return Case(name, build, at=how.pop("at", "op.input"), layer=True, inner=inner, **how)

    yield layer("FusedConv", _convolution())
    for kind in ("Relu", "Sigmoid", "Tanh"):
        # A channel that is masked is no zero behind a Sigmoid, so that nobody is to agree on it.
        yield layer(f"FusedConv-{kind}", _convolution(kind), grows=kind != "Sigmoid")
    yield layer("FusedConv-LeakyRelu", _convolution("LeakyRelu", activation_params=[0.3]))
    yield layer("FusedConv-Clip", _convolution("Clip", activation_params=[0.25, 6.0]), grows=False)
    yield layer(
        "FusedConv-HardSigmoid",
        _convolution("HardSigmoid", activation_params=[0.3, 0.6]),
        grows=False,
    )
    yield layer("FusedConv-without-bias", _convolution("Relu", bias=False))
    for added in ("activations", "constant", "opaque"):
        yield layer(f"FusedConv-added-{added}", _convolution("Relu", added), grows=False)
    yield layer("FusedConv-added-alone", _convolution("", "activations"), grows=False)
    yield layer(
        "FusedConv-added-without-bias",
        _convolution("Relu", "activations", bias=False),
        grows=False,
    )
    for added in ("", "activations"):
        yield layer(
            f"FusedConv-grouped-{added}",
            _convolution("Sigmoid", added, group=4),
            CHANNELS,
            at="last.input",
            roots=(0, 0, 1, 1, 2, 2, 3, 3),
            follows=(0, 0, 1, 1, 2, 2, 3, 3),
            prune=(0, 2),
            kept=4,
            grows=False,
        )
    for a in (0, 1):
        for b in (0, 1):
            yield layer(f"FusedGemm-{a}{b}", _gemm("Relu", transA=a, transB=b))
            yield layer(f"FusedMatMul-{a}{b}", _product(1, (a, b)), axis=2)
            yield layer(f"FusedMatMul-left-{a}{b}", _product(0, (a, b)))
    yield layer("FusedMatMul-batched", _product(1, (0, 1), batch=2), axis=2)
    leaky = _gemm("LeakyRelu", activation_alpha=0.3, alpha=0.5, beta=2.0)
    yield layer("FusedGemm-LeakyRelu", leaky)
    yield layer("FusedGemm-Sigmoid", _gemm("Sigmoid"), grows=False)

    def pointwise(op: str, bias: bool, **how: Any) -> Build:
        def build(n: MaskedNet, x: str) -> str:
            read = [n.random(CHANNELS)] if bias else []
            return fused(n, op, (2, PLACES, CHANNELS), tokens(n, x), *read, **how)

        return build

    yield Case("BiasGelu", pointwise("BiasGelu", True), axis=2)
    yield Case("FastGelu", pointwise("FastGelu", False), axis=2)
    yield Case("FastGelu-biased", pointwise("FastGelu", True), axis=2)
    yield Case("Gelu", pointwise("Gelu", False), axis=2)
    yield Case("QuickGelu", pointwise("QuickGelu", False, alpha=1.2), axis=2)

    for op in ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"):
        for skip in ("same", "other", "constant"):
            yield pinned(f"{op}-{skip}", _norm(op, skip, bias=skip != "same"), axis=2, since=13)
        yield pinned(f"{op}-summed", _norm(op, "other", True, summed=True), axis=2, since=13)


CASES = tuple(_fused())


@pytest.mark.parametrize(("case", "opset"), runs(CASES, few=True))
def test_random_masks_leave_the_function_of_the_masked_model(case: Case, opset: int) -> None:
    check_random_masks(case, opset)


@pytest.mark.parametrize(("case", "opset"), runs(CASES, few=True))
def test_channels_that_nobody_reads_go_and_pinned_ones_stay(case: Case, opset: int) -> None:
    check_counts(case, opset)


def _residual(norm: Any, opset: int = 17) -> onnx.ModelProto:
    """Two layers in a row whose sum is normalized, and read."""
    net = Net(opset, x=(2, 5, 6))
    first = net("Relu", net("MatMul", "x", net.random(6, 8), name="first"))
    second = net("MatMul", first, net.random(8, 8), name="second")
    normed = net.declare(norm(net, first, second), (2, 5, 8))
    return net.model(net("MatMul", normed, net.random(8, 3), name="last"))


def _masks(**masks: Any) -> dict[str, Any]:
    return {"version": 1, "masks": masks}


@pytest.mark.parametrize("strategy", ["auto", "gather"])
def test_a_norm_that_only_onnxruntime_knows_keeps_what_it_reads(strategy: Any) -> None:
    def norm(net: Net, first: str, second: str) -> str:
        return net("SimplifiedLayerNormalization", net("Add", first, second), net.random(8))

    masks = _masks(last={"input": [3]}, second={"input": [1, 2]})
    made = onnx_upscale.optimize(_residual(norm), masks, strategy=strategy).model
    assert weight_shape(made, "first") == (6, 8)
    if strategy == "gather":
        assert weight_shape(made, "second") == (6, 8)
        assert weight_shape(made, "last") == (7, 3)


def test_what_a_skip_adds_up_has_the_channels_of_both() -> None:
    """The sum is read by a layer too, which takes a copy of what it needs."""
    net = Net(17, x=(2, 5, 6))
    first = net("MatMul", "x", net.random(6, 8), name="first")
    second = net("MatMul", "x", net.random(6, 8), name="second")
    normed, *_, summed = net.nodes_of(
        "SkipLayerNormalization",
        *(first, second, net.random(8), net.random(8)),
        outputs=4,
        domain=MICROSOFT,
    )
    net.nodes[-1].output[1] = net.nodes[-1].output[2] = ""
    ends = [
        net("MatMul", net.declare(tensor, (2, 5, 8)), net.random(8, 3), name=name)
        for tensor, name in ((normed, "one"), (summed, "two"))
    ]
    masks = _masks(one={"input": [0, 5]}, two={"input": [1, 2, 3]}, first={"output": [4]})
    made = onnx_upscale.optimize(net.model(*ends), masks, strategy="gather").model
    shapes = [weight_shape(made, name) for name in ("first", "second", "one", "two")]
    assert shapes == [(6, 8), (6, 8), (6, 3), (5, 3)]


def test_the_mean_of_a_skip_pins() -> None:
    net = Net(17, x=(2, 5, 6))
    first = net("MatMul", "x", net.random(6, 8), name="first")
    normed, mean = net.nodes_of(
        "SkipLayerNormalization",
        *(first, first, net.random(8), net.random(8)),
        outputs=2,
        domain=MICROSOFT,
    )
    net.declare(normed, (2, 5, 8)), net.declare(mean, (2, 5, 1))
    reasons = {each.reason for each in find_structure(load(net.model(normed, mean)).graph).demands}
    assert "SkipLayerNormalization: its mean or its deviation is read" in reasons


def test_what_it_adds_may_be_what_it_reads() -> None:
    """The layer takes a copy of some channels, and the sum all of them."""
    net = Net(17, x=(2, 3, 6, 6))
    first = net("Relu", net("Conv", "x", net.random(8, 3, 1, 1), name="first"))
    how = {"activation": "Relu", "domain": MICROSOFT}
    made = net("FusedConv", first, net.random(8, 8, 1, 1), "", first, name="second", **how)
    model = net.model(net.declare(made, (2, 8, 6, 6)))
    masks = _masks(second={"input": [1, 2, 5], "output": [3]})
    result = onnx_upscale.optimize(model, masks, strategy="gather").model
    assert weight_shape(result, "second") == (8, 5, 1, 1)


def test_batches_that_are_transposed_pin() -> None:
    net = Net(17, x=(2, 5, 6))
    first = net("MatMul", "x", net.random(6, 8), name="first")
    made = net("FusedMatMul", first, net.random(8, 3), transBatchA=1, domain=MICROSOFT, name="op")
    graph = load(net.model(net.declare(made, (5, 2, 3)))).graph
    assert [layer.node.title for layer in layers(graph)] == ["first"]
    assert {each.reason for each in find_structure(graph).demands} == {
        "FusedMatMul: it transposes batches"
    }


def test_an_activation_nobody_knows_pins() -> None:
    net = Net(17, x=(2, 3, 6, 6))
    made = net("FusedConv", "x", net.random(4, 3, 1, 1), activation="Mystery", domain=MICROSOFT)
    assert not list(layers(load(net.model(net.declare(made, (2, 4, 6, 6)))).graph))


@pytest.mark.parametrize("segments", [False, True])
def test_embeddings_are_read_in_any_order(segments: bool) -> None:
    """All channels of the tables stay, and readers take copies of what they need."""
    net = Net(17, x=(2, 5))
    ids = net("Cast", net("Floor", net("Abs", "x")), to=onnx.TensorProto.INT32)
    tables = [net.random(9, 8), net.random(5, 8), net.random(2, 8)]
    rows = net("Sub", ids, ids)
    read: list[Any] = [ids, rows, *tables, net.random(8), net.random(8)]
    if not segments:
        read[1] = read[4] = ""
    made, _, summed = net.nodes_of(
        "EmbedLayerNormalization", *read, outputs=3, domain=MICROSOFT, name="embed"
    )
    ends = [
        net("MatMul", net.declare(tensor, (2, 5, 8)), net.random(8, 3), name=name)
        for tensor, name in ((made, "one"), (summed, "two"))
    ]
    masks = _masks(one={"input": [0, 5]}, two={"input": [1, 2, 3]})
    for strategy in ("auto", "gather"):
        emitted = onnx_upscale.optimize(net.model(*ends), masks, strategy=strategy).model
        assert weight_shape(emitted, "embed", 2) == (9, 8)
    assert [weight_shape(emitted, name) for name in ("one", "two")] == [(6, 3), (5, 3)]


@pytest.mark.parametrize("target", _PRICES)
@pytest.mark.parametrize("case", [case for case in CASES if case.layer], ids=lambda case: case.name)
def test_layers_under_any_prices(case: Case, target: str) -> None:
    masks = case.random_masks(np.random.default_rng(7))
    expected = case.model(13, masks)
    sides: dict[str, Any] = {}
    for key, channels in masks.items():
        name, side = key.split(".")
        sides.setdefault(name, {})[side] = [int(channel) for channel in channels]
    document = _masks(**sides)
    made = onnx_upscale.optimize(case.model(13, {}), document, target=TARGETS[target], verify=False)
    inputs = input_values(expected)
    assert_close(run(expected, inputs), run(made.model, inputs), str(masks))
