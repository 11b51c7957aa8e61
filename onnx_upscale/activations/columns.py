"""What a reader sees of its input, as columns: one per position, drawn from all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from onnx_upscale.errors import DataError
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.load.layers import Layer
from onnx_upscale.optimizer.load.values import Array

Floats = npt.NDArray[np.float64]
Reals = npt.NDArray[np.floating]

POSITIONS = 64
"""How many are looked at of each sample: more add little, for neighbours are alike."""

TOGETHER = 1024
"""How many positions are multiplied at once, or more: each time costs as much as some hundreds."""


def check_finite(layer: Layer, *seen: Reals) -> None:
    """Refuses columns that nothing can be learned from.

    Args:
        layer: The layer that reads them.
        *seen: The columns.

    Raises:
        DataError: There are infinities or NaNs.
    """
    if not all(np.isfinite(each).all() for each in seen):
        raise DataError(
            f"what layer '{layer.node.title}' reads holds infinities or NaNs on the samples: "
            "are they scaled as the model expects?"
        )


def count_positions(layer: Layer, shape: Sequence[int]) -> int:
    """At how many positions a layer works on an input.

    Args:
        layer: The layer.
        shape: Shape of the input.

    Returns:
        How many results each output channel has; for a transposed convolution and a matrix
        product, how many values each input channel has.
    """
    if layer.product or layer.transposed:
        return math.prod(shape) // max(shape[layer.data_axis], 1)
    sizes = [
        (size + sum(pads) - span) // stride + 1
        for size, pads, span, stride in zip(
            shape[2:], _pads(layer, shape[2:]), _spans(layer), _strides(layer), strict=True
        )
    ]
    return int(shape[0]) * math.prod(sizes)


def draw(total: int, wanted: int, rng: np.random.Generator) -> IntArray:
    """Positions drawn evenly: one at random from each of equal parts.

    Args:
        total: How many there are.
        wanted: How many to draw.
        rng: Says which.

    Returns:
        Their indices in ascending order; all of them where there are no more than wanted.
    """
    if total <= wanted:
        return np.arange(total)
    drawn = (np.arange(wanted) + rng.random(wanted)) * (total / wanted)
    return np.minimum(drawn.astype(np.int64), total - 1)


def columns(layer: Layer, data: Array, positions: IntArray) -> Reals:
    """What a layer contracts with its weight.

    Args:
        layer: The layer.
        data: Its input.
        positions: At which positions; they count over the axis of samples as well.

    Returns:
        Shape (groups, inputs per group x window, positions), in the order of `Layer.by_group`; for
        a transposed convolution the window is left out. In single precision, unless the data are
        in double.
    """
    if layer.product or layer.transposed:
        seen = np.moveaxis(data, layer.data_axis, -1).reshape(-1, layer.inputs)[positions]
    else:
        seen = _windows(layer, data, positions)
    kind = np.promote_types(seen.dtype, np.float32)
    by_group = seen.reshape(len(positions), layer.groups, -1).astype(kind, copy=False)
    return by_group.transpose(1, 2, 0)


def centred(values: Reals) -> tuple[Reals, Floats]:
    """Values without their means.

    Args:
        values: Shape (..., positions).

    Returns:
        What is left, of the same type, and the means, both found in double precision.
    """
    mean: Floats = values.mean(-1, dtype=np.float64)
    left = np.empty_like(values)
    np.subtract(values, mean[..., np.newaxis], out=left, casting="same_kind")
    return left, mean


def _windows(layer: Layer, data: Array, positions: IntArray) -> Array:
    """The windows of a convolution at some positions, shape (positions, inputs, ...)."""
    axes = range(2, data.ndim)
    padded = _padded(data, _pads(layer, data.shape[2:]))
    every = sliding_window_view(padded, _spans(layer), axis=tuple(axes))
    steps = [slice(None, None, step) for step in (*_strides(layer), *_dilations(layer))]
    windows = every[(slice(None), slice(None), *steps)]
    sample, *place = np.unravel_index(positions, (len(data), *windows.shape[2 : data.ndim]))
    found: Array = windows[(sample, slice(None), *place)]  # type: ignore[arg-type]
    return found


def _padded(data: Array, pads: Sequence[tuple[int, int]]) -> Array:
    """With zeros around: as `np.pad`, which takes much longer than copying does."""
    if not any(map(any, pads)):
        return data
    sizes = [size + sum(pad) for size, pad in zip(data.shape[2:], pads, strict=True)]
    padded = np.zeros((*data.shape[:2], *sizes), data.dtype)
    inner = [slice(pad[0], pad[0] + size) for pad, size in zip(pads, data.shape[2:], strict=True)]
    padded[(slice(None), slice(None), *inner)] = data
    return padded


def _strides(layer: Layer) -> list[int]:
    return list(layer.node.attributes.get("strides", [1] * (len(layer.weight_shape) - 2)))


def _dilations(layer: Layer) -> list[int]:
    return list(layer.node.attributes.get("dilations", [1] * (len(layer.weight_shape) - 2)))


def _spans(layer: Layer) -> list[int]:
    """How far a window reaches, per axis."""
    sizes = layer.weight_shape[2:]
    return [(size - 1) * step + 1 for size, step in zip(sizes, _dilations(layer), strict=True)]


def _pads(layer: Layer, sizes: Sequence[int]) -> list[tuple[int, int]]:
    """How many zeros lie before and behind each axis."""
    attributes = layer.node.attributes
    how = attributes.get("auto_pad", b"NOTSET")
    if how == b"VALID":
        return [(0, 0)] * len(sizes)
    if how == b"NOTSET":
        pads = list(attributes.get("pads", [0] * (2 * len(sizes))))
        return list(zip(pads[: len(sizes)], pads[len(sizes) :], strict=True))
    found = []
    for size, span, stride in zip(sizes, _spans(layer), _strides(layer), strict=True):
        total = max((-(-size // stride) - 1) * stride + span - size, 0)
        less, more = total // 2, total - total // 2
        found.append((less, more) if how == b"SAME_UPPER" else (more, less))
    return found


def matrix(layer: Layer, weight: npt.NDArray[np.generic]) -> Floats:
    """A weight as the matrices that `columns` are multiplied with.

    Args:
        layer: The layer.
        weight: Its weight, as the node reads it.

    Returns:
        Shape (groups, outputs per group, inputs per group x window); of a transposed convolution
        (groups, outputs per group x window, inputs per group), what a position is spread to.
    """
    grouped = layer.by_group(weight).astype(np.float64)
    groups, outputs, inputs, window = grouped.shape
    if layer.transposed:
        return grouped.transpose(0, 1, 3, 2).reshape(groups, outputs * window, inputs)
    return grouped.reshape(groups, outputs, inputs * window)


def laid_out(layer: Layer, matrices: Floats, dtype: npt.DTypeLike) -> Array:
    """The weight that is made of such matrices: `matrix`, the other way round."""
    size = math.prod(layer.weight_shape)
    places = layer.by_group(np.arange(size).reshape(layer.weight_shape))
    groups, outputs, inputs, window = places.shape
    if layer.transposed:
        grouped = matrices.reshape(groups, outputs, window, inputs).transpose(0, 1, 3, 2)
    else:
        grouped = matrices.reshape(groups, outputs, inputs, window)
    weight = np.empty(size, dtype)
    weight[places.ravel()] = grouped.ravel()
    return weight.reshape(layer.weight_shape)
