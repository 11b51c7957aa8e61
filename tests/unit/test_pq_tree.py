"""PQ-tree: every order that keeps sets side by side, against brute force."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings

from channel_sets import (
    IntArray,
    Sets,
    all_orders,
    arrays,
    families,
    intervals,
    keeping,
    paired,
    represents,
    segments,
)
from onnx_upscale.optimizer.plan.order import contiguous
from onnx_upscale.optimizer.plan.pq_tree import PQTree

relaxed = settings(deadline=None)


class TestPQTree:
    @relaxed
    @given(families() | paired())
    @example((6, [[0, 1], [2, 3], [4, 5], [0, 2, 4]]))  # three partial children
    @example((8, [[0, 1], [2, 3], [4, 5], [6, 7], [0, 1, 2, 3], [0, 2, 4, 6]]))  # two forks
    @example((8, [[0, 1], [2, 3], [4, 5], [6, 7], [0, 1, 2, 3], [0, 2, 4]]))  # fork too low
    def test_agrees_with_all_permutations(self, family: tuple[int, Sets]) -> None:
        size, sets = family
        tree, left = PQTree(size), all_orders(size)
        for channels in sets:
            kept = left[keeping(left, channels)]
            assert tree.reduce(arrays([channels])[0]) == bool(len(kept))
            # After a failure nothing may be lost either: the next sets would tell.
            left = kept if len(kept) else left
            assert tree.frontier().tolist() in left.tolist()

    @settings(deadline=None, max_examples=40)
    @given(families(max_size=5, max_sets=6))
    @example((5, [[0, 1], [1, 2], [2, 3], [0, 2]]))
    @example((5, [[0, 1, 2], [0, 1], [2, 3, 4], [1, 2, 3], [0, 3]]))
    def test_represents_exactly_the_permutations(self, family: tuple[int, Sets]) -> None:
        size, sets = family
        tree, left = PQTree(size), all_orders(size)
        for channels in sets:
            if tree.reduce(arrays([channels])[0]):
                left = left[keeping(left, channels)]
        expected = {tuple(order) for order in left.tolist()}
        assert {
            order for order in itertools.permutations(range(size)) if represents(tree, order)
        } == expected

    @relaxed
    @given(families(max_size=12, max_sets=9))
    def test_failure_changes_nothing(self, family: tuple[int, Sets]) -> None:
        size, sets = family
        tree = PQTree(size)
        for channels in sets:
            before = copy.deepcopy(tree)
            if tree.reduce(arrays([channels])[0]):
                continue
            assert tree.frontier().tolist() == before.frontier().tolist()
            for pair in itertools.combinations(range(size), 2):
                one, other = copy.deepcopy(tree), copy.deepcopy(before)
                assert one.reduce(np.array(pair)) == other.reduce(np.array(pair))
                assert one.frontier().tolist() == other.frontier().tolist()

    @relaxed
    @given(intervals())
    def test_takes_all_intervals_of_a_hidden_order(self, family: tuple[int, Sets]) -> None:
        size, sets = family
        tree = PQTree(size)
        assert all(tree.reduce(channels) for channels in arrays(sets))
        order = tree.frontier()
        assert sorted(order.tolist()) == list(range(size))
        assert all(contiguous(order, channels) for channels in arrays(sets))

    @relaxed
    @given(segments())
    def test_keeps_what_it_accepted(self, segment: tuple[int, list[IntArray]]) -> None:
        size, readers = segment
        tree = PQTree(size)
        accepted = [channels for channels in readers if tree.reduce(channels)]
        order = tree.frontier()
        assert sorted(order.tolist()) == list(range(size))
        assert all(contiguous(order, channels) for channels in accepted)

    @relaxed
    @given(families())
    def test_order_within_a_set_is_irrelevant(self, family: tuple[int, Sets]) -> None:
        size, sets = family
        one, other = PQTree(size), PQTree(size)
        for channels in arrays(sets):
            assert one.reduce(channels) == other.reduce(np.tile(channels[::-1], 2))
        assert one.frontier().tolist() == other.frontier().tolist()

    def test_wide(self) -> None:
        size = 10_000
        tree = PQTree(size)
        pairs = np.random.default_rng(0).permutation(size - 1)
        assert all(tree.reduce(np.array([at, at + 1])) for at in pairs)
        assert not tree.reduce(np.array([0, size - 1]))
        assert tree.frontier().tolist() in (list(range(size)), list(range(size))[::-1])

    def test_deep(self) -> None:
        size = 1_500  # above what recursion could do
        tree = PQTree(size)
        assert all(tree.reduce(np.arange(end)) for end in range(2, size))
        assert tree.reduce(np.array([0, size - 1]))
        assert not tree.reduce(np.array([1, size - 1]))
        assert tree.frontier().tolist() in (
            [size - 1, *range(size - 1)],
            [*range(size - 2, -1, -1), size - 1],
        )

    @pytest.mark.parametrize("size", [0, 1, 2])
    def test_smallest(self, size: int) -> None:
        tree = PQTree(size)
        assert tree.reduce(np.arange(size))
        assert tree.reduce(np.zeros(0, dtype=np.int64))
        assert tree.frontier().tolist() == list(range(size))

    def test_starts_in_original_order(self) -> None:
        assert PQTree(5).frontier().tolist() == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize("channels", [[-1, 0], [2, 3], [7]])
    def test_rejects_unknown_channels(self, channels: list[int]) -> None:
        with pytest.raises(IndexError):
            PQTree(3).reduce(np.array(channels))

    def test_rejects_a_negative_size(self) -> None:
        with pytest.raises(ValueError):
            PQTree(-1)
