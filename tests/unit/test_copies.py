"""Where copies stand in models that quantize: onnxruntime makes one node of what stays together."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import attention
import onnx_upscale
from build import Net
from mask_document import document
from onnx_upscale import page, tables, text
from targets import TARGETS

WIDTH = 8
COPIES = ("Slice", "Gather")


def rounded(net: Net, data: str, kind: Any, scales: int = 1) -> str:
    """What is left of a tensor as bytes with one scale, or with one for every channel."""
    scale = net.constant(np.full(scales, 0.02, np.float32) if scales > 1 else np.float32(0.02))
    zero = net.constant(np.full(scales, 3, kind) if scales > 1 else kind(3))
    how: dict[str, Any] = {"axis": 1} if scales > 1 else {}
    return net(
        "DequantizeLinear", net("QuantizeLinear", data, scale, zero, **how), scale, zero, **how
    )


def two_readers(kind: Any, scales: int) -> onnx.ModelProto:
    net = Net(17, x=[1, 3, 5, 5])
    made = net("Conv", "x", net.constant(net.random(WIDTH, 3, 1, 1), "w"))
    trunk = rounded(net, made, kind, scales)
    readers = [
        net("Conv", trunk, net.constant(net.random(4, WIDTH, 1, 1), name)) for name in ("r0", "r1")
    ]
    return net.model(*readers)


MASKS = {"version": 1, "masks": {"r0": {"input": [0, 1, 2, 3]}, "r1": {"input": [1, 3, 5, 6]}}}


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
@pytest.mark.parametrize("scales", [1, WIDTH])
def test_copies_stand_before_one_scale_and_behind_several(kind: Any, scales: int) -> None:
    model = onnx_upscale.optimize(two_readers(kind, scales), MASKS, strategy="gather").model
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    first = "QuantizeLinear" if scales == 1 else "DequantizeLinear"
    copies = [node for node in model.graph.node if node.op_type in COPIES]
    assert [makers[node.input[0]] for node in copies] == [first] * 2
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    readers = {makers[node.input[0]] for node in convolutions if node.input[0] in makers}
    assert readers == ({"DequantizeLinear"} if scales == 1 else {"Slice", "Gather"})


@pytest.mark.parametrize("quantized", [False, True])
def test_no_zeros_are_put_between_a_layer_and_its_rounding(quantized: bool) -> None:
    net = Net(17, x=[1, 3, 5, 5])
    parts = [
        net("Conv", "x", net.constant(net.random(WIDTH, 3, 1, 1), name)) for name in ("w0", "w1")
    ]
    if quantized:
        parts = [rounded(net, part, np.uint8) for part in parts]
    model = net.model(net("Add", *parts))
    masks = {"version": 1, "masks": {"w0": {"output": [0, 1, 2, 3]}}}
    result = onnx_upscale.optimize(model, masks, target=TARGETS["multiply-adds dear, blocks of 1"])
    pads = [node for node in result.model.graph.node if node.op_type == "Pad"]
    assert len(pads) == (not quantized)


@pytest.mark.parametrize(
    ("form", "before", "after"), [("sliced", 3, 3), ("packed", 3, 3), ("split", 0, 0)]
)
def test_the_report_tells_copies_in_place_of_others_from_more(
    form: str, before: int, after: int
) -> None:
    # Queries and keys lose a channel of every head, so that packed parts differ in width.
    masks = attention.masked(form, "qk", attention.of_each(2))
    model = attention.attention(form, masks)
    made = onnx_upscale.optimize(model, document(masks), strategy="gather")
    copies = made.report.copies
    assert (copies.replaced, copies.count) == (before, after)
    (row,) = [line.split() for line in text.plain(tables.summary(made.report)) if "copies" in line]
    assert row[1:3] == [str(before), str(after)]
    details = [card.detail for card in page.planned.copies_card(copies)]
    assert details == [f"per inference, by {n} nodes added in place of {n}" for n in (after,) if n]
