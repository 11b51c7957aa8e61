"""Parts made of other parts: branches that meet, and layers in a row."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from builder import Builder, image_sizes
from parts.layers import conv, matmul, some_conv
from parts.movement import sequence
from parts.values import activation, batch_norm


def join(b: Builder) -> None:
    data = b.pick(b.draw(st.sampled_from([4, 2, 3])))
    if data is None:
        return
    shape = b.shapes[data]
    other = b.pick(len(shape), lambda s: s == shape) or data
    op = b.draw(st.sampled_from(["Add", "Mul", "Sub", "Max"]))
    if op == "Mul":  # Keeps values small.
        other = b.one("Tanh", [other], shape)
    b.one(op, [data, other], shape)


def residual(b: Builder) -> None:
    data = b.pick(4)
    if data is None:
        return
    inner = conv(b, data, image_sizes(b.shapes[data])[1], 3, 1)
    inner = activation(b, inner) or inner
    out = b.one("Add", [data, inner], b.shapes[data])
    if b.chance(0.5):
        b.one("Relu", [out], b.shapes[data])


def gate(b: Builder) -> None:
    """Squeeze and excite."""
    data = b.pick(4)
    if data is None:
        return
    n, channels, *_ = image_sizes(b.shapes[data])
    pooled = b.one("GlobalAveragePool", [data], (n, channels, 1, 1))
    inner = b.one("Relu", [conv(b, pooled, 3)], (n, 3, 1, 1))
    gate = b.one("Sigmoid", [conv(b, inner, channels)], (n, channels, 1, 1))
    b.one("Mul", [data, gate], b.shapes[data])


def split_attention(b: Builder) -> None:
    """Paths of a grouped convolution, weighed channel by channel and added up."""
    data = b.pick(4)
    if data is None:
        return
    n, ins, h, w = image_sizes(b.shapes[data])
    paths, width = b.draw(st.integers(2, 3)), b.draw(st.integers(1, 4))
    if ins % paths:
        data = conv(b, data, 2 * paths)
    data = activation(b, conv(b, data, paths * width, 1, 0, paths)) or list(b.shapes)[-1]

    def apart(tensor: str, h: int, w: int) -> str:
        sizes = b.constant([0, paths, width, h, w], np.int64)
        return b.one("Reshape", [tensor, sizes], (n, paths, width, h, w))

    def added(tensor: str) -> str:
        inputs, given = [tensor], {"axes": [1]}
        if b.opset >= 13:
            inputs, given = [tensor, b.constant([1], np.int64)], {}
        return b.one("ReduceSum", inputs, (n, width, h, w), keepdims=0, **given)

    parts = apart(data, h, w)
    pooled = b.one("GlobalAveragePool", [added(parts)], (n, width, 1, 1))
    inner = b.one("Relu", [conv(b, pooled, 3)], (n, 3, 1, 1))
    weights = apart(conv(b, inner, paths * width), 1, 1)
    shape = (n, paths, width, 1, 1)
    if b.opset >= 13:
        weights = b.one("Softmax", [weights], shape, axis=1)
    else:
        weights = b.one("Sigmoid", [weights], shape)
    added(b.one("Mul", [parts, weights], (n, paths, width, h, w)))


def concat(b: Builder) -> None:
    rank = b.draw(st.sampled_from([4, 2]))
    data = b.pick(rank)
    if data is None:
        return
    shape = b.shapes[data]
    count = b.draw(st.integers(1, 2))
    parts = [data]
    for _ in range(count):
        parts.append(b.pick(rank, lambda s: s[2:] == shape[2:]) or data)
    if b.chance(0.3):
        parts.append(b.one("Relu", [data], shape))
    if b.chance(0.1) and b.batch == 1:
        fixed = (1, 2, *(int(size) for size in shape[2:]))
        parts.insert(0, b.constant(b.numbers(*fixed)))
        b.shapes[parts[0]] = fixed
    total = sum(int(b.shapes[part][1]) for part in parts)
    if total <= 24:
        b.one("Concat", parts, (shape[0], total, *shape[2:]), axis=1)
    b.shapes = {k: v for k, v in b.shapes.items() if not k.startswith("c")}


def apart(b: Builder) -> None:
    """Layers that read one tensor, each behind nodes of its own and with needs of its own."""
    channels = b.draw(st.integers(4, 8))
    made = conv(b, "x", channels)  # Of which no mask has left constants alone.
    b.given[made] = {}
    for _ in range(b.draw(st.integers(2, 3))):
        between, everybodys = made, dict(b.shapes)
        for part in b.draw(st.lists(st.sampled_from([batch_norm, activation]), min_size=1)):
            between = b.through(between, part)
        end = conv(b, between, b.draw(st.integers(1, 4)))
        pruned = b.draw(st.integers(1, 2**channels - 2))
        b.given[end] = {"input": [place for place in range(channels) if pruned >> place & 1]}
        b.shapes = {**everybodys, end: b.shapes[end]}


def windows(b: Builder) -> None:
    """Convolutions with a window that read one tensor, each most of its channels."""
    channels = b.draw(st.integers(6, 12))
    made = conv(b, "x", channels)
    b.given[made] = {}
    for _ in range(b.draw(st.integers(2, 3))):
        end = conv(b, made, b.draw(st.sampled_from([2, 3, 4, 6, 8])), 3, 1)
        places = st.integers(0, channels - 1)
        pruned = b.draw(st.sets(places, min_size=1, max_size=channels - 5))
        b.given[end] = {"input": sorted(pruned)}
        if b.chance(0.5):
            b.through(end, activation)


def transition(b: Builder) -> None:
    """A pointwise convolution, and an average that could as well come before it."""
    data = b.pick(4, lambda s: min(image_sizes(s)[2:]) > 1)
    if data is None:
        return
    outs = b.draw(st.integers(1, 6))
    made = conv(b, data, outs)
    n, _, h, w = image_sizes(b.shapes[made])
    b.one("AveragePool", [made], (n, outs, h - 1, w - 1), kernel_shape=[2, 2])


def conv_bn(b: Builder) -> None:
    some_conv(b)
    data = b.pick(4)
    batch_norm(b, data)
    if data is not None:
        activation(b, list(b.shapes)[-1])


def products(b: Builder) -> None:
    """Products in a row and side by side; the second may absorb constants of the first."""
    if b.pick(3) is None:
        sequence(b)
    data = b.pick(3)
    if data is None:
        return
    width, outs = b.draw(st.integers(2, 8)), b.draw(st.integers(2, 8))
    first = matmul(b, data, width)
    assert first is not None
    known = b.one("Sigmoid", [first], b.shapes[first])
    ends = [matmul(b, known, outs), matmul(b, data, outs)]
    shape = b.shapes[ends[0] or ""]
    total = b.one("Add", [end for end in ends if end], shape)
    matmul(b, b.one("Relu", [total], shape))


def image(b: Builder) -> None:
    """Channels last for one layer, then back."""
    data = b.pick(4)
    if data is None:
        return
    n, channels, h, w = image_sizes(b.shapes[data])
    turned = b.one("Transpose", [data], (n, h, w, channels), perm=[0, 2, 3, 1])
    outs = b.draw(st.integers(1, 6))
    out = matmul(b, turned, outs)
    assert out is not None
    b.one("Transpose", [out], (n, outs, h, w), perm=[0, 3, 1, 2])
