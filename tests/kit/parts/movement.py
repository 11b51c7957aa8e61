"""Channels cut, picked, moved and laid out in other ways."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st

from builder import Builder, image_sizes


def split(b: Builder) -> None:
    data = b.pick(b.draw(st.sampled_from([4, 2])), lambda s: int(s[1]) > 1)
    if data is None:
        return
    n, channels, *rest = b.shapes[data]
    first = b.draw(st.integers(1, int(channels) - 1))
    sizes = [first, int(channels) - first]
    shapes = [(n, size, *rest) for size in sizes]
    if b.opset >= 13:
        b.node("Split", [data, b.constant(sizes, np.int64)], *shapes, axis=1)
    else:
        b.node("Split", [data], *shapes, axis=1, split=sizes)


def slice_(b: Builder) -> None:
    data = b.pick(4, lambda s: int(s[1]) > 1)
    if data is None:
        return
    n, channels, *rest = b.shapes[data]
    start, step = b.draw(st.integers(0, int(channels) - 1)), b.draw(st.integers(1, 2))
    if b.chance(0.2):
        bounds = [[-1], [-1000], [1], [-step]]
        count = len(range(int(channels))[-1:-1000:-step])
    else:
        bounds = [[start], [int(channels) + 3], [1], [step]]
        count = len(range(start, int(channels), step))
    inputs = [data, *(b.constant(bound, np.int64) for bound in bounds)]
    b.one("Slice", inputs, (n, count, *rest))


def gather(b: Builder) -> None:
    data = b.pick(b.draw(st.sampled_from([4, 2])))
    if data is None:
        return
    n, channels, *rest = b.shapes[data]
    count = b.draw(st.integers(1, 6))
    places = st.integers(-int(channels), int(channels) - 1)
    picks = np.array(b.draw(st.lists(places, min_size=count, max_size=count)))
    if b.chance(0.5):
        picks = np.unique(picks % int(channels))
    indices = b.constant(picks, np.int64)
    b.one("Gather", [data, indices], (n, len(picks), *rest), axis=1)


def flatten(b: Builder) -> None:
    data = b.pick(4, lambda s: math.prod(image_sizes(s)[1:]) <= 160)
    if data is None:
        return
    n, *rest = image_sizes(b.shapes[data])
    count = math.prod(rest)
    how = b.draw(st.sampled_from(["Flatten", "Reshape", "chain"]))
    if how == "Flatten":
        b.one("Flatten", [data], (n, count))
    elif how == "Reshape":
        sizes = b.constant([0, -1] if b.chance(0.5) else [-1, count], np.int64)
        b.one("Reshape", [data, sizes], (n, count))
    else:
        whole = b.hidden("Shape", [data])
        first = b.hidden("Gather", [whole, b.constant([0], np.int64)], axis=0)
        last = b.constant([count] if b.chance(0.5) else [-1], np.int64)
        sizes = b.hidden("Concat", [first, last], axis=0)
        # onnx follows sizes through such chains from this operator set on.
        b.undeclared |= b.opset < 13
        b.one("Reshape", [data, sizes], (n, count))


def sequence(b: Builder) -> None:
    """Positions in a row, channels last."""
    data = b.pick(4)
    if data is None:
        return
    n, channels, h, w = image_sizes(b.shapes[data])
    sizes = b.constant([0, channels, -1] if b.chance(0.5) else [0, 0, -1], np.int64)
    flat = b.one("Reshape", [data, sizes], (n, channels, h * w))
    b.one("Transpose", [flat], (n, h * w, channels), perm=[0, 2, 1])


def shuffle(b: Builder) -> None:
    """Channel shuffle."""
    data = b.pick(4, lambda s: int(s[1]) % 2 == 0)
    if data is None:
        return
    n, channels, h, w = image_sizes(b.shapes[data])
    half, shape = channels // 2, b.shapes[data]
    split = b.constant([0, 2, half, h, w], np.int64)
    wide = b.one("Reshape", [data, split], (n, 2, half, h, w))
    turned = b.one("Transpose", [wide], (n, half, 2, h, w), perm=[0, 2, 1, 3, 4])
    b.one("Reshape", [turned, b.constant([0, channels, h, w], np.int64)], shape)


def pixels(b: Builder) -> None:
    data = b.pick(4, lambda s: int(s[1]) % 4 == 0 and image_sizes(s)[2] <= 4)
    if data is None:
        return
    n, channels, h, w = image_sizes(b.shapes[data])
    mode = b.draw(st.sampled_from(["DCR", "CRD"]))
    shape = (n, channels // 4, 2 * h, 2 * w)
    b.one("DepthToSpace", [data], shape, blocksize=2, mode=mode)


def expand(b: Builder) -> None:
    data = b.pick(4)
    if data is None:
        return
    n, channels, *_ = image_sizes(b.shapes[data])
    pooled = b.one("GlobalMaxPool", [data], (n, channels, 1, 1))
    sizes = b.constant([1, channels, 3, 2], np.int64)
    b.one("Expand", [pooled, sizes], (n, channels, 3, 2))


def tile(b: Builder) -> None:
    data = b.pick(4, lambda s: int(s[1]) <= 8)
    if data is None:
        return
    n, channels, h, w = image_sizes(b.shapes[data])
    repeats = b.constant([1, 2, 1, 1], np.int64)
    b.one("Tile", [data, repeats], (n, 2 * channels, h, w))
