"""What onnxruntime's own tools fuse, and Einsum."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from builder import Builder, image_sizes
from parts.layers import matmul

EINSUM_SINCE = 12
MICROSOFT = "com.microsoft"
_ACTIVATIONS: dict[str, dict[str, Any]] = {
    "": {},
    "Relu": {},
    "Sigmoid": {},
    "LeakyRelu": {"activation_params": [0.2]},
    "Clip": {"activation_params": [0.1, 3.0]},
    "HardSigmoid": {"activation_params": [0.3, 0.4]},
}


def fused_conv(b: Builder) -> None:
    """An activation, and at times a sum, in a convolution; its result is not masked."""
    data = b.pick(4)
    if data is None:
        return
    n, ins, h, w = image_sizes(b.shapes[data])
    outs = b.draw(st.integers(1, 8))
    added = b.pick(4, lambda s: s[0] == n and s[2:] == (h, w)) if b.chance(0.6) else None
    if added is not None:
        outs = image_sizes(b.shapes[added])[1]
    weight = b.weight((outs, ins, 1, 1), share=False)
    bias = b.constant(b.numbers(outs)) if b.chance(0.6) else ""
    inputs = [data, weight[0], *([bias] if bias or added else []), *([added] if added else [])]
    kind = b.draw(st.sampled_from(list(_ACTIVATIONS)))
    how = {"activation": kind, **_ACTIVATIONS[kind]} if kind else {}
    out = b.one("FusedConv", inputs, (n, outs, h, w), domain=MICROSOFT, **how)
    b.layer(weight, data, -3, out, -3)
    b.given[out] = {"input": np.flatnonzero(b.some(ins)).tolist()}


def fused_matmul(b: Builder) -> None:
    """A product with a matrix, both of which may be turned."""
    data = b.pick(3)
    if data is None:
        return
    n, rows, columns = b.shapes[data]
    turned, back = b.chance(0.4), b.chance(0.5)
    ins, places = (rows, columns) if turned else (columns, rows)
    assert isinstance(ins, int)
    outs = b.draw(st.integers(1, 8))
    weight = b.weight((outs, ins) if back else (ins, outs), share=False)
    how = {"transA": int(turned), "transB": int(back), "alpha": 0.5}
    inputs = [data, weight[0]]
    out = b.one("FusedMatMul", inputs, (n, places, outs), domain=MICROSOFT, **how)
    b.layer(weight, data, -2 if turned else -1, out, -1)


def einsum(b: Builder) -> None:
    """A contraction of the last axis, or of that of channels."""
    data = b.pick(b.draw(st.sampled_from([3, 4])))
    if data is None or b.opset < EINSUM_SINCE:
        return
    shape = b.shapes[data]
    axis, equation = (2, "abc,{}->abo") if len(shape) == 3 else (1, "acde,{}->aode")
    ins, outs, turned = shape[axis], b.draw(st.integers(1, 8)), b.chance(0.5)
    assert isinstance(ins, int)
    weight = b.weight((outs, ins) if turned else (ins, outs), share=False)
    equation = equation.format("oc" if turned else "co")
    made = (*shape[:axis], outs, *shape[axis + 1 :])
    out = b.one("Einsum", [data, weight[0]], made, equation=equation)
    b.layer(weight, data, axis - len(shape), out, axis - len(shape))


def activation(b: Builder) -> None:
    """A unit of the kind of Gelu, at times with a bias over the last axis."""
    data = b.pick(b.draw(st.sampled_from([3, 4, 2])))
    if data is None:
        return
    shape = b.shapes[data]
    op = b.draw(st.sampled_from(["BiasGelu", "FastGelu", "FastGelu", "Gelu", "QuickGelu"]))
    inputs = [data]
    if op == "BiasGelu" or (op == "FastGelu" and b.chance(0.5)):
        inputs.append(b.constant(b.numbers(int(shape[-1]))))
    b.one(op, inputs, shape, domain=MICROSOFT)


def skip_norm(b: Builder) -> None:
    """The norm of a sum, which may be read as well."""
    data = b.pick(3)
    if data is None:
        return
    shape = b.shapes[data]
    skip = b.pick(3, lambda other: other == shape)
    assert skip is not None
    width = int(shape[-1])
    inputs = [data, skip, b.constant(b.numbers(width)), b.constant(b.numbers(width))]
    if b.chance(0.4):
        inputs.append(b.constant(b.numbers(width)))
    if b.chance(0.5):
        b.one("SkipLayerNormalization", inputs, shape, domain=MICROSOFT)
        return
    names = b.node("SkipLayerNormalization", inputs, shape, (), (), shape, domain=MICROSOFT)
    for place in (1, 2):
        del b.shapes[names[place]]
        b.nodes[-1].output[place] = ""


def attention(b: Builder) -> None:
    """Attention in one operator, with a mask of heads at times, and the projection behind it."""
    data = b.pick(3)
    if data is None:
        return
    n, length, channels = b.shapes[data]
    heads, width, values = (b.draw(st.integers(1, 4)) for _ in range(3))
    sizes = [heads * width, heads * width, heads * values]
    how: dict[str, Any] = {"domain": MICROSOFT, "num_heads": heads}
    bias = b.constant(b.numbers(sum(sizes)))
    if b.chance(0.4):
        weight = b.weight((int(channels), sum(sizes)), share=False)
        inputs = [data, weight[0], bias]
        how["qkv_hidden_sizes"] = sizes
        op, mask = "Attention", ["", ""]
    else:
        made = [matmul(b, data, size) for size in sizes]
        inputs = [*(each for each in made if each), *([bias] if b.chance(0.5) else [""])]
        op, mask = "MultiHeadAttention", [""]
    if isinstance(length, int) and b.chance(0.3):
        inputs += [*mask, b.constant(b.numbers(1, heads, length, length))]
    while not inputs[-1]:
        inputs.pop()
    made_by_all = b.one(op, inputs, (n, length, sizes[2]), **how)
    if op == "Attention":  # Its output channels are the columns.
        b.layer(weight, data, -1, made_by_all, -1, sum(sizes))
    out = matmul(b, made_by_all, int(channels))
    whole = np.repeat(b.some(heads), values)
    if out is not None and whole.any() and not whole.all():
        b.given[out] = {"input": np.flatnonzero(whole).tolist()}


PARTS = (fused_conv, fused_matmul, einsum, activation, skip_norm, attention)
