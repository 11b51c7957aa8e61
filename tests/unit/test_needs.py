"""Needs: which channels anybody wants, followed from the outputs back by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from build import Net
from onnx_upscale.optimizer.analyze import Analysis, analyze
from onnx_upscale.optimizer.load import load

Rows = list[list[float]]
Flags = list[int]


def net() -> Net:
    return Net(17, x=(1, 2, 4, 4))


def conv(net: Net, data: str, rows: Rows, *bias: list[float], **attributes: Any) -> str:
    weight = np.array(rows, np.float32)[..., np.newaxis, np.newaxis]
    return net("Conv", data, weight, *(np.array(b, np.float32) for b in bias), **attributes)


def writer(net: Net, channels: int) -> str:
    """Channels that all depend on the input."""
    return conv(net, "x", [[1.0, 2.0]] * channels)


def under(net: Net, *outputs: str, **masks: dict[str, list[int]]) -> Analysis:
    document = {"version": 1, "masks": masks}
    return analyze(load(net.model(*outputs), document).graph)


def needed(analysis: Analysis, tensor: str, axis: int = 1) -> Flags:
    """Per channel of a tensor, whether it is needed."""
    labels = analysis.structure.axes[tensor][axis]
    found: Flags = analysis.needs.labels[labels].astype(int).tolist()
    return found


def reads(analysis: Analysis, node: str) -> Flags:
    """Per input channel of a reader, whether that reader needs it."""
    index = next(n.index for n in analysis.graph.nodes if n.title == node)
    found: Flags = analysis.needs.reads[index].astype(int).tolist()
    return found


class TestReaders:
    def test_a_channel_without_weights_is_not_needed(self) -> None:
        made = net()
        data = writer(made, 4)
        analysis = under(made, conv(made, data, [[1, 0, 0, 0], [0, 0, 1, 0]], name="reader"))
        assert needed(analysis, data) == [1, 0, 1, 0]
        assert reads(analysis, "reader") == [1, 0, 1, 0]

    def test_a_channel_that_a_mask_prunes_is_not_needed(self) -> None:
        made = net()
        data = writer(made, 3)
        out = conv(made, data, [[1, 1, 1]], name="reader")
        assert needed(under(made, out), data) == [1, 1, 1]
        assert needed(under(made, out, reader={"input": [0, 1]}), data) == [0, 0, 1]

    def test_what_any_of_several_readers_needs_is_needed(self) -> None:
        made = net()
        data = writer(made, 4)
        one = conv(made, data, [[1, 0, 0, 0]], name="one")
        other = conv(made, data, [[0, 0, 0, 1]], name="other")
        analysis = under(made, one, other)
        assert needed(analysis, data) == [1, 0, 0, 1]
        assert (reads(analysis, "one"), reads(analysis, "other")) == ([1, 0, 0, 0], [0, 0, 0, 1])

    def test_a_graph_output_needs_all(self) -> None:
        made = net()
        data = writer(made, 3)
        analysis = under(made, data, conv(made, data, [[0, 1, 0]], name="reader"))
        assert needed(analysis, data) == [1, 1, 1]
        assert reads(analysis, "reader") == [0, 1, 0]

    def test_a_reader_whose_result_has_no_channels_needs_what_it_weighs(self) -> None:
        made = Net(17, x=(5, 2))
        data = made("MatMul", "x", np.ones((2, 3), np.float32))
        vector = np.array([1, 0, 1], np.float32)
        analysis = under(made, made("MatMul", data, vector, name="reader"))
        assert needed(analysis, data) == [1, 0, 1]
        assert reads(analysis, "reader") == [1, 0, 1]

    def test_where_nobody_needs_any_the_first_stays(self) -> None:
        made = net()
        data = writer(made, 3)
        analysis = under(made, conv(made, data, [[0, 0, 0]], [1], name="reader"))
        assert needed(analysis, data) == [1, 0, 0]
        assert reads(analysis, "reader") == [0, 0, 0]

    def test_a_tensor_that_is_only_measured_keeps_its_first_channel(self) -> None:
        made = net()
        data = writer(made, 3)
        height = made("Gather", made("Shape", data), made.ints(2))
        assert needed(under(made, height), data) == [1, 0, 0]


class TestKnownValues:
    @pytest.mark.parametrize(
        ("value", "attributes", "wanted"),
        [
            (7, {}, 0),
            (0, {}, 0),
            (7, {"pads": [1, 1, 1, 1]}, 1),
            (0, {"pads": [1, 1, 1, 1]}, 0),
        ],
    )
    def test_a_reader_absorbs_what_its_bias_can_hold(
        self, value: float, attributes: dict[str, Any], wanted: int
    ) -> None:
        made = net()
        data = conv(made, "x", [[1, 2], [0, 0]], [0, value])
        analysis = under(made, conv(made, data, [[1, 1]], name="reader", **attributes))
        assert needed(analysis, data) == reads(analysis, "reader") == [1, wanted]

    def test_a_layer_that_is_pruned_is_not_needed(self) -> None:
        made = net()
        data = conv(made, "x", [[1, 2], [3, 4]], [5, 6], name="layer")
        out = conv(made, data, [[1, 1]], pads=[1, 1, 1, 1])
        assert needed(under(made, out, layer={"output": [0]}), data) == [0, 1]

    @pytest.mark.parametrize(("op", "wanted"), [("ReduceSum", [1, 0, 1]), ("ReduceMean", [1] * 3)])
    def test_a_sum_over_channels_needs_no_zeros(self, op: str, wanted: Flags) -> None:
        made = Net(11, x=(1, 2, 4, 4))
        data = conv(made, "x", [[1, 2], [0, 0], [0, 0]], [0, 0, 3])
        assert needed(under(made, made(op, data, axes=[1])), data) == wanted

    def test_a_sum_of_nothing_but_zeros_needs_one(self) -> None:
        made = Net(11, x=(4, 4))
        rows = made("MatMul", np.ones((3, 4), np.float32), "x")
        data = made("MatMul", rows, np.zeros((4, 2), np.float32))
        analysis = under(made, made("ReduceSum", data, axes=[1]))
        assert (needed(analysis, data, axis=0), needed(analysis, data)) == ([1, 1, 1], [1, 0])

    def test_what_mixes_channels_needs_zeros_too(self) -> None:
        made = net()
        data = conv(made, "x", [[1, 2], [0, 0]])
        assert needed(under(made, made("Softmax", data, axis=1)), data) == [1, 1]


class TestCascade:
    def test_what_only_an_unneeded_channel_needs_is_not_needed(self) -> None:
        made = net()
        a = writer(made, 3)
        b = conv(made, a, [[1, 0, 0], [0, 1, 0], [0, 1, 1]], name="b")
        c = conv(made, b, [[1, 0, 0], [0, 1, 0]], name="c")
        d = conv(made, c, [[1, 0]], name="d")
        analysis = under(made, d)
        assert [needed(analysis, each) for each in (c, b, a)] == [[1, 0], [1, 0, 0], [1, 0, 0]]
        assert [reads(analysis, each) for each in "dcb"] == [[1, 0], [1, 0, 0], [1, 0, 0]]

    def test_one_needed_row_is_enough(self) -> None:
        made = net()
        a = writer(made, 3)
        b = conv(made, a, [[1, 0, 0], [0, 1, 0], [0, 1, 1]])
        analysis = under(made, conv(made, b, [[0, 0, 1]]))
        assert (needed(analysis, b), needed(analysis, a)) == ([0, 0, 1], [0, 1, 1])

    def test_it_goes_through_what_acts_on_each_channel(self) -> None:
        made = net()
        a = writer(made, 3)
        b = made("Relu", a)
        c = made("MaxPool", b, kernel_shape=[2, 2])
        analysis = under(made, conv(made, c, [[0, 1, 0]]))
        assert needed(analysis, a) == needed(analysis, b) == needed(analysis, c) == [0, 1, 0]

    def test_needs_reach_the_part_of_a_concat(self) -> None:
        made = net()
        a, b = writer(made, 2), writer(made, 3)
        whole = made("Concat", b, a, axis=1)
        analysis = under(made, conv(made, whole, [[0, 1, 0, 0, 1]]))
        assert (needed(analysis, b), needed(analysis, a)) == ([0, 1, 0], [0, 1])

    def test_coupled_channels_are_needed_together(self) -> None:
        """A reader of `a` alone makes its partner in `b` needed, and that what computes it."""
        made = net()
        e = writer(made, 3)
        a, b = writer(made, 2), conv(made, e, [[1, 0, 0], [0, 1, 0]], name="b")
        total = made("Add", a, b)
        alone = conv(made, total, [[1, 0]], name="sum")
        assert needed(under(made, alone), e) == [1, 0, 0]
        analysis = under(made, alone, conv(made, a, [[0, 1]], name="single"))
        assert needed(analysis, a) == needed(analysis, b) == needed(analysis, total) == [1, 1]
        assert needed(analysis, e) == reads(analysis, "b") == [1, 1, 0]
        assert (reads(analysis, "sum"), reads(analysis, "single")) == ([1, 0], [0, 1])

    def test_what_turns_out_late_is_followed_too(self) -> None:
        """Behind a loop of couplings a layer has more to compute than when it was first met."""
        made = net()
        a = writer(made, 2)
        b = conv(made, made("Neg", a), [[0, 1], [1, 0]], name="b")
        c = conv(made, b, [[1, 0], [0, 1]], name="c")
        analysis = under(made, conv(made, made("Add", a, c), [[1, 0]], name="last"))
        assert needed(analysis, a) == needed(analysis, c) == [1, 1]
        assert needed(analysis, b) == reads(analysis, "c") == [1, 1]
        assert reads(analysis, "last") == [1, 0]

    def test_a_group_is_needed_where_one_of_its_channels_is(self) -> None:
        made = net()
        a = writer(made, 4)
        b = conv(made, a, [[1, 1]] * 4, group=2)
        analysis = under(made, conv(made, b, [[0, 0, 1, 0]]))
        assert needed(analysis, a) == [0, 0, 1, 1]
        assert needed(analysis, b) == [0, 0, 1, 0]


class TestKeeping:
    def chain(self) -> tuple[Analysis, str, str]:
        made = net()
        a = writer(made, 3)
        b = conv(made, a, [[1, 0, 0], [0, 1, 0], [0, 0, 1]], name="b")
        return under(made, conv(made, b, [[1, 0, 0]], name="c")), a, b

    def test_more_roots_take_what_computes_them(self) -> None:
        analysis, a, b = self.chain()
        axes, roots = analysis.structure.axes, analysis.structure.roots
        kept = analysis.keeping(roots[axes[b][1][[2]]])
        assert kept.labels[axes[b][1]].tolist() == [True, False, True]
        assert kept.labels[axes[a][1]].tolist() == [True, False, True]
        nodes = {node.title: node.index for node in analysis.graph.nodes}
        assert kept.reads[nodes["b"]].tolist() == [True, False, True]
        assert kept.reads[nodes["c"]].tolist() == [True, False, False]

    def test_it_leaves_the_needs_as_they_were(self) -> None:
        analysis, a, b = self.chain()
        analysis.keeping(analysis.structure.roots)
        assert needed(analysis, a) == needed(analysis, b) == [1, 0, 0]

    def test_nothing_more_is_what_is_needed(self) -> None:
        analysis, *_ = self.chain()
        kept = analysis.keeping(np.array([], np.int64))
        np.testing.assert_array_equal(kept.labels, analysis.needs.labels)
