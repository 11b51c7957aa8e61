"""Segments: which axes share the order of their channels, and who takes part."""

from __future__ import annotations

import numpy as np

from build import Net
from onnx_upscale.optimizer.analyze import Segment, Structure, find_structure
from onnx_upscale.optimizer.analyze.facts import Demand
from onnx_upscale.optimizer.analyze.segments import find_segments
from onnx_upscale.optimizer.load import load


def group(
    roots: list[int], *axes: list[int], demands: tuple[Demand, ...] = ()
) -> tuple[Segment, ...]:
    """The segments of so many tensors with one axis each, with no nodes between them."""
    labels = {f"t{n}": {1: np.array(axis, np.int64)} for n, axis in enumerate(axes)}
    return find_segments(np.array(roots, np.int64), labels, (), demands)


def channels(segments: tuple[Segment, ...]) -> list[list[int]]:
    return [segment.roots.tolist() for segment in segments]


def sets(segment: Segment) -> list[list[int]]:
    return [segment.roots[each.places].tolist() for each in segment.sets]


class TestGrouping:
    def test_axes_that_share_nothing_stay_apart(self) -> None:
        segments = group([0, 1, 2, 3, 4], [0, 1], [2, 3, 4])
        assert channels(segments) == [[0, 1], [2, 3, 4]]
        assert [segment.id for segment in segments] == [0, 1]

    def test_one_shared_channel_joins_two_axes(self) -> None:
        assert channels(group([0, 1, 2, 3, 4], [0, 1], [3, 4], [1, 2])) == [[0, 1, 2], [3, 4]]

    def test_a_coupling_joins_two_axes(self) -> None:
        """Labels 2 and 3 are coupled with 1 and 0: of four labels two roots are left."""
        assert channels(group([0, 1, 1, 0], [0, 1], [2, 3])) == [[0, 1]]

    def test_a_chain_of_axes_is_one_segment(self) -> None:
        assert channels(group([0, 1, 2, 3], [2, 3], [0, 1], [1, 2])) == [[0, 1, 2, 3]]

    def test_a_label_on_no_axis_belongs_to_no_segment(self) -> None:
        assert channels(group([0, 1, 2], [1, 2])) == [[1, 2]]

    def test_without_axes_there_is_none(self) -> None:
        assert group([]) == group([0, 1]) == group([0, 1], []) == ()


class TestOrders:
    def test_every_set_of_channels_once_the_smallest_first(self) -> None:
        (segment,) = group([0, 1, 2, 3], [0, 1, 2, 3], [3, 1], [1, 3], [2])
        assert sets(segment) == [[2], [1, 3], [0, 1, 2, 3]]

    def test_repeats_on_an_axis_are_one_channel(self) -> None:
        (segment,) = group([0, 1], [0, 1, 0, 1])
        assert sets(segment) == [[0, 1]]
        assert segment.original.tolist() == [0, 1]

    def test_the_original_order_follows_the_longest_axis(self) -> None:
        (segment,) = group([0, 1, 2, 3], [0, 1], [3, 1, 0], [2, 3])
        assert segment.original.tolist() == [3, 1, 0, 2]

    def test_of_axes_of_one_length_the_first_counts(self) -> None:
        (segment,) = group([0, 1, 2], [2, 1], [0, 1])
        assert segment.original.tolist() == [2, 1, 0]


def test_a_demand_belongs_to_the_segment_of_its_channels() -> None:
    demand = Demand("t1", 0, 1, np.array([2]), True, "why not")
    one, other = group([0, 1, 2], [0, 1], [2], demands=(demand,))
    assert (one.demands, other.demands) == ((), (demand,))


def structure_of(net: Net, *outputs: str) -> Structure:
    return find_structure(load(net.model(*outputs)).graph)


def parties(segment: Segment) -> tuple[list[str], list[str]]:
    return (
        [writer.node.title for writer in segment.writers],
        [reader.layer.node.title for reader in segment.readers],
    )


class TestModels:
    def conv(self, net: Net, name: str, data: str, inputs: int, outputs: int) -> str:
        return net("Conv", data, net.random(outputs, inputs, 1, 1), name=name)

    def test_a_chain_has_a_segment_between_every_two_layers(self) -> None:
        net = Net(17, x=(1, 2, 4, 4))
        a = net("Relu", self.conv(net, "a", "x", 2, 3))
        structure = structure_of(net, self.conv(net, "c", self.conv(net, "b", a, 3, 4), 4, 5))
        segments = structure.segments
        assert [len(segment.roots) for segment in segments] == [3, 4, 5]
        assert [parties(segment) for segment in segments] == [
            (["a"], ["b"]),
            (["b"], ["c"]),
            (["c"], []),
        ]
        assert [len(segment.demands) for segment in segments] == [0, 0, 1]
        assert segments[2].demands[0].reason == "graph output"

    def test_an_add_makes_one_segment_of_two(self) -> None:
        net = Net(17, x=(1, 2, 4, 4))
        a, b = self.conv(net, "a", "x", 2, 3), self.conv(net, "b", "x", 2, 3)
        summed = net("Add", a, b)
        structure = structure_of(net, self.conv(net, "c", summed, 3, 4))
        first, last = structure.segments
        assert parties(first) == (["a", "b"], ["c"])
        assert parties(last) == (["c"], [])
        assert len(first.roots) == 3 and len(first.sets) == 1

    def test_a_concat_keeps_its_parts_as_sets_and_is_a_join(self) -> None:
        net = Net(17, x=(1, 2, 4, 4))
        a, b = self.conv(net, "a", "x", 2, 3), self.conv(net, "b", "x", 2, 2)
        whole = net("Concat", b, a, axis=1)
        one = self.conv(net, "c", whole, 5, 4)
        structure = structure_of(net, one, self.conv(net, "d", a, 3, 4))
        segment = structure.segments[0]
        made = {name: structure.roots[structure.axes[name][1]].tolist() for name in (a, b)}
        assert parties(segment) == (["a", "b"], ["c", "d"])
        assert sets(segment) == [sorted(made[b]), sorted(made[a]), sorted(made[a] + made[b])]
        assert segment.original.tolist() == made[b] + made[a]
        (join,) = segment.concatenations
        assert [len(part) for part in join.parts] == [2, 3]
        assert all(not other.concatenations for other in structure.segments[1:])

    def test_a_constant_part_of_a_concat_is_a_set_too(self) -> None:
        net = Net(17, x=(1, 2, 4, 4))
        whole = net("Concat", self.conv(net, "a", "x", 2, 3), net.random(1, 2, 4, 4), axis=1)
        segment = structure_of(net, self.conv(net, "b", whole, 5, 4)).segments[0]
        assert [len(each) for each in sets(segment)] == [2, 3, 5]

    def test_a_depthwise_layer_is_a_writer_within_its_segment(self) -> None:
        net = Net(17, x=(1, 2, 4, 4))
        a = self.conv(net, "a", "x", 2, 3)
        wise = net("Conv", a, net.random(3, 1, 1, 1), name="wise", group=3)
        first, last = structure_of(net, self.conv(net, "b", wise, 3, 4)).segments
        assert parties(first) == (["a", "wise"], ["b"])
        assert len(first.roots) == 3
        assert len(last.roots) == 4

    def test_parts_of_concats_are_places_among_the_channels(self) -> None:
        net = Net(17, x=(1, 2, 4, 4))
        other = self.conv(net, "other", "x", 2, 6)
        a, b = self.conv(net, "a", "x", 2, 3), self.conv(net, "b", "x", 2, 2)
        whole = net("Concat", b, net("Concat", a, b, axis=1), axis=1)
        segment = structure_of(net, other, self.conv(net, "c", whole, 7, 4)).segments[1]
        assert segment.roots.tolist() == [6, 7, 8, 9, 10]
        assert [part.tolist() for part in segment.parts] == [[0, 1, 2], [3, 4], [0, 1, 2, 3, 4]]

    def test_what_readers_contract_are_places_among_the_channels(self) -> None:
        net = Net(17, x=(1, 2, 4, 4))
        a, b = self.conv(net, "a", "x", 2, 3), self.conv(net, "b", "x", 2, 2)
        whole = self.conv(net, "c", net("Concat", b, a, axis=1), 5, 6)
        structure = structure_of(net, whole, self.conv(net, "d", a, 3, 4))
        assert structure.segments[0].roots.tolist() == [0, 1, 2, 3, 4]
        reads = [places.tolist() for places in structure.segments[0].reads]
        assert reads == [[3, 4, 0, 1, 2], [0, 1, 2]]

    def test_a_root_of_a_grouped_layer_stands_for_its_channels(self) -> None:
        net = Net(17, x=(1, 2, 4, 4))
        a = self.conv(net, "a", "x", 2, 6)
        grouped = net("Conv", a, net.random(4, 3, 1, 1), group=2)
        structure = structure_of(net, self.conv(net, "b", grouped, 4, 5))
        first, *_, last = structure.with_whole_heads.segments
        assert {(len(each.places), each.times) for each in first.sets} >= {(2, 2)}
        assert [(len(each.places), each.times) for each in last.sets] == [(5, 1)]

    def test_groups_that_cannot_have_orders_of_their_own_stay_whole(self) -> None:
        net = Net(17, x=(1, 2, 4, 4))
        a = self.conv(net, "a", "x", 2, 6)
        grouped = net("ConvTranspose", a, net.random(6, 2, 1, 1), group=2)
        first, last = structure_of(net, self.conv(net, "b", grouped, 4, 5)).segments
        assert [(len(each.places), each.times) for each in first.sets] == [(2, 2)]
        assert [(len(each.places), each.times) for each in last.sets] == [(5, 1)]

    def test_concats_and_pools_take_whole_blocks(self) -> None:
        net = Net(17, x=(1, 2, 4, 4))
        a, b = self.conv(net, "a", "x", 2, 3), self.conv(net, "b", "x", 2, 2)
        pooled = net("MaxPool", self.conv(net, "c", a, 3, 4), kernel_shape=[2, 2])
        joined = net("Concat", a, b, axis=1)
        outputs = self.conv(net, "d", pooled, 4, 6), self.conv(net, "e", joined, 5, 7)
        found = {
            len(each.places): each.in_blocks
            for segment in structure_of(net, *outputs).segments
            for each in segment.sets
        }
        assert found == {2: True, 3: True, 5: False, 4: True, 6: False, 7: False}

    def test_labels_of_a_rule_that_gave_up_belong_to_no_segment(self) -> None:
        net = Net(17, x=(1, 2, 4, 4), fixed=(1, 3, 4, 4), free=(1, "k", 4, 4))
        a = self.conv(net, "a", "x", 2, 5)
        (segment,) = structure_of(net, net("Concat", "fixed", a, "free", axis=1)).segments
        assert parties(segment) == (["a"], [])
        assert len(segment.roots) == 5
        assert segment.demands[0].reason == "Concat: it concatenates parts of unknown size"
