"""Layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from builder import Builder, image_sizes


def conv(
    b: Builder,
    data: str,
    outs: int,
    kernel: int = 1,
    pad: int = 0,
    group: int = 1,
    weight: tuple[str, bool] | None = None,
) -> str:
    n, ins, h, w = image_sizes(b.shapes[data])
    weight = weight or b.weight((outs, ins // group, kernel, kernel), share=group == 1)
    inputs = [data, weight[0]]
    if b.chance(0.6):
        inputs.append(b.constant(b.numbers(outs)))
    grow = 2 * pad - kernel + 1
    shape = (n, outs, h + grow, w + grow)
    attributes: dict[str, Any] = {"pads": [pad] * 4} if pad else {}
    if group > 1:
        attributes["group"] = group
    out = b.one("Conv", inputs, shape, **attributes)
    b.layer(weight, data, -3, out, -3)
    return out


def twins(b: Builder) -> None:
    """Two layers with one weight that read as many channels, but others, without masks."""
    data = b.pick(4)
    if data is None:
        return
    channels, outs = b.draw(st.integers(2, 8)), b.draw(st.integers(2, 8))
    both = [conv(b, data, channels) for _ in range(2)]
    pruned = b.some(channels)
    for turn in (0, 1):
        b.given[both[turn]] = {"output": np.flatnonzero(np.roll(pruned, turn)).tolist()}
    weight = b.weight((outs, channels, 1, 1), share=False)
    for each in both:
        conv(b, b.one("Relu", [each], b.shapes[each]), outs, weight=weight)
        b.given[list(b.shapes)[-1]] = {}


def some_conv(b: Builder) -> None:
    data = b.pick(4)
    if data is None:
        return
    kernel, pad = b.draw(st.sampled_from([(1, 0), (3, 1), (3, 0), (1, 1)]))
    if kernel == 3 and not pad and min(image_sizes(b.shapes[data])[2:]) < 3:
        pad = 1
    conv(b, data, b.draw(st.integers(1, 9)), kernel, pad)


def grouped_conv(b: Builder) -> None:
    data = b.pick(4)
    if data is None:
        return
    ins = image_sizes(b.shapes[data])[1]
    groups = [count for count in range(1, ins + 1) if ins % count == 0]
    group = groups[-1 - b.draw(st.integers(0, len(groups) - 1))]
    conv(b, data, group * b.draw(st.integers(1, 2)), 3, 1, group)


def conv_transpose(b: Builder) -> None:
    data = b.pick(4, lambda s: image_sizes(s)[2] <= 4)
    if data is None:
        return
    n, ins, h, w = image_sizes(b.shapes[data])
    group = 2 if ins % 2 == 0 and b.chance(0.4) else 1
    per_group = b.draw(st.integers(1, 4))
    weight = b.weight((ins, per_group, 2, 2), share=False)
    inputs = [data, weight[0]]
    if b.chance(0.5):
        inputs.append(b.constant(b.numbers(per_group * group)))
    shape = (n, per_group * group, 2 * h, 2 * w)
    out = b.one("ConvTranspose", inputs, shape, strides=[2, 2], group=group)
    b.layer(weight, data, -3, out, -3)


def gemm(b: Builder) -> None:
    data = b.pick(2)
    if data is None:
        return
    n, ins = b.shapes[data]
    assert isinstance(ins, int)
    outs, turned = b.draw(st.integers(1, 9)), b.chance(0.5)
    weight = b.weight((outs, ins) if turned else (ins, outs), share=False)
    inputs = [data, weight[0]]
    if b.chance(0.7):
        shape = b.draw(st.sampled_from([(outs,), (1, outs), ()]))
        inputs.append(b.constant(b.numbers(*shape)))
    scales = {"alpha": 0.5, "beta": 2.0} if b.chance(0.3) else {}
    out = b.one("Gemm", inputs, (n, outs), transB=int(turned), **scales)
    b.layer(weight, data, -1, out, -1)


def matmul(b: Builder, data: str | None = None, outs: int = 0) -> str | None:
    data = data or b.pick(b.draw(st.sampled_from([3, 2, 4])))
    if data is None:
        return None
    *rest, ins = b.shapes[data]
    assert isinstance(ins, int)
    outs = outs or b.draw(st.integers(1, 8))
    weight = b.weight((ins, outs), share=False)
    out = b.one("MatMul", [data, weight[0]], (*rest, outs))
    b.layer(weight, data, -1, out, -1)
    if b.chance(0.5):
        bias = b.constant(b.numbers(outs))
        out = b.one("Add", [out, bias][:: 1 if b.chance(0.5) else -1], (*rest, outs))
    return out


def left_matmul(b: Builder, data: str | None = None, outs: int = 0) -> str | None:
    data = data or b.pick(3)
    if data is None:
        return None
    n, ins, width = b.shapes[data]
    assert isinstance(ins, int)
    outs = outs or b.draw(st.integers(1, 6))
    weight = b.weight((outs, ins), share=False)
    out = b.one("MatMul", [weight[0], data], (n, outs, width))
    b.layer(weight, data, -2, out, -2)
    return out
