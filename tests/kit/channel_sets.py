"""Random sets of channels, and what is true of orders by looking at all of them."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from onnx_upscale.optimizer.plan.order import contiguous
from onnx_upscale.optimizer.plan.pq_tree import PQTree

IntArray = npt.NDArray[np.int64]


Sets = list[list[int]]


def arrays(sets: Sequence[Sequence[int]]) -> list[IntArray]:
    return [np.array(channels, dtype=np.int64) for channels in sets]


@functools.cache
def all_orders(size: int) -> IntArray:
    """Every order of so many channels, shape (orders, size)."""
    return np.array(list(itertools.permutations(range(size))), dtype=np.int64)


def keeping(orders: IntArray, channels: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Which orders have the channels side by side, shape (orders,)."""
    inside = np.isin(orders, channels)
    starts = inside[:, :1].sum(axis=1) + (inside[:, 1:] & ~inside[:, :-1]).sum(axis=1)
    result: npt.NDArray[np.bool_] = starts <= 1
    return result


def represents(tree: PQTree, order: Sequence[int]) -> bool:
    """Whether an order is one of the tree's: nothing then forbids all its pairs of neighbours."""
    tree = copy.deepcopy(tree)
    return all(tree.reduce(np.array(pair)) for pair in itertools.pairwise(order))


def reached(order: IntArray, sets: Sequence[IntArray]) -> int:
    return sum(channels.size for channels in sets if contiguous(order, channels))


@st.composite
def families(
    draw: st.DrawFn, max_size: int = 7, max_sets: int = 7, min_sets: int = 1
) -> tuple[int, Sets]:
    """Size and arbitrary sets."""
    size = draw(st.integers(1, max_size))
    channels = st.lists(st.integers(0, size - 1), unique=True, max_size=size)
    return size, draw(st.lists(channels, min_size=min_sets, max_size=max_sets))


@st.composite
def paired(draw: st.DrawFn) -> tuple[int, Sets]:
    """Size and sets of which the first are pairs, so that the tree has some depth early."""
    size, sets = draw(families(max_size=8, max_sets=5))
    pairs = [[at, at + 1] for at in range(0, size - 1, 2)]
    return size, pairs[: draw(st.integers(0, 4))] + sets


@st.composite
def intervals(draw: st.DrawFn) -> tuple[int, Sets]:
    """Size and sets that have a common order, which is hidden."""
    size = draw(st.integers(2, 40))
    hidden = draw(st.permutations(range(size)))
    bounds = st.tuples(st.integers(0, size), st.integers(0, size)).map(sorted)
    return size, [hidden[a:b] for a, b in draw(st.lists(bounds, min_size=1, max_size=14))]


@st.composite
def segments(draw: st.DrawFn) -> tuple[int, list[IntArray]]:
    """Size and readers of a random segment: independent, nested, intervals, or some of each."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.integers(8, 256))
    count = draw(st.integers(2, 12))
    kinds = draw(st.sampled_from(["i", "n", "r", "ir", "nr", "in", "inr"]))
    hidden = rng.permutation(size)
    readers: list[IntArray] = []
    for _ in range(count):
        kind = rng.choice(list(kinds))
        length = int(rng.integers(0, size + 1))
        start = 0 if kind == "n" else int(rng.integers(0, size - length + 1))
        source = rng.permutation(size) if kind == "r" else hidden
        readers.append(source[start : start + length])
    return size, readers
