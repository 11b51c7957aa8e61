"""Sums over samples that repairing a reader takes: they add up over batches and processes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from onnx_upscale.activations.columns import Floats, Reals, centred


@dataclass(frozen=True)
class Moments:
    """First and second moments of what one reader wants and of what it reads.

    What it reads are columns of m values: the window that it sees at one position (the values of an
    input channel one after the other), of its input in the pruned model. What it wants are columns
    of n values at the same position of the dense model. Repairing takes what the dense reader makes
    of it, without its bias (n is then the number of outputs); any other n rows will do, such as
    what the dense reader reads (n = m). Groups are independent and lie along the first axis.

    `gram` and `cross` are centred: sums of products of differences from the means, not divided by
    the count. Moments of different positions are added with `+`.

    Attributes:
        count: How many positions.
        mean_dense: Means of what is wanted, shape (groups, n).
        mean: Means of what is read, shape (groups, m).
        gram: Sums of products of what is read with itself, shape (groups, m, m).
        cross: Sums of products of what is wanted with what is read, shape (groups, n, m).
        power: Sums of squares of what is wanted, centred as well, shape (groups, n).
    """

    count: int
    mean_dense: Floats
    mean: Floats
    gram: Floats
    cross: Floats
    power: Floats

    @classmethod
    def of(cls, dense: Reals, read: Reals) -> Moments:
        """The moments of some positions.

        Products are taken in the type of the arguments. Single precision is twice as fast, and
        safe where S + l is solved with l well above its rounding: means are taken away first, in
        double, so that what is multiplied is as exact as the values are, and an entry of the sums
        is off by some 1e-6 of the product of its two deviations at most, however different the
        scales of channels. Sums of different positions add up in double.

        Args:
            dense: What is wanted, shape (groups, n, positions).
            read: What is read, shape (groups, m, positions), positions at least 1.

        Returns:
            Their moments.
        """
        (dense, mean_dense), (read, mean) = centred(dense), centred(read)
        across = read.swapaxes(1, 2)
        gram, cross, power = read @ across, dense @ across, np.square(dense).sum(-1)
        return cls(
            dense.shape[-1],
            mean_dense,
            mean,
            *(each.astype(np.float64, copy=False) for each in (gram, cross, power)),
        )

    def __add__(self, other: Moments) -> Moments:
        """The moments of the positions of both (Chan, Golub and LeVeque, 1979)."""
        count = self.count + other.count
        weight = self.count * other.count / count
        apart_dense, apart = other.mean_dense - self.mean_dense, other.mean - self.mean
        gram, cross = _outer(apart * weight, apart), _outer(apart_dense * weight, apart)
        for sums, parts in ((gram, (self.gram, other.gram)), (cross, (self.cross, other.cross))):
            for part in parts:
                sums += part
        return Moments(
            count,
            self.mean_dense + apart_dense * (other.count / count),
            self.mean + apart * (other.count / count),
            gram,
            cross,
            self.power + other.power + weight * apart_dense**2,
        )

    @property
    def about_zero(self) -> Moments:
        """The same about zero in place of the means, which are given as zero."""
        return replace(
            self,
            mean_dense=np.zeros_like(self.mean_dense),
            mean=np.zeros_like(self.mean),
            gram=self.gram + self.count * _outer(self.mean, self.mean),
            cross=self.cross + self.count * _outer(self.mean_dense, self.mean),
            power=self.power + self.count * self.mean_dense**2,
        )


def _outer(rows: Floats, columns: Floats) -> Floats:
    """Products of each with each, group by group."""
    product: Floats = rows[..., :, np.newaxis] * columns[..., np.newaxis, :]
    return product
