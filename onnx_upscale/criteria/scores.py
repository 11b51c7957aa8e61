"""What the weights of a channel say about it: one small function per published criterion."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from onnx_upscale.optimizer.load.values import Array

Scores: TypeAlias = "npt.NDArray[np.float64]"
"""One number per channel of a layer; the lowest go first."""

ScoreWeight: TypeAlias = Callable[[Array], Scores]

# Distances that are in memory at a time; a matrix that is made whole costs half as much to make.
_MOST_DISTANCES = 2**24


def l1(weight: Array) -> Scores:
    """Sum of absolute weights (Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017).

    Args:
        weight: The weights of a layer, shape (channels, everything else).

    Returns:
        A score per channel.
    """
    scores: Scores = np.abs(weight).sum(axis=1, dtype=np.float64)
    return scores


def l2(weight: Array) -> Scores:
    """Euclidean norm (Wen et al., Learning Structured Sparsity in DNNs, NeurIPS 2016).

    Args:
        weight: As for `l1`.

    Returns:
        A score per channel.
    """
    return np.sqrt(_squares(weight))


def lamp(weight: Array) -> Scores:
    """Layer-adaptive magnitude (Lee et al., ICLR 2021), on channels in place of single weights.

    The squared norm of a channel as a share of those of all channels of the layer that are not
    smaller, which are the ones that would still be there when its turn comes.

    Args:
        weight: As for `l1`.

    Returns:
        A score per channel, 1 for the largest one.
    """
    squares = _squares(weight)
    ascending = np.sort(squares)
    not_smaller = np.cumsum(ascending[::-1])[::-1]
    surviving = not_smaller[np.searchsorted(ascending, squares)]
    return np.divide(squares, surviving, out=np.zeros_like(squares), where=surviving > 0)


def fpgm(weight: Array) -> Scores:
    """Sum of distances to all other channels of the layer (He et al., FPGM, CVPR 2019).

    The channels nearest to the geometric median have the smallest sums: the others can stand in
    for them.

    Args:
        weight: As for `l1`.

    Returns:
        A score per channel.
    """
    # Distances do not change with the origin, and are most exact near it.
    rows = weight - weight.mean(axis=0, dtype=np.float64)
    squares = np.einsum("ij,ij->i", rows, rows)
    scores = np.empty(len(rows))
    step = max(1, _MOST_DISTANCES // len(rows))
    for start in range(0, len(rows), step):
        chunk = slice(start, start + step)
        squared = squares[chunk, np.newaxis] + squares - 2 * (rows[chunk] @ rows.T)
        scores[chunk] = np.sqrt(np.maximum(squared, 0)).sum(axis=1)
    return scores


def _squares(weight: Array) -> Scores:
    exact = weight.astype(np.float64)
    squares: Scores = np.einsum("ij,ij->i", exact, exact)
    return squares
