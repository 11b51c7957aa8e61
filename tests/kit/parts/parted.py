"""Axes in two, and others beside them that lose channels as well."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from builder import Builder
from parts.layers import left_matmul, matmul
from parts.movement import sequence
from parts.values import activation

_EVEN = st.sampled_from([2, 4, 6])


def between_layers(b: Builder) -> None:
    """Two layers make the two last axes of a tensor and two read them; one is parted between."""
    if b.pick(3) is None:
        sequence(b)
    data = matmul(b, b.pick(3), b.draw(_EVEN))
    if data is None:
        return
    both = left_matmul(b, data, b.draw(_EVEN))
    assert both is not None
    made = activation(b, both) or both
    made = shuffled_or_picked(b, made, b.draw(st.sampled_from([1, 2])))
    matmul(b, made)
    _mask(b)
    left_matmul(b, b.layers[-1].result[0])
    _mask(b)


def _mask(b: Builder) -> None:
    """Has the last layer lose some of what it reads."""
    layer = b.layers[-1]
    count = layer.data[2]
    bits = b.draw(st.integers(1, max(2**count - 2, 1)))
    pruned = np.flatnonzero([bits >> place & 1 for place in range(count)])
    b.given[layer.result[0]] = {"input": pruned.tolist()}


def shuffled_or_picked(b: Builder, data: str, axis: int) -> str:
    """An axis in two, which change places and are merged again, or of which one is picked from."""
    shape = b.shapes[data]
    ahead, behind, size = shape[:axis], shape[axis + 1 :], shape[axis]
    assert isinstance(size, int)
    place = b.draw(st.integers(0, 1))  # Where the two kinds are.
    parts = (size // 2, 2) if place else (2, size // 2)
    as_before = b.chance(0.5)
    first = [0 if as_before or not isinstance(length, int) else length for length in ahead]
    cut = b.constant([*first, *parts, *behind], np.int64)
    wide = b.one("Reshape", [data, cut], (*ahead, *parts, *behind))
    if b.chance(0.5):
        order = [*range(axis), axis + 1, axis, *range(axis + 2, len(shape) + 1)]
        turned = b.one("Transpose", [wide], (*ahead, *parts[::-1], *behind), perm=order)
        return b.one("Reshape", [turned, b.constant([*first, size, *behind], np.int64)], shape)
    half = (*ahead, size // 2, *behind)
    kinds = b.draw(st.sampled_from([(0, 1), (1, 0), (0,), (1,)]))
    picked = [
        b.one("Gather", [wide, b.constant(kind, np.int64)], half, axis=axis + place)
        for kind in kinds
    ]
    return b.one("Concat", picked, shape, axis=axis) if len(picked) > 1 else picked[0]
