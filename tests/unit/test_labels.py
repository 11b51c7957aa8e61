"""Labels: which are handed out, and which a root stands for after couplings."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onnx_upscale.optimizer.analyze.labels import LabelPool, Tally


def pool_of(labels: int) -> LabelPool:
    pool = LabelPool()
    pool.fresh(labels)
    return pool


def couple(pool: LabelPool, one: object, other: object) -> None:
    pool.couple(np.array(one, np.int64), np.array(other, np.int64))


def roots(pool: LabelPool) -> list[int]:
    found: list[int] = pool.all_roots().tolist()
    return found


class TestFresh:
    def test_labels_are_consecutive_and_never_given_twice(self) -> None:
        pool = LabelPool()
        assert pool.fresh(3).tolist() == [0, 1, 2]
        assert pool.fresh(0).tolist() == []
        assert pool.fresh(2).tolist() == [3, 4]
        assert pool.count == 5

    def test_they_are_coupled_with_nothing(self) -> None:
        assert roots(pool_of(4)) == [0, 1, 2, 3]

    def test_none_are_there_before(self) -> None:
        assert roots(LabelPool()) == []

    def test_there_is_room_for_any_number(self) -> None:
        pool = pool_of(1000)
        couple(pool, [0, 999], [1, 998])
        for more in (23, 1, 1, 7000):
            start = pool.count
            assert pool.fresh(more).tolist() == list(range(start, start + more))
            assert pool.all_roots()[start:].tolist() == list(range(start, start + more))
        couple(pool, [1, 5], [pool.count - 1, 1025])
        apart = [label for label in range(pool.count) if label not in (1, 999, 1025, 8024)]
        assert pool.count == 8025
        assert pool.all_roots()[[1, 999, 1025, 8024]].tolist() == [0, 998, 5, 0]
        assert pool.all_roots()[apart].tolist() == apart


class TestCouple:
    def test_position_by_position(self) -> None:
        pool = pool_of(7)
        couple(pool, [0, 1, 2], [4, 3, 5])
        assert roots(pool) == [0, 1, 2, 1, 0, 2, 6]

    def test_the_root_is_the_smallest_label_on_whatever_side_it_stands(self) -> None:
        pool = pool_of(4)
        couple(pool, [3], [1])
        couple(pool, [0], [2])
        assert roots(pool) == [0, 1, 0, 1]
        couple(pool, [3], [2])
        assert roots(pool) == [0, 0, 0, 0]

    def test_what_was_coupled_before_comes_along(self) -> None:
        pool = pool_of(6)
        couple(pool, [4, 3], [5, 4])
        couple(pool, [1], [2])
        couple(pool, [5], [2])
        assert roots(pool) == [0, 1, 1, 1, 1, 1]

    def test_one_label_with_many_at_once(self) -> None:
        for one, other in (([4, 4, 4], [1, 2, 3]), ([1, 2, 3], [4, 4, 4])):
            pool = pool_of(6)
            couple(pool, one, other)
            assert roots(pool) == [0, 1, 1, 1, 1, 5]

    def test_many_that_share_a_root_already(self) -> None:
        """No pair may be lost because another one of the same call writes to the same root."""
        pool = pool_of(8)
        couple(pool, [5, 6], [7, 7])
        couple(pool, [5, 6, 7], [1, 2, 3])
        assert roots(pool) == [0, 1, 1, 1, 4, 1, 1, 1]

    def test_a_chain_in_one_call(self) -> None:
        pool = pool_of(100)
        couple(pool, np.arange(99), np.arange(1, 100))
        assert roots(pool) == [0] * 100
        pool = pool_of(100)
        couple(pool, np.arange(1, 100)[::-1], np.arange(99)[::-1])
        assert roots(pool) == [0] * 100

    def test_with_itself_nothing_happens(self) -> None:
        pool = pool_of(3)
        couple(pool, [0, 1, 2], [0, 1, 2])
        assert roots(pool) == [0, 1, 2]

    def test_shapes_are_broadcast(self) -> None:
        """A flat axis of outer 2 x part 2 x inner 2 with its part, as behind a Flatten."""
        pool = pool_of(10)
        couple(pool, np.arange(2, 10).reshape(2, 2, 2), [[0], [1]])
        assert roots(pool) == [0, 1, 0, 0, 1, 1, 0, 0, 1, 1]

    def test_one_label_spreads_over_an_axis(self) -> None:
        pool = pool_of(5)
        couple(pool, [1], [1, 2, 4])
        assert roots(pool) == [0, 1, 1, 3, 1]


class TestRoots:
    def test_of_any_shape_and_with_repeats(self) -> None:
        pool = pool_of(6)
        couple(pool, [0, 1], [3, 4])
        assert pool.roots(np.array([[3, 4], [4, 5]])).tolist() == [[0, 1], [1, 5]]
        assert pool.roots(np.array([], np.int64)).tolist() == []

    def test_asking_changes_neither_labels_nor_couplings(self) -> None:
        pool = pool_of(6)
        couple(pool, [4, 3, 2], [5, 4, 3])
        asked = np.array([5, 3, 1])
        assert pool.roots(asked).tolist() == [2, 2, 1]
        assert asked.tolist() == [5, 3, 1]
        assert roots(pool) == [0, 1, 2, 2, 2, 2]


pairs = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=6)


@given(st.lists(pairs, max_size=5))
def test_roots_are_those_of_sets_joined_one_by_one(calls: list[list[tuple[int, int]]]) -> None:
    pool, sets = pool_of(12), [{label} for label in range(12)]
    for call in calls:
        couple(pool, [one for one, _ in call], [other for _, other in call])
        for one, other in call:
            joined = sets[one] | sets[other]
            for label in joined:
                sets[label] = joined
        assert roots(pool) == [min(own) for own in sets]


class TestTally:
    def test_what_is_marked_on_each_axis(self) -> None:
        tally = Tally([np.array([0, 1, 2]), np.array([], np.int64), np.array([4, 2])])
        flags = np.array([True, False, True, True, False])
        assert tally.counts(flags) == [2, 0, 1]
        assert tally.counts(~flags) == [1, 0, 1]

    def test_a_channel_counts_as_often_as_it_is_there(self) -> None:
        assert Tally([np.array([1, 1, 0])]).counts(np.array([False, True])) == [2]

    def test_no_axes(self) -> None:
        assert Tally([]).counts(np.array([True])) == []
