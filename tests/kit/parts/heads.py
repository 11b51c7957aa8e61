"""Attention: heads of their own layers or packed in one, and what lies on the way to products."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from onnx import TensorProto

from builder import Builder
from case import Dims
from parts.fused import EINSUM_SINCE
from parts.layers import matmul
from parts.movement import sequence
from parts.values import activation

# How the channels of a packed layer are split, by the places of kinds, heads and channels of one.
_PACKINGS = ((0, 1, 2), (1, 0, 2), (1, 2, 0))


def attention(b: Builder) -> None:
    """A few heads, or one; the contraction axes of queries and keys are coupled."""
    if b.pick(3) is None:
        sequence(b)
    data = b.pick(3)
    if data is None:
        return
    n, length, channels = b.shapes[data]
    assert isinstance(channels, int)
    heads, width = b.draw(st.sampled_from([2, 1, 3])), b.draw(st.integers(1, 3))
    form = b.draw(st.sampled_from([_separate, _packed, _as_torch_does]))
    kinds, whole = form(b, data, heads, width)
    for place in (0, 1):
        if b.chance(0.3):
            kinds[place] = _changed(b, kinds[place])
    queries, keys, values = kinds
    by_letters = b.opset >= EINSUM_SINCE and b.chance(0.3)
    mixed = (_mixed_by_letters if by_letters else _mixed)(b, queries, keys, values)
    if b.chance(0.2):  # As MViT adds them.
        mixed = b.one("Add", [mixed, queries], (n, heads, length, width))
    back = b.one("Transpose", [mixed], (n, length, heads, width), perm=[0, 2, 1, 3])
    sizes = b.constant([0, 0, heads * width], np.int64)
    flat = b.one("Reshape", [back, sizes], (n, length, heads * width))
    if whole is not None and b.chance(0.3):  # Values by another way.
        flat = b.one("Add", [flat, activation(b, whole) or whole], (n, length, heads * width))
    matmul(b, flat, channels)


def _separate(b: Builder, data: str, heads: int, width: int) -> tuple[list[str], str | None]:
    """Queries, keys and values by a layer each, by heads; and values before they are split."""
    n, length, _ = b.shapes[data]
    kinds, whole = [], None
    for _ in range(3):
        whole = matmul(b, data, heads * width)
        assert whole is not None
        sizes = b.constant([0, 0, heads, width], np.int64)
        cut = b.one("Reshape", [whole, sizes], (n, length, heads, width))
        made = b.one("Transpose", [cut], (n, heads, length, width), perm=[0, 2, 1, 3])
        kinds.append(made)
    return kinds, whole


def _packed(b: Builder, data: str, heads: int, width: int) -> tuple[list[str], None]:
    """Queries, keys and values by one layer, taken from an axis of their own."""
    n, length, _ = b.shapes[data]
    flat = matmul(b, data, 3 * heads * width)
    assert flat is not None
    places = b.draw(st.sampled_from(_PACKINGS))
    split = [0] * 3
    for place, size in zip(places, (3, heads, width), strict=True):
        split[place] = size
    windows = isinstance(length, int) and b.chance(0.3)
    if windows:  # The same Reshape takes an axis of one away.
        axes = b.constant([0], np.int64)
        flat = (
            b.hidden("Unsqueeze", [flat, axes])
            if b.opset >= 13
            else b.hidden("Unsqueeze", [flat], axes=[0])
        )
    sizes = b.constant([-1 if windows else 0, length if windows else 0, *split], np.int64)
    cut = b.one("Reshape", [flat, sizes], (n, length, *split))
    order = [2 + places[0], 0, 2 + places[1], 1, 2 + places[2]]
    by_heads: Dims = (n, heads, length, width)
    turned = b.one("Transpose", [cut], (3, *by_heads), perm=order)
    taken = [b.constant(kind, np.int64) for kind in range(3)]
    return [b.one("Gather", [turned, each], by_heads, axis=0) for each in taken], None


def _as_torch_does(b: Builder, data: str, heads: int, width: int) -> tuple[list[str], None]:
    """The same, tokens first, and heads merged with the batch as they are split off."""
    n, length, _ = b.shapes[data]
    if not isinstance(length, int):
        return _packed(b, data, heads, width)
    flat = matmul(b, data, 3 * heads * width)
    assert flat is not None
    tokens_first = b.hidden("Transpose", [flat], perm=[1, 0, 2])
    sizes = b.constant([length, -1, 3, heads * width], np.int64)
    apart = b.hidden("Transpose", [b.hidden("Reshape", [tokens_first, sizes])], perm=[2, 0, 1, 3])
    merged = b.constant([length, -1, width], np.int64)
    parted = b.constant([-1, heads, length, width], np.int64)
    kinds = []
    for number in range(3):
        own = b.hidden("Gather", [apart, b.constant(number, np.int64)], axis=0)
        own = b.hidden("Transpose", [b.hidden("Reshape", [own, merged])], perm=[1, 0, 2])
        kinds.append(b.one("Reshape", [own, parted], (n, heads, length, width)))
    return kinds, None


def _mixed(b: Builder, queries: str, keys: str, values: str) -> str:
    """Attention as products of matrices."""
    n, heads, length, width = b.shapes[queries]
    turned = b.one("Transpose", [keys], (n, heads, width, length), perm=[0, 1, 3, 2])
    scores = b.one("MatMul", [queries, turned], (n, heads, length, length))
    scores = b.one("Softmax", [scores], (n, heads, length, length), axis=3)
    return b.one("MatMul", [scores, values], (n, heads, length, width))


def _mixed_by_letters(b: Builder, queries: str, keys: str, values: str) -> str:
    """The same in Einsums, which may sum over the heads of keys or of values."""
    n, heads, length, width = b.shapes[queries]
    of_keys, of_values = (b.draw(st.sampled_from("hhg")) for _ in range(2))
    equation = f"bhid,b{of_keys}jd->bhij"
    scores = b.one("Einsum", [queries, keys], (n, heads, length, length), equation=equation)
    scores = b.one("Softmax", [scores], (n, heads, length, length), axis=3)
    equation = f"B H I J, B {of_values.upper()} J D -> B H I D"
    return b.one("Einsum", [scores, values], (n, heads, length, width), equation=equation)


def _changed(b: Builder, tensor: str) -> str:
    """What exporters and networks do to queries and keys before their product."""
    shape = b.shapes[tensor]
    how = b.draw(st.sampled_from(["constant", "size", "scale", "Relu", "Sigmoid", "gate"]))
    if how in ("Relu", "Sigmoid"):
        return b.one(how, [tensor], shape)
    if how == "gate":
        return b.one("Mul", [tensor, b.one("Tanh", [tensor], shape)], shape)
    if how == "constant":
        scale = b.constant(0.5)
    elif how == "size":
        size = b.hidden("Gather", [b.hidden("Shape", [tensor]), b.constant([3], np.int64)])
        scale = b.hidden("Sqrt", [b.hidden("Cast", [size], to=TensorProto.FLOAT)])
    else:
        scale = b.hidden("ReduceMax", [tensor], keepdims=0)
    return b.one("Mul", [tensor, scale], shape)
