"""From measured kernels to prices, and how far off these are where nothing was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnx_upscale.prices import Kernel
from onnx_upscale.prices.kernels import Floats, features
from onnx_upscale.prices.table import Measured
from onnx_upscale.pricing.report import Errors

_SWEEPS = 3000
# Every fifth kernel of a family is held out to judge the fit of the others.
_HELD_OUT = 5


def fit_family(kernels: Sequence[Kernel], seconds: Sequence[float]) -> Measured:
    """Fits the weighted sum of one family.

    Args:
        kernels: Kernels of the family.
        seconds: What each took.

    Returns:
        What was measured, with the fit.
    """
    times = np.array(seconds)
    # Relative errors count, so that small kernels matter as much as large ones.
    return Measured(
        tuple(_nonnegative(features(kernels) / times[:, np.newaxis]).tolist()),
        tuple(kernels),
        tuple(float(value) for value in seconds),
    )


def _nonnegative(rows: Floats) -> Floats:
    """Weights from 0 on that bring the weighted sum of each row as close to 1 as they can."""
    scale = np.linalg.norm(rows, axis=0)
    scale[scale == 0] = 1
    scaled = rows / scale
    products, wanted = scaled.T @ scaled, scaled.sum(0)
    weights = np.zeros(rows.shape[1])
    for _ in range(_SWEEPS):
        for column in range(len(weights)):
            gap = wanted[column] - products[column] @ weights
            weights[column] = max(0.0, weights[column] + gap / max(products[column, column], 1e-12))
    return np.asarray(weights / scale)


def fit(measured: Mapping[Kernel, float]) -> tuple[dict[str, Measured], dict[str, Errors]]:
    """Fits every family.

    Args:
        measured: Seconds of every kernel.

    Returns:
        The prices by family, made from all kernels; and by family, with `all` for all of them
        together, the errors of prices made without the kernels that they were found on.
    """
    families: dict[str, Measured] = {}
    misses: dict[str, list[float]] = {}
    for family in dict.fromkeys(kernel.family for kernel in measured):
        kernels = [kernel for kernel in measured if kernel.family == family]
        held = kernels[::_HELD_OUT] if len(kernels) >= _HELD_OUT else []
        rest = [kernel for kernel in kernels if kernel not in held]
        tried = fit_family(rest, [measured[kernel] for kernel in rest])
        for kernel in held:
            price = tried.seconds_of(kernel)
            if price is not None:
                misses.setdefault(family, []).append(abs(price / measured[kernel] - 1))
        families[family] = fit_family(kernels, [measured[kernel] for kernel in kernels])
    together = [miss for each in misses.values() for miss in each]
    return families, {
        name: Errors(float(np.median(each)), float(np.quantile(each, 0.9)), len(each))
        for name, each in {"all": together, **misses}.items()
        if each
    }
