"""BatchNormalization that an exporter folded into the layer before it, taken out again.

What an exporter wrote is weight * scale and (bias - mean) * scale + shift, with scale = gamma /
sqrt(variance + epsilon). So the weight is divided by the scale, and what the bias became goes into
the mean, which training subtracts as well. Where a scale is nearly zero it is made 1, and where a
channel reads nothing it is a constant, which is the shift.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.torch.values import NewLayer

# As a share of the largest: dividing by less would make weights of rounding.
_SMALLEST = 1e-4
# What exporters lose as they fold, in single precision.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Unfolded:
    """A layer and the normalization behind it.

    Attributes:
        weight: Of the layer.
        bias: Of the layer, or None where it has none.
        gamma: Of the normalization, or None where it has none.
        shift: Likewise.
        mean: Likewise.
        variance: Likewise.
    """

    weight: Array
    bias: Array | None
    gamma: Array | None
    shift: Array | None
    mean: Array
    variance: Array


def unfold(layer: NewLayer, bias: Array | None, norm: _BatchNorm) -> Unfolded:
    """Takes a normalization out of a layer.

    Args:
        layer: The layer as it was emitted.
        bias: The bias that the layer of the module had, or None.
        norm: The normalization of the module.

    Returns:
        What both hold now.
    """
    made = layer.made
    gamma, shift = (_taken(each, made) for each in (norm.weight, norm.bias))
    variance = _taken(norm.running_var, made)
    assert variance is not None
    spread = np.sqrt(variance + norm.eps)
    scale = (np.ones_like(spread) if gamma is None else gamma) / spread
    own = np.zeros_like(spread) if bias is None else bias[made].astype(np.float64)
    folded = np.zeros_like(spread) if layer.bias is None else layer.bias.astype(np.float64)
    reads = _by_output(layer.weight, layer).any(axis=(2, 3)).ravel()
    least = _SMALLEST * np.abs(scale).max(initial=0.0)
    if gamma is None or shift is None:
        moved = own - folded / scale
        weight = _scaled(layer, 1 / scale)
        return Unfolded(weight, None if bias is None else own, gamma, shift, moved, variance)
    small = np.abs(scale) <= least
    gamma = np.where(small, spread, gamma)
    scale = np.where(small, 1.0, scale)
    constant = small | ~reads
    new_shift = np.where(constant, folded, shift)
    moved = own - (folded - new_shift) / scale
    return Unfolded(
        weight=_scaled(layer, 1 / scale),
        bias=None if bias is None else own,
        gamma=gamma,
        shift=new_shift,
        mean=moved,
        variance=variance,
    )


def unfold_beside(layer: NewLayer, norm: _BatchNorm) -> tuple[Array, Array]:
    """Takes a normalization out of a layer, and leaves it as it is, for others read it too.

    Args:
        layer: The layer as it was emitted, all channels that it makes.
        norm: The normalization of the module.

    Returns:
        The weight and the bias of the layer, which is zero but for rounding unless it had one.
    """
    gamma, shift = (_taken(each, layer.made) for each in (norm.weight, norm.bias))
    mean, variance = (_taken(each, layer.made) for each in (norm.running_mean, norm.running_var))
    assert mean is not None
    assert variance is not None
    scale = (1.0 if gamma is None else gamma) / np.sqrt(variance + norm.eps)
    divided = np.where(scale == 0, 1.0, scale)
    shift = np.zeros_like(mean) if shift is None else shift
    folded = np.zeros_like(mean) if layer.bias is None else layer.bias.astype(np.float64)
    bias = (folded - shift) / divided + mean
    rounding = _ROUNDING * ((np.abs(folded) + np.abs(shift)) / np.abs(divided) + np.abs(mean))
    none = (scale == 0) | (np.abs(bias) <= rounding)
    return _scaled(layer, 1 / divided), np.where(none, 0.0, bias)


def folded_weight(weight: Array, layer: NewLayer, norm: _BatchNorm) -> Array:
    """The weight that an exporter writes for a layer and the normalization behind it."""
    every = np.arange(norm.num_features)
    gamma, variance = (_taken(each, every) for each in (norm.weight, norm.running_var))
    assert variance is not None
    scale = (1.0 if gamma is None else gamma) / np.sqrt(variance + norm.eps)
    wide = NewLayer(weight, None, layer.made, None, layer.groups, layer.transposed)
    return _scaled(wide, scale)


def _taken(tensor: Tensor | None, made: Array) -> Array | None:
    if tensor is None:
        return None
    taken: Array = tensor.detach().numpy().astype(np.float64)[made]
    return taken


def _by_output(weight: Array, layer: NewLayer) -> Array:
    """As (groups, outputs per group, inputs per group, everything else)."""
    rows, columns = weight.shape[:2]
    grouped = weight.reshape(layer.groups, rows // layer.groups, columns, -1)
    return grouped.swapaxes(1, 2) if layer.transposed else grouped


def _scaled(layer: NewLayer, scale: Array) -> Array:
    weight = layer.weight.astype(np.float64)
    grouped = _by_output(weight, layer)
    factors = scale.reshape(*grouped.shape[:2], 1, 1)
    made = grouped * factors
    return (made.swapaxes(1, 2) if layer.transposed else made).reshape(weight.shape)
