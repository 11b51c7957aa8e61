"""What changes space, or does away with it."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from builder import Builder, image_sizes
from case import Dims


def pool(b: Builder) -> None:
    data = b.pick(4, lambda s: min(image_sizes(s)[2:]) > 1)
    if data is None:
        return
    n, channels, h, w = image_sizes(b.shapes[data])
    op = b.draw(st.sampled_from(["MaxPool", "AveragePool", "LpPool"]))
    how = {"count_include_pad": int(b.chance(0.5))} if op == "AveragePool" else {}
    shape = (n, channels, h + 1, w + 1)
    b.one(op, [data], shape, kernel_shape=[2, 2], pads=[1] * 4, **how)


def pad(b: Builder) -> None:
    data = b.pick(4, lambda s: max(image_sizes(s)[2:]) < 7)
    if data is None:
        return
    n, channels, h, w = image_sizes(b.shapes[data])
    pads = b.constant([0, 0, 1, 0, 0, 0, 0, 1], np.int64)
    mode = b.draw(st.sampled_from(["constant", "edge"]))
    inputs = [data, pads]
    if mode == "constant":
        inputs.append(b.constant(float(b.chance(0.5))))
    b.one("Pad", inputs, (n, channels, h + 1, w + 1), mode=mode)


def reduce(b: Builder) -> None:
    data = b.pick(4)
    if data is None:
        return
    n, channels, h, w = image_sizes(b.shapes[data])
    op = b.draw(st.sampled_from(["ReduceMean", "ReduceSum", "ReduceL2", "ReduceMax"]))
    axes = b.draw(st.sampled_from([[2, 3], [1]]))
    keep = int(axes == [1] or b.chance(0.5))
    shape: Dims = (n, 1, h, w) if axes == [1] else (n, channels, 1, 1) if keep else (n, channels)
    if b.opset >= 18 or (op == "ReduceSum" and b.opset >= 13):
        inputs = [data, b.constant(axes, np.int64)]
        b.one(op, inputs, shape, keepdims=keep)
    else:
        b.one(op, [data], shape, keepdims=keep, axes=axes)


def resize(b: Builder) -> None:
    data = b.pick(4, lambda s: image_sizes(s)[2] <= 3)
    if data is None:
        return
    n, channels, h, w = image_sizes(b.shapes[data])
    shape, scales = (n, channels, 2 * h, 2 * w), b.constant([1, 1, 2, 2])
    roi = "" if b.opset >= 13 else b.constant([])
    b.one("Resize", [data, roi, scales], shape, mode="nearest")
