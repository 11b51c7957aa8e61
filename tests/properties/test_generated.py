"""Random models, random masks: what is emitted computes what the masked model computes.

`--hypothesis-profile=long` runs until it is stopped or has seen thousands of models; the default is
what a build can afford, and always the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import onnx_upscale
from build import Net, assert_close, named_outputs
from case import Case
from masked import masked
from several import emitted
from strategies import (
    cases,
    with_fused,
    with_heads,
    with_parted_axes,
    with_recurrent,
    with_split_attention,
    with_windows,
)
from targets import TARGETS

STRATEGIES = ("auto", "upscale", "gather", "constrained")
# Only `auto` asks what anything costs.
WAYS = [*(("auto", target) for target in TARGETS), *((each, "as built in") for each in STRATEGIES)]


# `tools/fuzz.py` looks at thousands of the same kinds.
some = settings(max_examples=settings().max_examples * 3 // 5)


def assert_equal(wanted: dict[str, Any], got: dict[str, Any]) -> None:
    assert list(got) == list(wanted)
    assert_close(list(wanted.values()), list(got.values()), str(list(wanted)), share=1e-3)


def bytes_of(model: onnx.ModelProto) -> bytes:
    return model.SerializeToString(deterministic=True)


def assert_same_interface(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    assert list(after.graph.input) == list(before.graph.input)
    assert list(after.graph.output) == list(before.graph.output)
    assert list(after.opset_import) == list(before.opset_import)
    assert after.ir_version == before.ir_version


def check(case: Case, ways: list[tuple[str, str]]) -> None:
    wanted = named_outputs(masked(case))
    content = bytes_of(case.model)
    free = [way for way in ways if way[0] != "constrained"]
    made = emitted(case.model, case.document, free)
    for model in made.values():
        onnx.checker.check_model(model, full_check=True)
        assert_same_interface(case.model, model)
        assert_equal(wanted, named_outputs(model))
    for strategy, target in {*ways} - {*free}:  # It equals masks of its own.
        result = onnx_upscale.optimize(
            case.model,
            case.document,
            strategy=strategy,
            target=TARGETS[target],
            rtol=1e-3,
            atol=1e-5,
        )
        onnx.checker.check_model(result.model, full_check=True)
        assert_same_interface(case.model, result.model)
    strategy, target = free[-1]
    again = onnx_upscale.optimize(
        case.model, case.document, strategy=strategy, target=TARGETS[target], verify=False
    )
    assert bytes_of(again.model) == bytes_of(made[free[-1]])
    assert bytes_of(case.model) == content


@pytest.mark.slow
@some
@given(cases(), st.lists(st.sampled_from(WAYS), min_size=4, max_size=4, unique=True))
def test_generated(case: Case, ways: list[tuple[str, str]]) -> None:
    check(case, ways)


@pytest.mark.slow
@some
@given(cases(with_fused()), st.lists(st.sampled_from(WAYS), min_size=4, max_size=4, unique=True))
def test_generated_with_fused_operators(case: Case, ways: list[tuple[str, str]]) -> None:
    check(case, ways)


@pytest.mark.slow
@some
@given(
    cases(with_split_attention()),
    st.lists(st.sampled_from(WAYS), min_size=4, max_size=4, unique=True),
)
def test_generated_with_split_attention(case: Case, ways: list[tuple[str, str]]) -> None:
    check(case, ways)


@pytest.mark.slow
@some
@given(
    cases(with_recurrent()), st.lists(st.sampled_from(WAYS), min_size=4, max_size=4, unique=True)
)
def test_generated_with_recurrent_layers(case: Case, ways: list[tuple[str, str]]) -> None:
    check(case, ways)


@pytest.mark.slow
@some
@given(
    cases(with_parted_axes()), st.lists(st.sampled_from(WAYS), min_size=4, max_size=4, unique=True)
)
def test_generated_with_parted_axes(case: Case, ways: list[tuple[str, str]]) -> None:
    check(case, ways)


@pytest.mark.slow
@some
@given(cases(with_windows()), st.lists(st.sampled_from(WAYS), min_size=4, max_size=4, unique=True))
def test_generated_with_windows(case: Case, ways: list[tuple[str, str]]) -> None:
    check(case, ways)


@pytest.mark.slow
@some
@given(cases(with_heads()), st.lists(st.sampled_from(WAYS), min_size=4, max_size=4, unique=True))
def test_generated_with_heads(case: Case, ways: list[tuple[str, str]]) -> None:
    check(case, ways)


# Counterexamples found by long runs.


def zeros_of_other_shape() -> onnx.ModelProto:
    """Two Convs share a weight; both cuts of it are zeros, as many but in another shape."""
    net: Any = Net(17, x=(1, 3, 4, 4))
    weight = net.constant(net.random(3, 3, 1, 1), "weight")
    inner = net("Relu", net("Conv", "x", weight, net.random(3), name="first"))
    model: onnx.ModelProto = net.model(net("Conv", inner, weight, net.random(3), name="second"))
    return model


def test_cuts_of_a_shared_weight_differ_in_shape() -> None:
    model = zeros_of_other_shape()
    sides = {"input": [0, 1, 2], "output": [1, 2]}
    for strategy in STRATEGIES:
        document = {"version": 1, "masks": {"weight": sides}}
        onnx_upscale.optimize(model, document, strategy=strategy)


@pytest.mark.parametrize("opset", [10, 13, 17, 21])
def test_quantized_grouped_weight_with_masks_on_both_sides(opset: int) -> None:
    """Also: the reference implementation knows DequantizeLinear from operator set 19 on only."""
    net: Any = Net(opset, x=(1, 4, 5, 5))
    other = net("Conv", "x", net.random(2, 4, 1, 1))
    stored = net.rng.integers(20, 100, (4, 2, 3, 3)).astype(np.int8)
    weight = net("DequantizeLinear", stored, np.float32(0.02), np.int8(3))
    model = net.model(net("Conv", "x", weight, net.random(4), group=2, name="conv"), other)
    values = np.where(np.ones_like(stored), (stored - np.float32(3)) * np.float32(0.02), 0)
    values = values.astype(np.float32)
    values[[0, 1], 1] = 0  # Input channel 1 belongs to the first group.
    values[2] = 0
    expected = onnx.ModelProto()
    expected.CopyFrom(model)
    conv = expected.graph.node[-1]
    bias = next(t for t in expected.graph.initializer if t.name == conv.input[2])
    numbers = numpy_helper.to_array(bias).copy()
    numbers[2] = 0
    bias.CopyFrom(numpy_helper.from_array(numbers, bias.name))
    expected.graph.initializer.append(numpy_helper.from_array(values, "masked"))
    conv.input[1] = "masked"
    document = {"version": 1, "masks": {"conv": {"input": [1], "output": [2]}}}
    for strategy in STRATEGIES[:-1]:
        result = onnx_upscale.optimize(model, document, strategy=strategy)
        assert_equal(named_outputs(expected), named_outputs(result.model))


def test_model_without_channels() -> None:
    net: Any = Net(17, x=(1, 4))
    model = net.model(net("Relu", "x"))
    assert onnx_upscale.optimize(model).model == model
