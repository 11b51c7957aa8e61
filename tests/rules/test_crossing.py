"""Zeros of queries and of keys: what a product of both does without, and what leads there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest

import onnx_upscale
from attention import CHANNELS, FLAT, HEADS, TOKENS, WIDTH, Attention, head, masked
from build import assert_close, input_values, run, weight_shape
from mask_document import Masks, document


class TwoProducts(Attention):
    """Queries are multiplied with keys and with something else, in ways that say so or not."""

    def __init__(self, masks: Masks, between: str) -> None:
        super().__init__("separate", masks)
        self.between = between

    def attention(self) -> onnx.ModelProto:
        queries, keys, values = self.operands()
        if self.between == "bias":
            keys = self("Add", keys, self.random(1, HEADS, 1, 1))
        if self.between == "infinite":
            keys = self("Mul", keys, np.full((1, HEADS, 1, 1), np.inf, np.float32))
        if self.between == "size":
            width = self("Gather", self("Shape", queries), np.array([3]))
            keys = self("Mul", keys, self("Sqrt", self("Cast", width, to=onnx.TensorProto.FLOAT)))
        if self.between == "scale":
            keys = self("Mul", self("ReduceMax", "x"), keys)
        if self.between in ("Relu", "Sigmoid"):
            keys = self(self.between, keys)
        if self.between == "pooled":
            queries = self("ReduceMax", queries, self.ints(2))
        if self.between == "gate":
            keys = self("Mul", keys, self.parted(self.linear("x", "g", CHANNELS, FLAT)))
        scores = self("MatMul", queries, self.turned(keys))
        if self.between == "product":
            others = self.parted(self.linear("x", "r", CHANNELS, FLAT))
            scores = self("Add", scores, self("MatMul", queries, self.turned(others)))
        mixed = self("MatMul", self("Tanh", scores), values)
        turned = self("Transpose", mixed, perm=[0, 2, 1, 3])
        flat = self("Reshape", turned, self.ints(0, -1, FLAT))
        return self.model(self.linear(flat, "o", FLAT, CHANNELS))


FINITE = ("nothing", "size", "scale", "gate", "Relu", "pooled")
OTHERS = ("product", "bias", "infinite", "Sigmoid")


@pytest.mark.parametrize("between", [*FINITE, *OTHERS])
@pytest.mark.parametrize("strategy", ["auto", "gather"])
def test_what_is_zero_for_one_product_may_not_be_for_another(between: str, strategy: str) -> None:
    masks = {"q.output": [0], "k.output": [WIDTH, 2 * WIDTH]}
    if between == "gate":
        masks = {"q.output": [0], "k.output": [WIDTH], "g.output": [2 * WIDTH]}
    model = TwoProducts({}, between).attention()
    emitted = onnx_upscale.optimize(model, document(masks), strategy=strategy).model
    inputs = input_values(model)
    expected = run(TwoProducts(masks, between).attention(), inputs)
    assert_close(expected, run(emitted, inputs))
    left = HEADS * (WIDTH - (between in FINITE))
    assert [weight_shape(emitted, name)[1] for name in "qkv"] == [left, left, FLAT]


@pytest.mark.parametrize("between", ["nothing", "Relu", "pooled", "scale"])
def test_each_head_may_have_an_order_of_its_own_on_the_way_to_a_product(between: str) -> None:
    gone = [0, 2, WIDTH + 1, WIDTH + 3, 2 * WIDTH, 2 * WIDTH + 1]
    masks = {"q.output": gone}
    model = TwoProducts({}, between).attention()
    emitted = onnx_upscale.optimize(model, document(masks), strategy="gather").model
    inputs = input_values(model)
    assert_close(run(TwoProducts(masks, between).attention(), inputs), run(emitted, inputs))
    assert [weight_shape(emitted, name)[1] for name in "qk"] == [HEADS * (WIDTH - 2)] * 2


class MixedTokens(Attention):
    """Tokens are mixed by a layer before queries, keys and values are packed, in windows."""

    def linear(self, tensor: str, name: str, inputs: int, outputs: int) -> str:
        if name == "qkv":
            tensor = self("MatMul", self.random(TOKENS, TOKENS), tensor, name="mix")
        return super().linear(tensor, name, inputs, outputs)


@pytest.mark.parametrize("form", ["windows", "image"])
@pytest.mark.parametrize("strategy", ["auto", "gather"])
def test_tokens_that_a_layer_makes_stay_where_windows_merge_them(form: str, strategy: str) -> None:
    """A mask on tokens reaches the Reshape that splits channels and merges what is around them."""
    model = MixedTokens(form, {}).attention()
    masks: dict[str, Sequence[int]] = {"mix.output": [1, 3], **masked(form, "o", head(1))}
    emitted = onnx_upscale.optimize(model, document(masks), strategy=strategy).model
    assert weight_shape(emitted, "o")[0] == FLAT - WIDTH
    assert weight_shape(emitted, "qkv")[1] == 3 * (FLAT - WIDTH)
