"""LSTM, GRU and RNN that read each other: in a row, or one starts as another ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import weight_shape
from mask_document import Masks, document
from recurrent_cases import CASES, LEFT, PRUNED, Case, computed, merged, squeezed
from recurrent_net import GATES, READ, UNITS, RecurrentNet, hidden_size
from rule_cases import assert_all_same, assert_same
from several import emitted

WAYS = (("auto", "as built in"), ("gather", "as built in"))


@pytest.mark.parametrize("op", GATES)
def test_what_another_layer_makes_to_start_with_leaves_as_well(op: str) -> None:
    case = CASES.get(f"{op}-computed", Case(op, starts=computed))
    starts = ("start", "start_c")[: 2 if op == "LSTM" else 1]
    masks = {f"{name}.output": PRUNED for name in ("rnn", *starts)}
    original, expected = case.model(op, {}), case.model(op, masks)
    for strategy in ("auto", "gather"):
        result = onnx_upscale.optimize(original, document(masks), strategy=strategy)
        assert_same(expected, result.model, strategy)
        assert hidden_size(result.model) == LEFT
        assert [weight_shape(result.model, name)[1] for name in starts] == [LEFT] * len(starts)


def _chain(op: str, masks: Masks, sequences: bool) -> onnx.ModelProto:
    """Two layers, of which the second reads the first, or starts as it ends."""
    net = RecurrentNet(14, 5, masks)
    read = net("Relu", net.product("x", "first", 3, READ))
    encoder = net.recurrent(op, read, name="one")
    if sequences:
        made = net.recurrent(op, squeezed(net, encoder), name="two", inputs=UNITS)
    else:
        own = net("Relu", net.product("x", "own", 3, READ))
        made = net.recurrent(op, own, "", *encoder[1:], name="two")
    return net.model(net.product(squeezed(net, made), "last", UNITS, 2))


@pytest.mark.parametrize("op", GATES)
def test_stacked_layers_lose_units_each(op: str) -> None:
    masks = {"one.output": PRUNED, "two.output": (0, 2, 5)}
    for strategy in ("auto", "gather"):
        result = onnx_upscale.optimize(_chain(op, {}, True), document(masks), strategy=strategy)
        assert_same(_chain(op, masks, True), result.model, strategy)
        assert hidden_size(result.model, "one") == LEFT
        assert hidden_size(result.model, "two") == UNITS - 3
        assert weight_shape(result.model, "two")[2] == LEFT


def _stack(op: str, masks: Masks, directions: int, indices: Sequence[Any]) -> onnx.ModelProto:
    """As torch's exporters write a stack of which the ends are read."""
    net = RecurrentNet(14, 11, masks)
    read = net("Relu", net.product("x", "first", 3, READ))
    one = net.recurrent(op, read, name="one", directions=directions)
    behind = squeezed if directions == 1 else merged
    read = behind(net, one)
    two = net.recurrent(op, read, name="two", inputs=UNITS * directions, directions=directions)
    ends = net("Concat", one[1], two[1], axis=0)
    taken = [net("Gather", ends, np.array(index, np.int64), axis=0) for index in indices]
    whole = net("Concat", *taken, axis=1) if taken[1:] else taken[0]
    return net.model(net.product(whole, "last", UNITS * len(taken), 2))


@pytest.mark.parametrize("op", GATES)
def test_layers_of_which_one_end_is_read_lose_units_each(op: str) -> None:
    for masks, left in (
        ({"one.output": PRUNED, "two.output": (0, 2, 5)}, (LEFT, UNITS - 3)),
        ({"one.output": PRUNED}, (LEFT, UNITS)),
        ({"two.output": range(UNITS)}, None),
        ({"one.output": range(UNITS)}, None),
    ):
        for directions, indices in ((1, [-1]), (1, [[1]]), (2, [-2, -1]), (2, [2])):
            model = _stack(op, {}, directions, indices)
            expected = _stack(op, masks, directions, indices)
            made = emitted(model, document(masks), WAYS)
            assert_all_same(expected, made)
            for result in made.values() if left is not None else ():
                assert tuple(hidden_size(result, name) for name in ("one", "two")) == left
                assert not any(
                    each.op_type == "Concat" and each.input[0] == "one.1"
                    for each in result.graph.node
                )
    onnx_upscale.optimize(model, document(masks))  # Verification knows what is masked.


@pytest.mark.parametrize("op", GATES)
def test_layers_of_which_both_ends_are_read_lose_what_both_do(op: str) -> None:
    """By place: of each layer one; and as they are, so that they must agree."""
    masks = {"one.output": (1, 4), "two.output": (1, 2)}
    model, expected = (_stack(op, each, 1, [0, -1]) for each in ({}, masks))
    for strategy in ("auto", "gather"):
        result = onnx_upscale.optimize(model, document(masks), strategy=strategy)
        assert_same(expected, result.model, strategy)
        assert hidden_size(result.model, "one") == UNITS - 2
        assert hidden_size(result.model, "two") == UNITS - 2
        for taken in (False, True):
            whole, expected_whole = (_whole_stack(op, each, taken) for each in ({}, masks))
            result = onnx_upscale.optimize(whole, document(masks), strategy=strategy)
            assert_same(expected_whole, result.model, strategy)
            assert hidden_size(result.model, "one") == UNITS - 1
            assert hidden_size(result.model, "two") == UNITS - 1


def _whole_stack(op: str, masks: Masks, taken: bool = False) -> onnx.ModelProto:
    """A stack in which all ends go through the same layer; one may be taken for another."""
    net = RecurrentNet(14, 11, masks)
    read = net("Relu", net.product("x", "first", 3, READ))
    one = net.recurrent(op, read, name="one")
    two = net.recurrent(op, squeezed(net, one), name="two", inputs=UNITS)
    ends = net("Concat", one[1], two[1], axis=0)
    made = [net.product(ends, "last", UNITS, 2)]
    if taken:
        made.append(net.product(net("Gather", ends, np.array(0), axis=0), "other", UNITS, 2))
    return net.model(*made)


@pytest.mark.parametrize("op", GATES)
def test_a_layer_that_starts_as_another_ends_loses_the_same_units(op: str) -> None:
    both = {"one.output": PRUNED, "two.output": PRUNED}
    for masks, kept in ((both, LEFT), ({"two.output": PRUNED}, UNITS)):
        for strategy in ("auto", "gather"):
            result = onnx_upscale.optimize(
                _chain(op, {}, False), document(masks), strategy=strategy
            )
            assert_same(_chain(op, masks, False), result.model, strategy)
            assert hidden_size(result.model, "one") == kept
            assert hidden_size(result.model, "two") == kept
