"""New weights for one reader, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_upscale.activations.columns import Floats
from onnx_upscale.recovery.moments import Moments

# Below this ratio of the pivots of a Cholesky factor, what is solved for is mostly rounding.
_SMALLEST_PIVOT = 1e-7

SURE = 1e-4
"""From this strength on S + l is solved without a look at its pivots, which would take as long
again: its condition is below 1e4 times its columns, whatever S is."""


@dataclass(frozen=True)
class Repair:
    """New weights for a reader.

    Attributes:
        weight: Shape (groups, n, m).
        shift: What its bias gains, shape (groups, n).
        before: Per row, its squared error with the weights that it had, over all positions, shape
            (groups, n).
        after: The same with the new ones, and the shift.
    """

    weight: Floats
    shift: Floats
    before: Floats
    after: Floats


def repair(moments: Moments, weight: Floats, strength: float, shifting: bool = True) -> Repair:
    """Fits weights to what a reader really gets.

    Minimizes |Y - W' X - s|^2 + l |W' - W|^2 over W' and s, with Y what it should make (the dense
    reader on the dense model, without bias) and X what it reads. With centred moments
    S = X X^T and T = Y X^T that is W' = W + (T - W S)(S + l)^-1, and s takes the difference of the
    means. The error never grows: W' = W is among what is minimized over.

    Args:
        moments: Of Y and X.
        weight: W, the weights that it has, shape (groups, n, m).
        strength: l, as a share of the mean of the diagonal of S.
        shifting: Whether there is a bias to take s; if not, s is zero and the moments are taken
            about zero.

    Returns:
        W', s and the errors.
    """
    about = moments if shifting else moments.about_zero
    made = weight @ about.gram
    residual = about.cross - made
    columns = about.gram.shape[-1]
    pull = strength * np.trace(about.gram, axis1=1, axis2=2) / max(columns, 1)
    systems = about.gram.copy()
    systems[:, np.arange(columns), np.arange(columns)] += pull[:, np.newaxis]
    solve = _solved if strength < SURE else _solved_surely
    change = np.stack([solve(system, rows) for system, rows in zip(systems, residual, strict=True)])
    new = weight + change
    shift = about.mean_dense - _times(new, about.mean)
    apart = moments.mean_dense - _times(weight, moments.mean)
    made = made if shifting else weight @ moments.gram
    before = _error(moments, weight, made) + moments.count * apart**2
    # What the new weights make of S is W S + change S, and change (S + l) is what was solved for.
    made = about.cross - pull[:, np.newaxis, np.newaxis] * change
    return Repair(new, shift, before, _error(about, new, made))


def _solved_surely(system: Floats, rows: Floats) -> Floats:
    """The same where l is far above the rounding of S, so that only zeros are singular."""
    try:
        return np.asarray(np.linalg.solve(system, rows.T).T, np.float64)
    except np.linalg.LinAlgError:
        return np.zeros_like(rows)


def _solved(system: Floats, rows: Floats) -> Floats:
    """Rows times the inverse of a symmetric matrix that is positive, or nearly so."""
    try:
        pivots = np.diagonal(np.linalg.cholesky(system))
        if pivots.size and pivots.min() > _SMALLEST_PIVOT * pivots.max():
            return np.asarray(np.linalg.solve(system, rows.T).T, np.float64)
    except np.linalg.LinAlgError:
        pass
    return np.asarray(rows @ np.linalg.pinv(system, hermitian=True), np.float64)


def _times(weight: Floats, columns: Floats) -> Floats:
    product: Floats = (weight @ columns[..., np.newaxis])[..., 0]
    return product


def _error(moments: Moments, weight: Floats, made: Floats) -> Floats:
    """|Y - W X|^2 per row, about where the moments are taken; `made` is W X X^T."""
    error = moments.power + ((made - 2 * moments.cross) * weight).sum(-1)
    return np.asarray(np.maximum(error, 0.0), np.float64)
