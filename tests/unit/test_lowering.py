"""From nodes to kernels: what is fused, reordered, decoded, or runs on bytes."""

from __future__ import annotations

import pytest

from onnx_upscale.prices import Program, Step, works_on_blocks
from onnx_upscale.prices.kernels import Widths
from onnx_upscale.prices.lower import lower


def lowered(*steps: Step) -> list[str]:
    """The families of what is run behind the two convolutions that make `a` and `b` of `x`."""
    shapes = {name: (1, 8, 5, 2) for name in "xabcde"}
    shapes["whole"] = (1, 16, 5, 2)
    makers = [Step("Conv", ("x",), (name,), weighted=True) for name in "ab"]
    return [kernel.family for kernel in lower(Program((*makers, *steps), shapes), Widths(8))][3:]


def test_a_concat_counted_from_the_end_is_plain_and_reorders_its_parts() -> None:
    concat = Step("Concat", ("a", "b"), ("whole",))
    assert lowered(concat) == ["concat"]
    away = concat._replace(axis=-3)
    assert lowered(away) == ["reorder_out", "reorder_out", "concat"]
    assert lowered(away, away._replace(outputs=("c",))).count("reorder_out") == 2


def quantized(*steps: Step) -> list[str]:
    """The families of what is run behind a quantized convolution that makes `c` of `a`, real."""
    layer = Step("Conv", ("a8",), ("b",), weighted=True, in_bytes=True, window=9)
    first = [
        Step("QuantizeLinear", ("a",), ("q",)),
        Step("DequantizeLinear", ("q",), ("a8",)),
        layer,
        Step("QuantizeLinear", ("b",), ("r",)),
        Step("DequantizeLinear", ("r",), ("c",)),
    ]
    shapes = {name: (1, 16, 5, 2) for name in ("a", "q", "a8", "b", "r", "c", "d", "e", "f")}
    maker = Step("Conv", ("x",), ("a",), weighted=True)
    shapes |= {"x": (1, 8, 5, 2), "odd": (1, 12, 5, 2)}
    return [kernel.family for kernel in lower(Program((maker, *first, *steps), shapes), Widths(8))][
        2:
    ]


def test_bytes_go_on_between_quantized_layers() -> None:
    encoded = ["reorder_out", "simple", "bytes"]  # A real convolution leaves blocks.
    assert quantized() == encoded
    again = Step("Conv", ("c",), ("d",), weighted=True, in_bytes=True)
    assert quantized(again) == [*encoded, "bytes_pointwise"]
    total = Step("Add", ("c", "c"), ("d",))
    assert quantized(total, again._replace(inputs=("d",))) == [
        *(*encoded, "simple", "bytes_pointwise")
    ]
    product = Step("MatMul", ("c",), ("d",), axis=1, made_axis=1, weighted=True, in_bytes=True)
    assert quantized(product) == [*encoded, "bytes_product"]


def test_sums_of_whole_numbers_have_no_ragged_counts() -> None:
    layer = Step("Conv", ("c",), ("odd",), weighted=True, in_bytes=True)
    assert quantized(layer)[3:] == ["ragged_pointwise"]
    assert quantized(layer._replace(op="ConvInteger"))[3:] == ["bytes_pointwise"]


def test_operators_of_whole_numbers_need_no_real_ones() -> None:
    total = Step("QLinearAdd", ("c", "c"), ("d",))
    layer = Step("QLinearConv", ("d",), ("e",), weighted=True, in_bytes=True)
    assert quantized(total, layer)[3:] == ["simple", "bytes_pointwise"]


def test_bytes_are_decoded_once_for_those_who_want_real_numbers() -> None:
    first = Step("Exp", ("c",), ("d",))
    second = first._replace(outputs=("e",))
    assert quantized(first, second)[3:] == ["simple", "costly", "costly"]


def test_copies_of_bytes_are_of_rows_or_turned() -> None:
    cut = Step("Slice", ("c",), ("d",))
    assert quantized(cut)[3:] == ["slice_last"]
    assert quantized(cut._replace(op="Gather"))[3:] == ["reorder_out", "reorder_in", "gather"]


def test_scaling_brings_the_blocked_layout_about() -> None:
    gather = Step("Gather", ("a",), ("c",))
    scale = Step("Conv", ("c",), ("d",), weighted=True, groups=8)
    relu = Step("Relu", ("d",), ("e",))
    assert lowered(gather, scale, relu) == ["reorder_out", "gather", "reorder_in", "scale"]


@pytest.mark.parametrize(
    ("op", "alike", "behind", "blocked"),
    [
        ("Conv", False, False, True),
        ("Relu", False, False, True),
        ("Shape", False, False, True),
        ("Mul", True, False, True),
        ("Mul", False, False, False),
        ("Clip", False, False, False),
        ("Clip", False, True, True),
        ("ReduceMean", False, True, False),
    ],
)
def test_who_works_on_blocks(op: str, alike: bool, behind: bool, blocked: bool) -> None:
    assert works_on_blocks(op, alike, behind) == blocked
