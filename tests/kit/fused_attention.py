"""Attention in one operator, in the forms that tools write, with zeros where masks say so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

import onnx_upscale
from build import Floats, Net, assert_close, input_values, run, weight_shape
from mask_document import Masks

MICROSOFT = "com.microsoft"
HEADS, WIDTH, TOKENS, CHANNELS = 4, 16, 5, 8

"""Channels that are zero, by `q`, `k` and `v` (what is made) and `o` (what is read)."""


NOTHING: dict[str, Any] = {"version": 1, "masks": {}}


def of_heads(*heads: int, width: int = WIDTH) -> list[int]:
    """The channels of some heads."""
    return [head * width + each for head in heads for each in range(width)]


def of_each(*channels: int, heads: int = HEADS, width: int = WIDTH) -> list[int]:
    """Some channels of every head."""
    return [head * width + each for head in range(heads) for each in channels]


class FusedNet(Net):
    """Attention in one operator.

    Attributes:
        masks: What is zero.
        shared: How many heads keys and values have.
        width: How many channels a head of the values has.
        batch: How many inputs there are.
    """

    def __init__(
        self, masks: Masks, shared: int = HEADS, width: int = WIDTH, batch: int = 2
    ) -> None:
        super().__init__(23, x=(batch, TOKENS, CHANNELS))
        self.masks, self.shared, self.width, self.batch = masks, shared, width, batch

    def params(self, name: str) -> tuple[Floats, Floats]:
        """Weight and bias of queries, keys or values."""
        heads = HEADS if name == "q" else self.shared
        made = heads * (self.width if name == "v" else WIDTH)
        weight, bias = self.random(CHANNELS, made), self.random(made)
        weight /= 2
        gone = list(self.masks.get(name, ()))
        weight[:, gone] = 0
        bias[gone] = 0
        return weight, bias

    def linear(self, name: str) -> str:
        """Queries, keys or values, by a layer of their own."""
        weight, bias = self.params(name)
        made = self.constant(weight, f"{name}.weight")
        return self("Add", self("MatMul", "x", made, name=name), bias)

    def by_heads(self, tensor: str, heads: int) -> str:
        """(batch, tokens, channels) to (batch, heads, tokens, channels of a head)."""
        cut = self("Reshape", tensor, self.ints(0, TOKENS, heads, -1))
        return self("Transpose", cut, perm=[0, 2, 1, 3])

    def attend(self, op: str, *inputs: str | Floats, outputs: int = 1, **how: Any) -> list[str]:
        """The node."""
        return self.nodes_of(op, *inputs, name="attention", outputs=outputs, **how)

    def finished(self, tensor: str, *others: str) -> onnx.ModelProto:
        """The projection behind it; the shapes of other outputs are left open."""
        weight = self.random(HEADS * self.width, CHANNELS)
        weight[list(self.masks.get("o", ()))] = 0
        last = self("MatMul", tensor, self.constant(weight, "o.weight"), name="o")
        model = self.model(last, *others)
        shape = (self.batch, TOKENS, CHANNELS)
        model.graph.output[0].CopyFrom(
            helper.make_tensor_value_info(last, TensorProto.FLOAT, shape)
        )
        for value in model.graph.output[1:]:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
        return model


def _of_layers(net: FusedNet, **how: Any) -> str:
    own = [net.linear(name) for name in "qkv"]
    return net.attend("MultiHeadAttention", *own, domain=MICROSOFT, num_heads=HEADS, **how)[0]


def product(net: FusedNet) -> str:
    """Queries, keys and values by one layer, without their biases."""
    weights = [net.params(name)[0] for name in "qkv"]
    return net("MatMul", "x", net.constant(np.concatenate(weights, 1), "qkv.weight"), name="qkv")


def _biased(net: FusedNet, one: bool = False, masked: bool = False) -> str:
    """With the biases in one piece; if `one`, of one product."""
    weights, biases = zip(*(net.params(name) for name in "qkv"), strict=True)
    if one:
        sizes = net.ints(*(weight.shape[1] for weight in weights))
        own = net.nodes_of("Split", product(net), sizes, outputs=3, axis=2)
    else:
        own = [
            net("MatMul", "x", net.constant(weight, f"{name}.weight"), name=name)
            for name, weight in zip("qkv", weights, strict=True)
        ]
    added: list[str | Floats] = [np.concatenate(biases)]
    if masked:
        added += ["", net.random(1, HEADS, TOKENS, TOKENS)]
    how: dict[str, Any] = {"domain": MICROSOFT, "num_heads": HEADS}
    return net.attend("MultiHeadAttention", *own, *added, **how)[0]


def _packed(net: FusedNet, **how: Any) -> str:
    """With the weight inside."""
    weights, biases = zip(*(net.params(name) for name in "qkv"), strict=True)
    if net.width != WIDTH:
        how["qkv_hidden_sizes"] = [weight.shape[1] for weight in weights]
    weight = net.constant(np.concatenate(weights, 1), "qkv.weight")
    bias = np.concatenate(biases)
    how |= {"domain": MICROSOFT, "num_heads": HEADS}
    return net.attend("Attention", "x", weight, bias, **how)[0]


def rotations(net: FusedNet) -> tuple[str, str]:
    """Cosines and sines, by position and pair of channels."""
    angles = np.outer(np.arange(2 * TOKENS), 1 / 10 ** (np.arange(WIDTH // 2) / 2))
    return (
        net.constant(np.cos(angles).astype(np.float32)),
        net.constant(np.sin(angles).astype(np.float32)),
    )


def lengths(net: FusedNet, past: int = 0) -> tuple[str, str]:
    """How many tokens GroupQueryAttention sees of each of a batch, and at most."""
    total = past + TOKENS
    return (
        net.constant(np.full(net.batch, total - 1, np.int32)),
        net.constant(np.array(total, np.int32)),
    )


def _grouped(net: FusedNet, rotary: bool = False, one: bool = False, sinks: bool = False) -> str:
    own = [product(net), "", ""] if one else [net.linear(name) for name in "qkv"]
    caches = rotations(net) if rotary else ()
    how: dict[str, Any] = {"num_heads": HEADS, "kv_num_heads": net.shared, "do_rotary": int(rotary)}
    read = [*own, "", "", *lengths(net), *caches]
    if sinks:
        read += [""] * (11 - len(read)) + [net.constant(net.random(HEADS))]
    return net.attend("GroupQueryAttention", *read, outputs=3, domain=MICROSOFT, **how)[0]


def _standard(net: FusedNet, **how: Any) -> str:
    own = [net.linear(name) for name in "qkv"]
    how |= {"q_num_heads": HEADS, "kv_num_heads": net.shared}
    return net.attend("Attention", *own, **how)[0]


def _by_heads(net: FusedNet, rotated: int = 0, masked: bool = False, standard: bool = True) -> str:
    own = [net.by_heads(net.linear(name), HEADS if name == "q" else net.shared) for name in "qkv"]
    if rotated:
        caches = rotations(net)
        places = net.constant(np.tile(np.arange(TOKENS), (2, 1)))
        how: dict[str, Any] = {"domain": MICROSOFT, "num_heads": HEADS}
        how |= {"rotary_embedding_dim": WIDTH}
        own[:rotated] = [
            net("RotaryEmbedding", each, *caches, places)
            if standard
            else net("RotaryEmbedding", each, places, *caches, **how)
            for each in own[:rotated]
        ]
    mask = [net.random(HEADS, TOKENS, TOKENS)] if masked else []
    made = net.attend("Attention", *own, *mask)[0]
    turned = net("Transpose", made, perm=[0, 2, 1, 3])
    return net("Reshape", turned, net.ints(0, TOKENS, HEADS * net.width))


def _rotated(net: FusedNet, standard: bool = False, rotated: int = 2) -> str:
    own = [net.linear(name) for name in "qkv"]
    places, caches = net.constant(np.tile(np.arange(TOKENS), (2, 1))), rotations(net)
    if standard:
        own[:rotated] = [
            net("RotaryEmbedding", each, *caches, places, num_heads=HEADS) for each in own[:rotated]
        ]
    else:
        own[:rotated] = [
            net("RotaryEmbedding", each, places, *caches, domain=MICROSOFT)
            for each in own[:rotated]
        ]
    return net.attend("MultiHeadAttention", *own, domain=MICROSOFT, num_heads=HEADS)[0]


@dataclass(frozen=True)
class Form:
    """One way to write attention.

    Attributes:
        build: Makes the result from a net.
        shared: How many heads keys and values have.
        width: How many channels a head of the values has.
        scores: Whether channels of queries and keys may leave.
        values: Whether channels of values may leave.
    """

    build: Callable[[FusedNet], str]
    shared: int = HEADS
    width: int = WIDTH
    scores: bool = True
    values: bool = True

    def model(self, masks: Masks) -> onnx.ModelProto:
        """The model with zeros where masks say so."""
        net = FusedNet(masks, self.shared, self.width)
        return net.finished(self.build(net))

    def columns(self, queries: int, shared: int, scores: int, values: int) -> list[int]:
        """How many channels queries, keys and values have together, and how many the result."""
        made = queries * scores + shared * (scores + values)
        return [made, queries * values]


FORMS = {
    "layers": Form(_of_layers),
    "scaled": Form(partial(_of_layers, scale=0.5)),
    "scaled by default": Form(partial(_of_layers, scale=0.0)),
    "causal": Form(partial(_of_layers, unidirectional=1)),
    "values of another size": Form(_of_layers, width=4),
    "biased": Form(_biased),
    "biased, values of another size": Form(_biased, width=4),
    "mask by heads": Form(partial(_biased, masked=True)),
    "one product": Form(partial(_biased, one=True)),
    "packed": Form(_packed),
    "packed, values of another size": Form(_packed, width=4),
    "packed, causal": Form(partial(_packed, unidirectional=1)),
    "groups": Form(_grouped, shared=2, scores=False, values=False),
    "groups, rotary": Form(partial(_grouped, rotary=True), shared=2, scores=False, values=False),
    "groups, sinks": Form(partial(_grouped, sinks=True), shared=2, scores=False, values=False),
    "groups, one product": Form(
        partial(_grouped, rotary=True, one=True), shared=2, scores=False, values=False
    ),
    "standard": Form(_standard),
    "standard, causal": Form(partial(_standard, is_causal=1)),
    "standard, groups": Form(_standard, shared=2),
    "standard, values of another size": Form(_standard, width=4),
    "standard, by heads": Form(_by_heads),
    "standard, by heads, groups": Form(_by_heads, shared=2),
    "standard, by heads, masked": Form(partial(_by_heads, masked=True)),
    "standard, by heads, rotary": Form(partial(_by_heads, rotated=2), scores=False),
    "standard, by heads, rotary of onnxruntime": Form(
        partial(_by_heads, rotated=2, standard=False), scores=False
    ),
    "standard, by heads, queries rotated": Form(partial(_by_heads, rotated=1), scores=False),
    "rotated": Form(_rotated, scores=False),
    "queries rotated": Form(partial(_rotated, rotated=1), scores=False),
    "rotated by the standard": Form(partial(_rotated, standard=True), scores=False),
}


def optimized(
    model: onnx.ModelProto, what: str = "", wanted: onnx.ModelProto | None = None, **how: Any
) -> onnx.ModelProto:
    """What is left of a model, compared with what it, or another one, computes.

    Without masks `verify` would compare the same again.
    """
    masks = how.pop("masks", NOTHING)
    emitted = onnx_upscale.optimize(model, masks, verify=masks is not NOTHING, **how).model
    inputs = input_values(model)
    assert_close(run(wanted or model, inputs), run(emitted, inputs), what)
    return emitted


def columns(model: onnx.ModelProto) -> list[int]:
    """How many channels are left of queries, keys and values together, and of the result."""
    made = [weight_shape(model, name) for name in ("q", "k", "v", "qkv")]
    made += [weight_shape(model, "attention")] if not any(made) else []
    return [sum(shape[1] for shape in made if shape), weight_shape(model, "o")[0]]
