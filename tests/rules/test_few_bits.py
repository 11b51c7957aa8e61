"""Matrices of few bits: outputs leave one by one, inputs in the blocks that share a scale.

The expected model has real numbers in their place, with zeros where masks say so.
"""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnx_upscale
from build import Array, assert_close, input_values, node, run, weight_shape
from few_bits import BLOCK, KINDS, BitsNet, Form, packed, runs
from mask_document import Masks, document
from onnx_upscale.optimizer.analyze import find_structure
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.load.layers import layers
from onnx_upscale.optimizer.plan import Costs
from onnx_upscale.prices import Counts
from several import emitted
from targets import TARGETS

PROFILES = ("as built in", "copies free", "copies dear", "blocks of 8", "copies free, align 2")
WAYS = (("upscale", "as built in"), *(("auto", profile) for profile in PROFILES))
READ, INNER = 4 * BLOCK, 3 * BLOCK
SIZES = {"first": (40, READ), "op": (READ, INNER), "last": (INNER, 5)}
SECOND = range(BLOCK, 2 * BLOCK)

FORMS = {
    "4 bits": Form(),
    "4 bits, no zero points": Form(zeros="none"),
    "4 bits, real zero points": Form(zeros="real"),
    "4 bits, flat, with a bias": Form(flat=True, bias=True),
    "8 bits": Form(bits=8),
    "8 bits, no zero points": Form(bits=8, zeros="none"),
    "2 bits": Form(bits=2),
    "2 bits, no zero points": Form(bits=2, zeros="none", bias=True),
    "blocks of 32": Form(block=32),
    "uint4 behind MatMul": Form("MatMul"),
    "int4 behind MatMul": Form("MatMul", numbers="int4", bias=True),
    "int4 without zero points": Form("MatMul", numbers="int4", zeros="none"),
    "uint8 behind Gemm": Form("Gemm", bits=8, numbers="uint8"),
    "int4 behind Gemm": Form("Gemm", numbers="int4"),
    "int8 behind Conv": Form("Conv", bits=8, numbers="int8"),
    "uint4 behind Conv": Form("Conv"),
}
FORMS = {name: form for name, form in FORMS.items() if form.bits != 2 or runs(2)}


def build(form: Form, masks: Masks, real: bool, first: str = "Relu", **sizes: Any) -> Any:
    """Three products in a row; the last one may be one of real numbers."""
    seed = zlib.crc32(repr((form, first)).encode())
    net = BitsNet(seed, form, masks, real, x=(2, 3, 40))
    read, inner = sizes.get("read", READ), sizes.get("inner", INNER)
    made = net(first, net.product("x", "first", 40, read))
    made = net("Relu", net.product(made, "op", read, inner))
    if sizes.get("plain"):
        weight = net.random(inner, 5)
        weight[net.gone("last.input")] = 0
        return finished(net, net("MatMul", made, weight, name="last"))
    return finished(net, net.product(made, "last", inner, 5))


def finished(net: BitsNet, result: str) -> onnx.ModelProto:
    """The model, whose result has a shape although onnx does not know what makes it."""
    net.declare(result, (2, 3, 5))
    model = net.model(result)
    value = onnx.helper.make_tensor_value_info(result, 1, (2, 3, 5))
    model.graph.output[0].CopyFrom(value)
    return model


def check(form: Form, masks: Masks, strategy: str = "gather", **how: Any) -> onnx.ModelProto:
    """The emitted model, which must compute what the real one does under the masks."""
    target = how.pop("target", "cpu")
    original, expected = build(form, {}, False, **how), build(form, masks, True, **how)
    result = onnx_upscale.optimize(original, document(masks), strategy=strategy, target=target)
    assert result.report["verify"]["ok"]
    inputs = input_values(original)
    assert_close(run(expected, inputs), run(result.model, inputs), f"{masks}")
    return result.model


def sizes(model: onnx.ModelProto, name: str) -> tuple[int, int]:
    """Output and input channels of a product, as everything that it reads says."""
    found = node(model, name)
    assert found is not None
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    if found.op_type == "MatMulNBits":
        told = {a.name: a.i for a in found.attribute}
        outputs, inputs, block, bits = told["N"], told["K"], told["block_size"], told["bits"]
        blocks = -(-inputs // block)
        assert tuple(stored[found.input[1]].dims) == (outputs, blocks, block * bits // 8)
        scale = stored[found.input[2]].dims
        assert np.prod(scale) == outputs * blocks
        if found.input[3] and stored[found.input[3]].data_type == onnx.TensorProto.UINT8:
            per_row = -(-blocks * bits // 8)
            assert np.prod(stored[found.input[3]].dims) == outputs * per_row
        return outputs, inputs
    makers = {name: each for each in model.graph.node for name in each.output}
    maker = makers[found.input[1]]
    assert maker.op_type == "DequantizeLinear", "it is no longer quantized"
    shape = tuple(stored[maker.input[0]].dims)
    if found.op_type == "MatMul":
        return shape[1], shape[0]
    return shape[0], shape[1]


def random_masks(seed: int, form: Form) -> Masks:
    """Whole blocks, and single channels."""
    rng = np.random.default_rng(seed)
    masks: dict[str, list[int]] = {}
    for name, (inputs, outputs) in SIZES.items():
        for side, count in (("input", inputs), ("output", outputs)):
            gone = rng.random(count) < rng.choice([0, 0.3, 0.7])
            if count % form.block == 0:
                gone |= (rng.random(count // form.block) < 0.4).repeat(form.block)
            masks[f"{name}.{side}"] = np.flatnonzero(gone)[: count - 1].tolist()
    return masks


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("first", ["Relu", "Sigmoid"])
def test_random_masks(name: str, first: str) -> None:
    form = FORMS[name]
    for seed in range(3):
        masks = random_masks(seed, form)
        check(form, masks, first=first)
        original, expected = (
            build(form, *how, first=first) for how in (({}, False), (masks, True))
        )
        inputs = input_values(original)
        wanted = run(expected, inputs)
        for way, model in emitted(original, document(masks), WAYS).items():
            assert_close(wanted, run(model, inputs), f"{way}: {masks}")


@pytest.mark.parametrize("name", [each for each in FORMS if FORMS[each].block == BLOCK])
@pytest.mark.parametrize("strategy", ["auto", "gather"])
def test_whole_blocks_of_inputs_leave(name: str, strategy: str) -> None:
    masks = {"op.input": [*SECOND, 3, 50]}
    model = check(FORMS[name], masks, strategy, target=TARGETS["blocks of 1"])
    assert sizes(model, "op") == (INNER, READ - BLOCK)
    assert sizes(model, "first") == (READ - BLOCK, 40)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("strategy", ["auto", "gather"])
def test_outputs_leave_one_by_one(name: str, strategy: str) -> None:
    masks = {"last.input": [1, 4, 5], "op.output": [17]}
    model = check(FORMS[name], masks, strategy, plain=True, target=TARGETS["blocks of 1"])
    assert sizes(model, "op") == (INNER - 4, READ)
    assert weight_shape(model, "last")[0] == INNER - 4


@pytest.mark.parametrize("name", [each for each in FORMS if FORMS[each].block == BLOCK])
def test_what_is_known_of_a_whole_block_goes_into_the_bias(name: str) -> None:
    model = check(FORMS[name], {"first.output": [*SECOND, 2]}, first="Sigmoid")
    assert sizes(model, "op") == (INNER, READ - BLOCK)


@pytest.mark.parametrize("name", FORMS)
def test_parts_of_blocks_stay(name: str) -> None:
    masks = {"op.input": [place for place in range(READ) if place % BLOCK]}
    assert sizes(check(FORMS[name], masks), "op") == (INNER, READ)


@pytest.mark.parametrize("name", ["4 bits", "8 bits", "uint4 behind MatMul"])
def test_inputs_stay_where_the_last_block_is_not_full(name: str) -> None:
    model = check(FORMS[name], {"op.input": [*SECOND, *range(64, 72)]}, read=72)
    assert sizes(model, "op") == (INNER, 72)


@pytest.mark.parametrize("name", ["4 bits", "8 bits", "uint4 behind MatMul", "int4 behind Gemm"])
def test_inputs_of_one_block_leave_one_by_one(name: str) -> None:
    form = dataclasses.replace(FORMS[name], block=128)
    model = check(form, {"op.input": [3, 20, 50]})
    assert sizes(model, "op") == (INNER, READ - 3)
    assert sizes(model, "first") == (READ - 3, 40)


def test_nothing_leaves_where_blocks_may_hold_channels_that_are_not_adjacent() -> None:
    """Kernels do not agree on what the g_idx of a MatMulNBits means."""
    model = build(FORMS["4 bits"], {}, False)
    found = node(model, "op")
    assert found is not None
    index = np.arange(READ, dtype=np.int32) // BLOCK
    model.graph.initializer.append(numpy_helper.from_array(index, "index"))
    found.input.append("index")
    with pytest.raises(onnx_upscale.MaskError, match="g_idx"):
        onnx_upscale.optimize(model, document({"op.input": SECOND}))
    masks = {"first.output": [*SECOND], "last.input": [*range(BLOCK)]}
    result = onnx_upscale.optimize(model, document(masks), strategy="gather")
    assert sizes(result.model, "op") == (INNER, READ)
    assert sizes(result.model, "last") == (5, INNER)


def test_outputs_leave_in_blocks_where_these_share_scales() -> None:
    """A DequantizeLinear may have its blocks along the outputs."""

    def made(masks: Masks, real: bool) -> onnx.ModelProto:
        net = BitsNet(3, Form("MatMul"), masks, real, x=(2, 3, READ))
        matrix = net.matrix("turned", 4 * BLOCK, READ)  # Blocks lie along what are outputs here.
        numbers = [matrix.numbers.copy(), matrix.scale, matrix.zero]
        for place in net.gone("op.output"):
            numbers[0][:, place] = matrix.zero[:, place // BLOCK]
        if real:
            real_matrix = dataclasses.replace(matrix, numbers=numbers[0])
            data = net("MatMul", "x", real_matrix.real, name="op")
        else:
            parts = [
                numbers[0].astype(KINDS["uint4"]),
                numbers[1],
                numbers[2].astype(KINDS["uint4"]),
            ]
            weight = net("DequantizeLinear", *parts, axis=1, block_size=BLOCK)
            data = net("MatMul", "x", weight, name="op")
        last = net.random(4 * BLOCK, 5)
        last[net.gone("last.input")] = 0
        return net.model(net("MatMul", net("Relu", data), last, name="last"))

    masks = {"last.input": [*SECOND, 3], "op.output": [*range(50, 64)]}
    original, expected = made({}, False), made(masks, True)
    inputs = input_values(original)
    for strategy in ("gather", "auto"):
        for target in PROFILES:
            model = onnx_upscale.optimize(
                original, document(masks), strategy=strategy, target=TARGETS[target]
            ).model
            assert_close(run(expected, inputs), run(model, inputs))
            assert sizes(model, "op") == (3 * BLOCK, READ)


def test_counts_that_a_reader_likes_are_whole_blocks() -> None:
    """Whatever count the target would like."""
    graph = load(build(FORMS["4 bits"], {}, False)).graph
    structure = find_structure(graph)
    prices = mock.Mock()
    prices.counts.return_value = Counts(least=20, aligned=20, whole=40)
    (_, layer, _) = structure.layers.values()
    assert Costs(structure, prices).liked(layer, 16) == (2 * BLOCK,)


@pytest.mark.parametrize("key", ["op", "op.weight", "op.0"])
@pytest.mark.parametrize("name", ["4 bits", "uint4 behind MatMul"])
def test_layers_are_named_by_weight_node_and_result(name: str, key: str) -> None:
    masks = {"version": 1, "masks": {key: {"input": list(SECOND)}}}
    model = onnx_upscale.optimize(build(FORMS[name], {}, False), masks).model
    assert sizes(model, "op") == (INNER, READ - BLOCK)


@pytest.mark.parametrize("name", ["4 bits", "8 bits", "uint4 behind MatMul"])
@pytest.mark.parametrize(
    ("side", "mask", "message"),
    [
        ("input", {"mask": [1] * (READ // 2)}, "has 32 entries, but the layer has 64 channels"),
        ("input", [READ], "channel 64 is out of range: use 0 to 63"),
        ("output", [INNER], "channel 48 is out of range: use 0 to 47"),
        ("output", {"mask": [1] * READ}, "has 64 entries, but the layer has 48 channels"),
    ],
)
def test_masks_of_a_wrong_size(name: str, side: str, mask: Any, message: str) -> None:
    masks = {"version": 1, "masks": {"op.weight": {side: mask}}}
    with pytest.raises(onnx_upscale.MaskError, match=message):
        onnx_upscale.optimize(build(FORMS[name], {}, False), masks)


def _changed(model: onnx.ModelProto, name: str, value: Array) -> None:
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(value, name))


def test_a_mask_is_refused_where_no_number_stands_for_zero() -> None:
    model = build(FORMS["4 bits, real zero points"], {}, False)
    found = node(model, "op")
    assert found is not None
    zero = next(t for t in model.graph.initializer if t.name == found.input[3])
    _changed(model, zero.name, numpy_helper.to_array(zero) + np.float32(0.5))
    masks = {"version": 1, "masks": {"op": {"input": [1]}}}
    with pytest.raises(onnx_upscale.MaskError, match="stands for zero"):
        onnx_upscale.optimize(model, masks)
    result = onnx_upscale.optimize(model, {"version": 1, "masks": {"last": {"input": [1]}}})
    assert sizes(result.model, "op") == (INNER, READ)


@pytest.mark.parametrize("attribute", ["weight_prepacked", "anything"])
def test_what_nobody_knows_the_layout_of_is_no_layer(attribute: str) -> None:
    model = build(FORMS["4 bits"], {}, False)
    found = node(model, "op")
    assert found is not None
    found.attribute.append(onnx.helper.make_attribute(attribute, 1))
    assert [layer.node.title for layer in layers(load(model).graph)] == ["first", "last"]


def test_a_masked_channel_of_a_kept_block_is_its_zero_point() -> None:
    masks = {"op.input": [3], "op.output": [2]}
    model = build(FORMS["4 bits"], {}, False)
    emitted = onnx_upscale.optimize(model, document(masks), strategy="gather").model
    found = node(emitted, "op")
    assert found is not None
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in emitted.graph.initializer}
    numbers = build_matrix(FORMS["4 bits"], masks)
    np.testing.assert_array_equal(stored[found.input[1]].reshape(INNER, -1), packed(numbers, 4))


def build_matrix(form: Form, masks: Masks) -> Array:
    """The numbers of `op`, drawn again."""
    net = BitsNet(zlib.crc32(repr((form, "Relu")).encode()), form, masks, False)
    net.matrix("first", 40, READ)
    net.random(READ)
    return net.matrix("op", READ, INNER).numbers


def test_two_readers_of_one_weight_have_masks_of_their_own() -> None:
    def made(masks: Masks, real: bool) -> onnx.ModelProto:
        results, net = [], BitsNet(5, Form(), masks, real, x=(2, 3, 40))
        data = net("Relu", net.product("x", "first", 40, READ))
        for name in ("one", "two"):
            net.rng = np.random.default_rng(5)
            results.append(net.product(data, name, READ, INNER))
        last = [net("MatMul", result, net.random(INNER, 5)) for result in results]
        model = finished(net, net("Add", *last))
        second = node(model, "two")
        if second is not None and not real:
            second.input[1] = "one.weight"
        return model

    masks = {"one.input": [*SECOND, 1], "two.output": [4, 5]}
    original, expected = made({}, False), made(masks, True)
    inputs = input_values(original)
    result = onnx_upscale.optimize(original, document(masks), strategy="gather")
    assert_close(run(expected, inputs), run(result.model, inputs))
    assert sizes(result.model, "one") == (INNER, READ - BLOCK)
    assert sizes(result.model, "two") == (INNER - 2, READ)


def test_leave_to_compute_less_exactly_is_kept_and_does_not_hide_a_difference() -> None:
    # What is left of a block has another range, and would be rounded in other steps.
    masks = document({"op.input": [place for place in range(READ) if place % BLOCK]})
    model = build(FORMS["4 bits"], {}, False)
    for each in model.graph.node:
        if each.op_type == "MatMulNBits":
            each.attribute.append(onnx.helper.make_attribute("accuracy_level", 4))
    result = onnx_upscale.optimize(model, masks)
    assert result.report["verify"]["ok"]
    assert result.report["verify"]["noise"] is None, "it was compared with its own noise"
    found = node(result.model, "op")
    assert found is not None
    assert {a.name: a.i for a in found.attribute}["accuracy_level"] == 4
