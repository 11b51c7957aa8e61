"""Attention in one operator that a caller gives something: caches, masks of tokens, queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import assert_close, input_values, run, weight_shape
from fused_attention import (
    CHANNELS,
    HEADS,
    MICROSOFT,
    NOTHING,
    TOKENS,
    WIDTH,
    FusedNet,
    columns,
    lengths,
    of_each,
    of_heads,
    optimized,
)
from mask_document import Masks

STRATEGIES = ("auto", "gather")


def cached(op: str, masks: Masks, past: bool) -> onnx.ModelProto:
    """Keys and values come from an earlier call, and go to a later one."""
    shared = HEADS if op == "MultiHeadAttention" else 2
    net = FusedNet(masks, shared, batch=1)
    own = [net.linear(name) for name in "qkv"]
    caches = ["", ""]
    length = 3 if past else 0
    if past:
        shape = (1, shared, length, WIDTH)
        caches = ["past_key", "past_value"]
        net.inputs += [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
            for name in caches
        ]
    how: dict[str, Any] = {"domain": MICROSOFT, "num_heads": HEADS}
    read = [*own, "", "", "", *caches]
    if op == "GroupQueryAttention":
        how["kv_num_heads"] = shared
        read = [*own, *caches, *lengths(net, length)]
    elif op == "Attention":
        how = {"q_num_heads": HEADS, "kv_num_heads": shared}
        read = [*own, "", *caches]
    while not read[-1]:
        read.pop()
    made = net.attend(op, *read, outputs=3, **how)
    return net.finished(*made)


@pytest.mark.parametrize("op", ["MultiHeadAttention", "GroupQueryAttention", "Attention"])
@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_caches_keep_their_heads(op: str, past: bool, strategy: str) -> None:
    """Where several heads share keys, as many of each may leave all the same."""
    shared = HEADS if op == "MultiHeadAttention" else 2
    masks = {
        "v": [*of_heads(0), *of_each(1, heads=shared)],
        "k": of_each(2, heads=shared),
        "o": [*of_heads(1, 3), *of_each(1)],
    }
    model = cached(op, masks, past)
    result = onnx_upscale.optimize(model, NOTHING, strategy=strategy)
    inputs = input_values(model)
    assert_close(run(model, inputs), run(result.model, inputs))
    layers = 2 * CHANNELS * (HEADS + shared) * WIDTH
    scores = 2 * HEADS * WIDTH * (TOKENS + 3 * past)
    assert result.report["input"]["macs"] == TOKENS * (layers + scores)
    queries = HEADS if op == "MultiHeadAttention" else 2
    assert columns(result.model)[0] == queries * WIDTH + 2 * shared * WIDTH
    reasons = {reason for each in result.report["segments"] for reason in each["pinned"]}
    assert any("caches hold all heads" in reason for reason in reasons)


def with_mask(kind: str, masks: Masks) -> onnx.ModelProto:
    """Scores to which something is added that no layer before has made a part of."""
    net = FusedNet(masks)
    own: list[Any] = [net.linear(name) for name in "qkv"]
    how: dict[str, Any] = {"domain": MICROSOFT, "num_heads": HEADS}
    shape: Sequence[int] = (1, HEADS, TOKENS, TOKENS)
    if kind == "padding":
        own += ["", np.array([[1] * TOKENS, [1] * 3 + [0] * 2], np.int32)]
    elif kind == "packed padding":
        params = [net.params(name) for name in "qkv"]
        weight, bias = (np.concatenate(each, -1) for each in zip(*params, strict=True))
        own = ["x", weight, bias, np.array([TOKENS, 3], np.int32)]
    elif kind == "made":
        shape = (TOKENS, TOKENS, 6)
        made = net("MatMul", "y", net.random(6, HEADS), name="mask")
        own += ["", "", net("Unsqueeze", net("Transpose", made, perm=[2, 0, 1]), net.ints(0))]
    else:
        shape = shape if kind == "given" else (1, 1, TOKENS, TOKENS)
        own += ["", "", "y"]
    if "padding" not in kind:
        net.inputs.append(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape))
    op = "Attention" if kind == "packed padding" else "MultiHeadAttention"
    return net.finished(net.attend(op, *own, **how)[0])


@pytest.mark.parametrize("kind", ["padding", "packed padding", "made", "given", "for all heads"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_masks_of_tokens_and_of_heads(kind: str, strategy: str) -> None:
    made = optimized(with_mask(kind, {"o": of_heads(2)}), strategy=strategy)
    left = HEADS if kind == "given" else HEADS - 1
    assert columns(made)[0] == 3 * left * WIDTH
    assert kind != "made" or weight_shape(made, "mask") == (6, HEADS - 1)


def test_a_query_that_cannot_change_keeps_all_heads() -> None:
    net = FusedNet({"o": of_heads(1)})
    net.inputs.append(
        onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (2, TOKENS, HEADS * WIDTH))
    )
    keys, values = net.linear("k"), net.linear("v")
    how: dict[str, Any] = {"domain": MICROSOFT, "num_heads": HEADS}
    model = net.finished(net.attend("MultiHeadAttention", "y", keys, values, **how)[0])
    assert columns(optimized(model)) == [2 * HEADS * WIDTH, HEADS * WIDTH]
