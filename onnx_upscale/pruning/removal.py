"""The order in which channels leave a reader, and what their leaving costs (pure numpy).

A reader makes W X of what it reads. Setting the weights of some columns to zero and fitting the
others anew to

    |W X - W' X|^2 + lambda |W' - W|^2

is a step of Optimal Brain Surgeon (Hassibi and Stork, 1993) with blocks of columns in place of
single weights. With H = (X X^T + lambda)^-1, taking out block c adds

    e_c = tr(W_c (H_cc)^-1 W_c^T)

to the error, W becomes W - W_c (H_cc)^-1 H_c: and H becomes H - H_:c (H_cc)^-1 H_c:. The steps on H
are those of a block Cholesky factorization whose pivots are chosen as it goes; so H itself stays as
it is, one block of columns of the factor is added per step, and of H's changes only the blocks on
the diagonal are followed. Of W only W^T W matters, which is followed the same way, so that rows
cost nothing. Whenever a quarter of the units is gone they are dropped, and what is left starts
anew. A whole order costs O(n^3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_upscale.optimizer.load.graph import IntArray

Floats = npt.NDArray[np.float64]

RIDGE = 1e-2
"""lambda, as a share of the mean of the diagonal of the second moment."""
MOST_COLUMNS = 4096
"""Above so many columns the second moment is taken as a product (see `factored`)."""

_SMALL = 64  # Up to so many units, dropping those that are gone saves no time.


@dataclass(frozen=True)
class Problem:
    """What removing units from one reader takes to know.

    A unit is what leaves as one: the columns of one channel, or of all that are tied to one.

    Attributes:
        gram: W^T W, which is all that matters of W, shape (units * block, units * block).
        inverse: H, of the same shape.
        block: How many columns a unit has.
    """

    gram: Floats
    inverse: Floats
    block: int

    @classmethod
    def of(cls, weight: Floats, second: Floats, ridge: float = RIDGE) -> Problem:
        """The problem of a reader.

        Args:
            weight: Its weight, shape (rows, units, block).
            second: The centred second moment of its columns, shape (n, n) with n = units * block;
                or its diagonal, where columns are taken as independent.
            ridge: lambda, as a share of the mean of the diagonal.

        Returns:
            The problem; of a smaller one with about the same errors where n is large.
        """
        if second.ndim == 1:
            return _independent(weight, second, ridge)
        if len(second) > MOST_COLUMNS:
            weight, second = factored(weight, second)
        inverse: Floats = np.linalg.inv(_ridged(second, ridge)).astype(np.float64, copy=False)
        flat = weight.reshape(len(weight), -1)
        return cls(flat.T @ flat, inverse, weight.shape[2])

    @property
    def units(self) -> int:
        """How many units there are."""
        return len(self.gram) // self.block

    def of_units(self, chosen: IntArray) -> Problem:
        """The same where all units but some must stay (these still are fitted anew).

        Args:
            chosen: Those that may leave.

        Returns:
            The problem of these alone.
        """
        columns = (chosen[:, np.newaxis] * self.block + np.arange(self.block)).ravel()
        grid = np.ix_(columns, columns)
        return Problem(self.gram[grid], self.inverse[grid], self.block)


@dataclass(frozen=True)
class Removal:
    """An order of removal.

    Attributes:
        order: Units, the first to leave first.
        errors: E(k), the squared error of each reader without the first k of them, lambda's part
            included; shape (readers, units + 1).
    """

    order: IntArray
    errors: Floats


def remove(problem: Problem) -> Removal:
    """The greedy order of one reader: always the unit that is cheapest now.

    Args:
        problem: The reader.

    Returns:
        The order, and its errors as one row.
    """
    return remove_together([problem], [1.0])


def remove_together(problems: Sequence[Problem], weights: Sequence[float]) -> Removal:
    """The greedy order of readers that give up the same units.

    Args:
        problems: The readers, all with as many units.
        weights: How much the squared error of each counts.

    Returns:
        The common order, and the errors of each reader (not weighted).
    """
    readers = [_Reader(problem) for problem in problems]
    count = problems[0].units
    order = np.zeros(count, np.int64)
    errors = np.zeros((len(problems), count + 1))
    there, left = np.arange(count), np.ones(count, bool)  # Of the units not yet dropped.
    for step in range(count):
        costs = np.stack([reader.costs() for reader in readers])
        # What is left of units that are gone is anything.
        total = np.where(left, np.asarray(weights) @ np.where(left, costs, 0.0), np.inf)
        unit = int(np.argmin(total))
        order[step], left[unit] = there[unit], False
        for reader in readers:
            reader.take_out(unit)
        errors[:, step + 1] = errors[:, step] + costs[:, unit]
        if len(left) > _SMALL and 4 * np.count_nonzero(left) <= 3 * len(left):
            readers = [_Reader(reader.reduced(np.flatnonzero(left))) for reader in readers]
            there, left = there[left], left[left]
    return Removal(order, errors)


def factored(weight: Floats, second: Floats) -> tuple[Floats, Floats]:
    """A reader with one column per unit that stands for one with blocks of them.

    The second moment is taken as the product of one over units and one over the places in a block,
    S = A x B, as in K-FAC (Martens and Grosse, 2015); A is S averaged over places, B over units.
    Then H = A^-1 x B^-1, and with B = L L^T the rows of W_c L are as many rows of a reader that
    reads one column per unit, with A as its second moment.

    Args:
        weight: Shape (rows, units, block).
        second: Shape (units * block, units * block).

    Returns:
        The weight, shape (rows * block, units, 1), and A, shape (units, units).
    """
    rows, units, block = weight.shape
    grid = second.reshape(units, block, units, block)
    over_units: Floats = np.einsum("ubvb->uv", grid) / block
    over_places: Floats = np.einsum("ubuc->bc", grid) / units
    scale = np.trace(over_places) / block
    lower = np.linalg.cholesky(_ridged(over_places / (scale or 1.0), 1e-6))
    return (weight @ lower).transpose(0, 2, 1).reshape(rows * block, units, 1), over_units


def _independent(weight: Floats, diagonal: Floats, ridge: float) -> Problem:
    """Units whose errors only add up: e_c is the sum of w^2 s over the columns of c."""
    scale = diagonal + ridge * (diagonal.mean() or 1.0)
    units = weight.shape[1]
    sums = np.einsum("rub,rub,ub->u", weight, weight, scale.reshape(units, -1))
    return Problem(np.diag(sums), np.eye(units), 1)


def _ridged(second: Floats, ridge: float) -> Floats:
    mean = np.trace(second) / max(len(second), 1)
    ridged: Floats = second + ridge * (mean if mean > 0 else 1.0) * np.eye(len(second))
    return ridged


class _Reader:
    """A reader of which units are taken out one by one.

    W^T W changes as H does, by what the blocks of columns that were added say: H - F F^T and
    W^T W - U F^T - F U^T are what they are now. Neither is written to.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem, self._units = problem, problem.units
        self._costly, self._diagonal = (
            self._blocks(each) for each in (problem.gram, problem.inverse)
        )
        self._factor, self._changes = np.empty((2, *problem.gram.shape))
        self._done = 0

    def costs(self) -> Floats:
        """e_c of every unit; of those taken out, anything."""
        if self._problem.block == 1:
            return np.asarray(self._costly / self._diagonal, np.float64)[:, 0, 0]
        costs: Floats = np.trace(np.linalg.solve(self._diagonal, self._costly), axis1=1, axis2=2)
        return costs

    def reduced(self, left: IntArray) -> Problem:
        """The problem of the units that are left, as if there had never been others."""
        rest, block = self._problem.of_units(left), self._problem.block
        columns = (left[:, np.newaxis] * block + np.arange(block)).ravel()
        factor, changes = (each[columns, : self._done] for each in (self._factor, self._changes))
        both = changes @ factor.T
        return Problem(rest.gram - both - both.T, rest.inverse - factor @ factor.T, block)

    def take_out(self, unit: int) -> None:
        """Sets the columns of a unit to zero and fits all others anew."""
        block, done = self._problem.block, self._done
        own = slice(unit * block, (unit + 1) * block)
        factor, changes = self._factor[:, :done], self._changes[:, :done]
        across = factor @ np.concatenate([factor[own], changes[own]]).T
        lower = np.linalg.inv(np.linalg.cholesky(self._diagonal[unit]))
        column = (self._problem.inverse[:, own] - across[:, :block]) @ lower.T
        change = self._problem.gram[:, own] - changes @ factor[own].T - across[:, block:]
        change = change @ lower.T
        change -= column @ (lower @ change[own] / 2)
        self._factor[:, done : done + block] = column
        self._changes[:, done : done + block] = change
        self._done += block
        columns, changed = (each.reshape(self._units, block, block) for each in (column, change))
        both = changed @ columns.transpose(0, 2, 1)
        self._costly -= both + both.transpose(0, 2, 1)
        self._diagonal -= columns @ columns.transpose(0, 2, 1)
        self._diagonal[unit] = np.eye(block)

    def _blocks(self, matrix: Floats) -> Floats:
        """The blocks on the diagonal."""
        every, block = np.arange(self._units), self._problem.block
        grid = matrix.reshape(self._units, block, self._units, block)
        return grid[every, :, every].copy()
