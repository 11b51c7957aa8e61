"""An operator that moves channels is told in one place: its rule, and its rewrite beside it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from unittest import mock

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnx_upscale
from build import Net, input_values, node, run, weight_shape
from onnx_upscale.optimizer.analyze.context import Context
from onnx_upscale.optimizer.analyze.rewrites import Editor, Positions
from onnx_upscale.optimizer.analyze.rules import RULES
from onnx_upscale.optimizer.analyze.rules.table import rule
from onnx_upscale.optimizer.load.graph import IntArray


def _reverse(context: Context) -> None:
    """All channels of the one sample there is, the last one first."""
    context.pin_others(0, {1}, "reversed along channels only")
    labels = context.axes(0).get(1)
    if labels is not None:
        context.move(1, labels[::-1])
        context.rewrite(partial(_fit_reverse, labels))


def _fit_reverse(labels: IntArray, editor: Editor, positions: Positions) -> None:
    there, wanted = labels[positions(labels)], labels[::-1][positions(labels[::-1])]
    turned = np.array_equal(wanted, there[::-1])
    assert turned or np.array_equal(wanted, there)
    editor.set_integers(1, "lengths", [len(there) if turned else 1])


@pytest.fixture
def reversing() -> Iterator[None]:
    """ReverseSequence has a rule for as long as a test runs."""
    assert ("", "ReverseSequence") not in RULES
    with mock.patch.dict(RULES):
        rule("ReverseSequence")(_reverse)
        yield


@pytest.mark.parametrize("strategy", ["auto", "upscale", "gather"])
@pytest.mark.usefixtures("reversing")
def test_a_new_operator_that_moves_channels_takes_a_rule_and_its_rewrite(strategy: str) -> None:
    net = Net(17, x=(1, 4, 5, 5))
    made = net("Conv", "x", net.random(8, 4, 1, 1), net.random(8), name="first")
    turned = net("ReverseSequence", made, net.ints(8), name="turned", time_axis=1, batch_axis=0)
    weight = net.random(2, 8, 1, 1)
    weight[:, [0, 3, 4]] = 0
    model = net.model(net("Conv", turned, weight, name="last"))
    emitted = onnx_upscale.optimize(model, strategy=strategy).model
    assert weight_shape(emitted, "first") == (5, 4, 1, 1)
    assert weight_shape(emitted, "last") == (2, 5, 1, 1)
    values = input_values(model)
    wanted, found = run(model, values)[0], run(emitted, values)[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("reversing")
def test_a_node_whose_channels_stay_in_their_order_is_still_told_how_many_there_are() -> None:
    net = Net(17, x=(1, 4, 5, 5))
    made = net("Conv", "x", net.random(8, 4, 1, 1), name="first")
    turned = net("ReverseSequence", made, net.ints(8), name="turned", time_axis=1, batch_axis=0)
    model = net.model(net("Relu", turned))  # A graph output keeps all channels in their order.
    emitted = onnx_upscale.optimize(model).model
    kept = node(emitted, "turned")
    assert kept is not None
    stored = {tensor.name: tensor for tensor in emitted.graph.initializer}
    assert numpy_helper.to_array(stored[kept.input[1]]).tolist() == [8]
    onnx.checker.check_model(emitted)
