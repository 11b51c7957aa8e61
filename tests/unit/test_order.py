"""Order of channels: paths, the tree and both together, against brute force."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from channel_sets import (
    IntArray,
    Sets,
    all_orders,
    arrays,
    families,
    keeping,
    reached,
    segments,
)
from onnx_upscale.optimizer.plan import paths
from onnx_upscale.optimizer.plan.order import (
    _hopeless,
    _parts,
    contiguous,
    first_alike,
    perfect_order,
)
from onnx_upscale.optimizer.plan.paths import membership, overlap, path_order
from onnx_upscale.optimizer.plan.pq_tree import PQTree, _Check

relaxed = settings(deadline=None)


class TestPathOrder:
    @relaxed
    @given(segments())
    def test_is_a_permutation(self, segment: tuple[int, list[IntArray]]) -> None:
        size, readers = segment
        assert sorted(path_order(size, readers).tolist()) == list(range(size))

    @pytest.mark.parametrize("count", [1, 40, 128, 129, 300])
    def test_what_sets_share(self, count: int) -> None:
        member = np.random.default_rng(count).random((count, 70)) < 0.3
        sets = [set(np.flatnonzero(row).tolist()) for row in member]
        assert overlap(member).tolist() == [[len(a & b) for b in sets] for a in sets]

    @relaxed
    @given(families(max_size=30, max_sets=2))
    def test_is_perfect_for_one_or_two(self, family: tuple[int, Sets]) -> None:
        size, sets = family
        order = path_order(size, arrays(sets))
        assert all(contiguous(order, channels) for channels in arrays(sets))

    @relaxed
    @given(
        st.lists(st.integers(1, 5), min_size=3, max_size=19),
        st.integers(0, 4),
        st.integers(0, 2**32 - 1),
    )
    def test_is_perfect_for_chains(self, lengths: list[int], others: int, seed: int) -> None:
        shuffle = np.random.default_rng(seed).permutation
        cuts = np.cumsum([0, *lengths])
        channels = shuffle(int(cuts[-1]) + others)
        # Readers take three blocks each and share every other block: A-B-C-...
        readers = [channels[cuts[at] : cuts[at + 3]] for at in range(0, len(lengths) - 2, 2)]
        readers = [readers[at] for at in shuffle(len(readers))]
        order = path_order(channels.size, readers)
        assert all(contiguous(order, reader) for reader in readers)
        needed = np.unique(np.concatenate(readers)).size
        assert (np.diff(order[needed:]) > 0).all()

    @relaxed
    @given(families(max_size=10, max_sets=5))
    @example((9, [[0, 1, 2, 3, 4], [0, 1, 2, 3, 5], [4, 5, 6, 7]]))  # larger, but more in common
    @example((16, [[0, 1], [1, 2], [2, 3], [3, 4], [0, 1, 2, 3, *range(9, 16)]]))
    @example((16, [[0, 5, 1], [1, 6, 2], [2, 7, 3], [3, 8, 4], [5, 6, 7, 8, *range(9, 16)]]))
    def test_covers_no_less_than_the_best_path(self, family: tuple[int, Sets]) -> None:
        size, sets = family
        readers = [set(channels) for channels in sets]
        largest = [one for one in readers if not any(one < other for other in readers)]
        best = 0
        for count in range(1, len(largest) + 1):
            for path in itertools.permutations(largest, count):
                pairs = itertools.combinations(range(count), 2)
                if all(bool(path[a] & path[b]) == (b == a + 1) for a, b in pairs):
                    best = max(best, len(set().union(*path)))
        order = path_order(size, arrays(sets))
        kept = [set(channels) for channels in sets if contiguous(order, np.array(channels))]
        assert len(set().union(*kept)) >= best

    def test_lays_readers_side_by_side(self) -> None:
        readers = arrays([[6, 4, 5], [0, 1, 2], [2, 3, 4]])
        assert path_order(8, readers).tolist() in (
            [5, 6, 4, 3, 2, 0, 1, 7],
            [0, 1, 2, 3, 4, 5, 6, 7],
        )

    def test_takes_the_heavier_path(self) -> None:
        light, heavy = [0, 1, 2], [2, 3, 4, 5]
        rival = [0, 2, 6, 7, 8]  # overlaps both, so a path has two of the three
        order = path_order(9, arrays([light, heavy, rival]))
        assert contiguous(order, np.array(heavy))
        assert contiguous(order, np.array(rival))

    def test_orders_readers_apart_from_the_path(self) -> None:
        readers = arrays([[0, 2, 4], [4, 6], [1, 3], [3, 5, 7]])
        order = path_order(9, readers)
        assert all(contiguous(order, reader) for reader in readers)
        assert order[-1] == 8

    def test_nests(self) -> None:
        readers = arrays([range(2, 2 + length) for length in range(1, 40)])
        order = path_order(50, readers[::2] + readers[1::2])
        assert all(contiguous(order, reader) for reader in readers)

    def test_of_very_many_readers_the_largest_are_laid_out(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        readers = arrays([[0, 9], [2, 6, 4], [1, 8], [4, 7, 5], [3, 0]])
        monkeypatch.setattr(paths, "_COMPARED", 2)
        order = path_order(10, readers)
        assert contiguous(order, readers[1])
        assert contiguous(order, readers[3])
        assert order[5:].tolist() == [0, 1, 3, 8, 9]

    def test_no_reader_changes_nothing(self) -> None:
        assert path_order(4, []).tolist() == [0, 1, 2, 3]
        assert path_order(4, arrays([[]])).tolist() == [0, 1, 2, 3]
        assert path_order(0, []).tolist() == []

    @pytest.mark.parametrize("channel", [-1, 3])
    def test_rejects_unknown_channels(self, channel: int) -> None:
        with pytest.raises(IndexError):
            path_order(3, arrays([[channel]]))


class TestPerfectOrder:
    @relaxed
    @given(families())
    def test_finds_a_perfect_order_if_there_is_one(self, family: tuple[int, Sets]) -> None:
        size, sets = family
        orders = all_orders(size)
        possible = np.all([keeping(orders, channels) for channels in sets], axis=0).any()
        order, taken = perfect_order(size, [], arrays(sets), [len(one) for one in sets])
        assert sorted(order.tolist()) == list(range(size))
        assert all(taken) == possible

    @relaxed
    @given(segments())
    def test_is_never_worse_than_paths(self, segment: tuple[int, list[IntArray]]) -> None:
        size, readers = segment
        order, taken = perfect_order(size, [], readers, [reader.size for reader in readers])
        assert taken == [contiguous(order, reader) for reader in readers]
        assert reached(order, readers) >= reached(path_order(size, readers), readers)

    @relaxed
    @given(families(max_size=6, max_sets=6), families(max_size=6, max_sets=2))
    def test_stays_between_greedy_and_optimum(
        self, family: tuple[int, Sets], more: tuple[int, Sets]
    ) -> None:
        size = max(family[0], more[0])
        wanted, mandatory = family[1], more[1]
        value = [float(len(channels)) for channels in wanted]
        orders = all_orders(size)
        for channels in mandatory:
            orders = orders[keeping(orders, channels)]
        if not len(orders):
            with pytest.raises(ValueError, match="mandatory"):
                perfect_order(size, arrays(mandatory), arrays(wanted), value)
            return
        order, taken = perfect_order(size, arrays(mandatory), arrays(wanted), value)
        kept = np.stack([keeping(orders, channels) for channels in wanted])
        got = sum(itertools.compress(value, taken))
        assert order.tolist() in orders.tolist()
        assert taken == [contiguous(order, channels) for channels in arrays(wanted)]
        assert got <= (np.array(value) @ kept).max()
        left = np.ones(len(orders), dtype=np.bool_)
        greedy = 0.0
        for at in sorted(range(len(wanted)), key=lambda at: -value[at]):
            if (left & kept[at]).any():
                left &= kept[at]
                greedy += value[at]
        assert got >= greedy

    def test_paths_make_up_for_greed(self) -> None:
        # The first two readers shut out the others; 0-4-1-3 has three of the four.
        readers = arrays([[1, 4], [3, 4], [1, 3], [0, 4]])
        tree = PQTree(5)
        assert [tree.reduce(reader) for reader in readers] == [True, True, False, False]
        _, taken = perfect_order(5, [], readers, [2, 2, 2, 2])
        assert taken == [True, False, True, True]

    def test_prefers_the_valuable_then_the_first(self) -> None:
        triangle = arrays([[0, 1], [1, 2], [0, 2]])
        assert perfect_order(4, [], triangle, [1, 2, 3])[1] == [False, True, True]
        assert perfect_order(4, [], triangle, [1, 1, 1])[1] == [True, True, False]

    def test_mandatory_sets_come_first(self) -> None:
        order, taken = perfect_order(
            6, arrays([[0, 1, 2], [2, 3]]), arrays([[0, 3], [0, 1], [5, 3]]), [100, 1, 1]
        )
        assert taken == [False, True, True]
        assert all(contiguous(order, channels) for channels in arrays([[0, 1, 2], [2, 3]]))

    def test_contradictory_mandatory_sets(self) -> None:
        with pytest.raises(ValueError, match="mandatory set 2"):
            perfect_order(4, arrays([[0, 1], [1, 2], [0, 2]]), [], [])

    def test_trivial_and_repeated_sets_are_free(self, monkeypatch: pytest.MonkeyPatch) -> None:
        torn: list[list[int]] = []
        original = PQTree._bring_together

        def counting(self: PQTree, check: _Check) -> int:
            torn.append(check.full)
            return original(self, check)

        monkeypatch.setattr(PQTree, "_bring_together", counting)
        readers = arrays([[], [2], range(5), [1, 0, 2], [0, 1, 2], [2, 1, 0], range(5)])
        _, taken = perfect_order(5, [], readers, [1.0] * len(readers))
        assert all(taken)
        assert len(torn) == 1

    def test_alike_channels_stay_in_original_order(self) -> None:
        order, _ = perfect_order(6, [], arrays([[5, 1, 3]]), [3])
        assert order.tolist() in ([0, 2, 4, 1, 3, 5], [1, 3, 5, 0, 2, 4])

    @given(st.integers(1, 200), st.integers(0, 12), st.integers(0, 2**32 - 1))
    def test_parts_are_channels_in_the_same_sets(self, sets: int, size: int, seed: int) -> None:
        member = np.random.default_rng(seed).random((sets, size)) < 1 / sets
        columns = [bytes(column) for column in member.T]
        distinct = list(dict.fromkeys(columns))
        part, parts = _parts(member)
        assert part.tolist() == [distinct.index(column) for column in columns]
        assert [own.tolist() for own in parts] == [
            [at for at, column in enumerate(distinct) if column[row]] for row in range(sets)
        ]

    def test_nothing_wanted(self) -> None:
        order, taken = perfect_order(3, [], [], [])
        assert (order.tolist(), taken) == ([0, 1, 2], [])
        assert perfect_order(0, [], arrays([[]]), [1])[1] == [True]

    def test_rejects_values_of_another_length(self) -> None:
        with pytest.raises(ValueError, match="1 wanted sets, but 2 values"):
            perfect_order(3, [], arrays([[0, 1]]), [1, 2])

    @relaxed
    @given(segments())
    def test_is_deterministic(self, segment: tuple[int, list[IntArray]]) -> None:
        size, readers = segment
        value = [reader.size for reader in readers]
        runs = [perfect_order(size, [], readers, value) for _ in range(2)]
        assert runs[0][0].tolist() == runs[1][0].tolist()
        assert runs[0][1] == runs[1][1]

    @pytest.mark.parametrize(
        ("wanted", "order"),
        [([0, 3], [0, 3, 1, 2, 4]), ([1, 3], [0, 2, 4, 1, 3]), ([], [0, 1, 2, 3, 4])],
    )
    def test_one_set_stands_where_the_first_channel_stays_first(
        self, wanted: list[int], order: list[int]
    ) -> None:
        found, taken = perfect_order(5, [], [np.array(wanted, np.int64)], [1.0])
        assert found.tolist() == order
        assert taken == [True]


class TestHopeless:
    def test_a_set_that_holds_parts_of_three_others(self) -> None:
        parts = [np.array([0, 1]), np.array([2, 3]), np.array([4, 5])]
        wanted = [np.array([0, 2, 4]), np.array([0, 2, 3]), np.array([1, 2, 3, 4]), np.array([0])]
        assert _hopeless(membership(6, parts), membership(6, wanted)) == [True, False, False, False]

    def test_parts_that_overlap_count_once(self) -> None:
        parts = [np.array([0, 1]), np.array([0, 1, 2]), np.array([0, 1, 2, 3]), np.array([4, 5])]
        assert _hopeless(membership(6, parts), membership(6, [np.array([0, 4])])) == [False]

    @given(st.data())
    def test_the_tree_takes_none_of_them(self, data: st.DataObject) -> None:
        cuts = sorted(data.draw(st.sets(st.integers(1, 11), max_size=5)))
        parts = [part for part in np.split(np.arange(12), cuts) if len(part)]
        tree = PQTree(12)
        for part in parts:
            assert tree.reduce(part)
        some = data.draw(st.sets(st.integers(0, 11), min_size=1))
        wanted = np.array(sorted(some))
        if _hopeless(membership(12, parts), membership(12, [wanted]))[0]:
            assert not copy.deepcopy(tree).reduce(wanted)


class TestContiguous:
    @pytest.mark.parametrize(
        ("channels", "expected"),
        [([], True), ([3], True), ([1, 3], True), ([3, 0, 1], True), ([0, 1], False), ([9], False)],
    )
    def test_examples(self, channels: list[int], expected: bool) -> None:
        order = np.array([1, 3, 0, 2])
        assert contiguous(order, np.array(channels, dtype=np.int64)) == expected


def test_one_set_comes_first_or_last_and_nothing_else_moves() -> None:
    flags = np.array([False, True, False, True, True])
    assert first_alike(flags).tolist() == [0, 2, 1, 3, 4]
    assert first_alike(~flags).tolist() == [0, 2, 1, 3, 4]
    assert first_alike(flags[1:]).tolist() == [0, 2, 3, 1]
    assert first_alike(flags[:0]).tolist() == []
