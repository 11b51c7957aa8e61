"""LSTM, GRU and RNN: what they read leaves, and hidden units leave.

As in `rule_cases`, the expected model is built anew, with zeros written into all weights of what is
masked.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import onnx_upscale
from build import assert_close, input_values, node, shape_of, weight_shape
from mask_document import Masks, document
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.load.layers import layers, multiply_adds
from onnx_upscale.stats import measure
from recurrent_cases import CASES, LEFT, PRUNED, Case, merged, squeezed
from recurrent_net import BATCH, GATES, READ, STEPS, UNITS, RecurrentNet, hidden_size
from rule_cases import NEWEST, STRATEGIES, assert_all_same, assert_same
from several import emitted
from targets import TARGETS

PROFILES = ("as built in", "copies free", "copies dear", "multiply-adds free")
WAYS = (
    ("upscale", "as built in"),
    ("gather", "as built in"),
    *(("auto", profile) for profile in PROFILES),
)


def _opsets(case: Case) -> list[int]:
    return [opset for opset in (11, 14, NEWEST) if opset >= case.since]


def _named(few: bool = False) -> list[Any]:
    return [
        pytest.param(name, opset, id=f"{name}-{opset}")
        for name, case in CASES.items()
        for opset in (_opsets(case)[-2:-1] if few else _opsets(case))
    ]


@pytest.mark.parametrize(("name", "opset"), _named())
def test_whatever_is_masked_the_result_computes_what_the_masked_model_does(
    name: str, opset: int
) -> None:
    case, rng = CASES[name], np.random.default_rng(zlib.crc32(f"{name}.{opset}".encode()))
    original = case.model(name, {}, opset)
    for _ in range(3):
        masks = case.random_masks(rng)
        expected = case.model(name, masks, opset)
        assert_all_same(expected, emitted(original, document(masks), WAYS), str(masks))


@pytest.mark.parametrize(("name", "opset"), _named(few=True))
def test_verification_knows_what_a_mask_means(name: str, opset: int) -> None:
    case, rng = CASES[name], np.random.default_rng(zlib.crc32(f"{name}/{opset}".encode()))
    original, masks = case.model(name, {}, opset), case.random_masks(rng)
    for strategy in STRATEGIES:
        result = onnx_upscale.optimize(original, document(masks), strategy=strategy)
        assert result.report.verify.ok, strategy


@pytest.mark.parametrize(("name", "opset"), _named())
def test_units_that_are_masked_leave_where_they_are_zero(name: str, opset: int) -> None:
    case, masks = CASES[name], {"rnn.output": PRUNED}
    original, expected = case.model(name, {}, opset), case.model(name, masks, opset)
    made = emitted(original, document(masks), WAYS[1:3])
    assert_all_same(expected, made)
    for way, result in made.items():
        assert hidden_size(result) == case.kept, way
        assert weight_shape(result, "last") == (case.kept * case.times, 2), way


@pytest.mark.parametrize("op", GATES)
def test_channels_that_are_masked_leave_what_is_read(op: str) -> None:
    case, masks = CASES[op], {"rnn.input": (0, 3, 5)}
    original, expected = case.model(op, {}), case.model(op, masks)
    for strategy in ("auto", "gather"):
        result = onnx_upscale.optimize(original, document(masks), strategy=strategy)
        assert_same(expected, result.model, strategy)
        assert weight_shape(result.model, "first") == (3, READ - 3)
        assert weight_shape(result.model, "rnn") == (1, GATES[op] * UNITS, READ - 3)


@pytest.mark.parametrize("op", GATES)
def test_a_mask_may_name_the_weight(op: str) -> None:
    case = CASES[op]
    original = case.model(op, {})
    found = node(original, "rnn")
    assert found is not None
    masks = {"version": 1, "masks": {found.input[1]: {"input": [0, 3], "output": [2]}}}
    result = onnx_upscale.optimize(original, masks)
    assert hidden_size(result.model) == UNITS - 1
    assert weight_shape(result.model, "rnn")[2] == READ - 2


@pytest.mark.parametrize("op", GATES)
def test_all_units_may_be_masked(op: str) -> None:
    for masks in ({"rnn.output": range(UNITS)}, {"rnn.input": range(READ)}):
        case = CASES[op]
        expected = case.model(op, masks)
        for strategy in STRATEGIES:
            result = onnx_upscale.optimize(case.model(op, {}), document(masks), strategy=strategy)
            assert_same(expected, result.model, strategy)


def _with_zeros(
    op: str, nobody_reads: Sequence[int], but: Sequence[tuple[int, int]] = (), **how: Any
) -> onnx.ModelProto:
    """A model in which some units are read by no other, but for some pairs (who reads, whom)."""
    net = RecurrentNet(14, 3, {}, **how.pop("more", {}))
    read = net("Relu", net.product("x", "first", 3, READ))
    made = net.recurrent(op, read, *how.pop("starts", ()), **how)
    between = next(t for t in net.initializers if t.name == net.nodes[-1].input[2])
    values = onnx.numpy_helper.to_array(between).copy()
    pairs = values.reshape(len(values), -1, UNITS, UNITS)
    before = pairs.copy()
    pairs[..., list(nobody_reads)] = 0
    for who, whom in but:
        pairs[:, -1, who, whom] = before[:, -1, who, whom]
    between.CopyFrom(onnx.numpy_helper.from_array(values, between.name))
    behind = merged if len(values) == 2 else squeezed
    times = len(values)
    return net.model(net.product(behind(net, made), "last", UNITS * times, 2))


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("op", GATES)
def test_a_unit_leaves_that_neither_a_reader_nor_another_unit_needs(
    op: str, directions: int
) -> None:
    unread = [2, 3, 2 + UNITS, 3 + UNITS][: 2 * directions]
    masks = document({"last.input": unread})
    how: dict[str, Any] = {"directions": directions}
    for strategy in ("auto", "gather", "upscale"):
        for model, kept in (
            (_with_zeros(op, (2, 3), **how), UNITS - 2),
            # It reads itself, which is no reason to stay; or another that leaves as well.
            (_with_zeros(op, (2, 3), [(2, 2), (2, 3)], **how), UNITS - 2),
            # Another that stays reads one of them, and that one the other.
            (_with_zeros(op, (2, 3), [(0, 2)], **how), UNITS - 1),
            (_with_zeros(op, (2, 3), [(0, 2), (2, 3)], **how), UNITS),
        ):
            result = onnx_upscale.optimize(model, masks, strategy=strategy)
            assert result.report.verify.ok
            assert hidden_size(result.model) == kept


def test_units_that_others_read_stay_and_the_report_says_so() -> None:
    result = onnx_upscale.optimize(
        CASES["LSTM"].model("LSTM", {}), document({"last.input": [2, 3]})
    )
    assert hidden_size(result.model) == UNITS
    (warning,) = result.report.warnings
    assert "last (input): other hidden units of rnn read these at the next step" in warning


@pytest.mark.parametrize("op", GATES)
def test_what_a_caller_gives_to_start_with_is_taken_in_part(op: str) -> None:
    """Nobody knows whether it is zero, so that units which are masked stay: they fade."""
    starts = ["", "h", "c"][: 3 if op == "LSTM" else 2]
    more = {name: (1, BATCH, UNITS) for name in starts[1:]}
    model = _with_zeros(op, (2, 4), starts=starts, more=more)
    result = onnx_upscale.optimize(model, document({"last.input": [2, 4]}))
    assert hidden_size(result.model) == UNITS - 2
    assert [shape_of(value) for value in result.model.graph.input[1:]] == [*more.values()]
    assert_same(model_without(model, (2, 4)), result.model, op)
    masked = onnx_upscale.optimize(model, document({"rnn.output": [2, 4]}))
    assert masked.report.verify.ok
    assert hidden_size(masked.model) == UNITS


def model_without(model: onnx.ModelProto, units: Sequence[int]) -> onnx.ModelProto:
    """The model, of which the last layer does not read some channels."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    last = node(changed, "last")
    assert last is not None
    weight = next(t for t in changed.graph.initializer if t.name == last.input[1])
    values = onnx.numpy_helper.to_array(weight).copy()
    values[list(units)] = 0
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    return changed


def test_zeros_that_are_in_the_weights_need_no_mask() -> None:
    masks = {"rnn.output": PRUNED, "rnn.input": (1, 2)}
    for op in GATES:
        result = onnx_upscale.optimize(CASES[op].model(op, masks))
        assert hidden_size(result.model) == LEFT
        assert weight_shape(result.model, "rnn")[2] == READ - 2


def _changed(name: str, change: Callable[[list[Any]], None]) -> onnx.ModelProto:
    """The model of a case, with other weights and biases of its recurrent layer, by block."""
    model = CASES[name].model(name, {})
    found = node(model, "rnn")
    assert found is not None
    stored = [
        t for slot in (1, 2, 3) for t in model.graph.initializer if t.name == found.input[slot]
    ]
    values = [onnx.numpy_helper.to_array(tensor).copy() for tensor in stored]
    change([each.reshape(len(each), -1, UNITS, *each.shape[2:]) for each in values])
    for tensor, changed in zip(stored, values, strict=True):
        tensor.CopyFrom(onnx.numpy_helper.from_array(changed, tensor.name))
    return model


@pytest.mark.parametrize(("name", "candidate"), [("LSTM", 3), ("GRU", 2), ("GRU-linear", 2)])
def test_what_comes_in_makes_a_unit_zero_and_no_gate_does(name: str, candidate: int) -> None:
    gates = GATES[CASES[name].op]
    for gate in range(gates):

        def silence(blocks: list[Any], gate: int = gate) -> None:
            blocks[0][:, gate, 2] = 0
            blocks[1][:, gate, 2] = 0
            blocks[2][:, [gate, gates + gate], 2] = 0

        result = onnx_upscale.optimize(_changed(name, silence))
        assert result.report.verify.ok
        assert hidden_size(result.model) == UNITS - (gate == candidate)


@pytest.mark.parametrize("name", ["LSTM", "GRU", "GRU-linear", "RNN"])
def test_whatever_comes_in_keeps_a_unit(name: str) -> None:
    """From the input, from either half of the biases, or from a unit; but not from zeros."""

    def silence(blocks: list[Any]) -> None:
        for block in blocks:
            block[:, :, [2, 3]] = 0

    def of_input(blocks: list[Any]) -> None:
        silence(blocks)
        blocks[0][:, -1, 2, 0] = 0.5

    def of_first_bias(blocks: list[Any]) -> None:
        silence(blocks)
        blocks[2][:, GATES[CASES[name].op] - 1, 2] = 0.5

    def of_second_bias(blocks: list[Any]) -> None:
        silence(blocks)
        blocks[2][:, -1, 2] = 0.5

    def of_unit(blocks: list[Any]) -> None:
        silence(blocks)
        blocks[1][:, -1, 2, 0] = 0.5

    def of_zeros(blocks: list[Any]) -> None:
        silence(blocks)
        blocks[1][:, -1, 2, [2, 3]] = 0.5
        blocks[1][:, -1, 3, 2] = 0.5

    def of_each_other(blocks: list[Any]) -> None:
        of_zeros(blocks)
        blocks[1][:, -1, 2, 0] = 0.5

    for change, kept in (
        (silence, UNITS - 2),
        (of_input, UNITS - 1),
        (of_first_bias, UNITS - 1),
        (of_second_bias, UNITS - 1),
        (of_unit, UNITS - 1),
        (of_zeros, UNITS - 2),
        (of_each_other, UNITS),
    ):
        result = onnx_upscale.optimize(_changed(name, change))
        assert result.report.verify.ok
        assert hidden_size(result.model) == kept, change


def test_a_unit_that_is_zero_in_one_direction_only_stays() -> None:
    def silence(blocks: list[Any]) -> None:
        for block in blocks:
            block[0, :, 2] = 0

    result = onnx_upscale.optimize(_changed("LSTM-both-ways", silence))
    assert hidden_size(result.model) == UNITS
    assert result.report.verify.ok


@pytest.mark.parametrize("op", GATES)
def test_batches_may_come_first(op: str) -> None:
    """onnxruntime has no such kernels, so that ONNX's reference runs both models."""

    def model(masks: Masks) -> onnx.ModelProto:
        net = RecurrentNet(14, 13, masks)
        read = net("Relu", net.product("x", "first", 3, READ))
        made = net.recurrent(op, read, layout=1)
        whole = net("ReduceSum", net.squeeze(made[0], 2), net.ints(1), keepdims=0)
        read = net("Add", whole, net.squeeze(made[1], 1))
        return net.model(net.product(read, "last", UNITS, 2))

    masks = {"rnn.output": PRUNED, "rnn.input": (0, 1)}
    expected = model(masks)
    inputs = input_values(expected)
    for strategy in ("auto", "gather"):
        result = onnx_upscale.optimize(model({}), document(masks), strategy=strategy, verify=False)
        assert hidden_size(result.model) == LEFT
        assert weight_shape(result.model, "rnn")[2] == READ - 2
        wanted, got = (
            [np.asarray(made) for made in ReferenceEvaluator(each).run(None, inputs)]
            for each in (expected, result.model)
        )
        assert_close(wanted, got, strategy)


def test_an_output_of_the_model_keeps_all_units_in_their_order() -> None:
    net = RecurrentNet(14, 7, {})
    read = net("Relu", net.product("x", "first", 3, READ))
    made = net.recurrent("LSTM", read)
    model = net.model(net.product(squeezed(net, made), "last", UNITS, 2), made[1])
    masks = document({"rnn.output": PRUNED, "rnn.input": (0, 1)})
    result = onnx_upscale.optimize(model, masks)
    assert result.report.verify.ok
    assert hidden_size(result.model) == UNITS
    assert weight_shape(result.model, "rnn")[2] == READ - 2


@pytest.mark.parametrize("slot", [1, 2, 3])
def test_weights_that_are_no_constants_pin(slot: int) -> None:
    shapes = {1: (1, 4 * UNITS, READ), 2: (1, 4 * UNITS, UNITS), 3: (1, 8 * UNITS)}
    net = RecurrentNet(14, 9, {}, own=shapes[slot])
    read = net("Relu", net.product("x", "first", 3, READ))
    made = net.recurrent("LSTM", read)
    net.nodes[-1].input[slot] = "own"
    model = net.model(net.product(squeezed(net, made), "last", UNITS, 2))
    result = onnx_upscale.optimize(model, document({"last.input": PRUNED}), strategy="gather")
    assert result.report.verify.ok
    assert weight_shape(result.model, "first") == (3, READ)
    with pytest.raises(onnx_upscale.MaskError, match=r"weight of node 'rnn' \(LSTM\)"):
        onnx_upscale.optimize(model, document({"rnn.output": PRUNED}))


@pytest.mark.parametrize("name", ["LSTM", "GRU-both-ways", "RNN"])
def test_multiply_adds_are_those_of_all_gates_at_all_steps(name: str) -> None:
    case = CASES[name]
    model, directions = case.model(name, {}), case.how.get("directions", 1)
    graph = load(model).graph
    (layer,) = (each for each in layers(graph) if each.recurrence is not None)
    places = STEPS * BATCH * directions * GATES[case.op]
    assert multiply_adds(layer.node.proto, graph.shapes) == places * UNITS * (READ + UNITS)
    result = onnx_upscale.optimize(model, document({"rnn.output": PRUNED, "rnn.input": (0,)}))
    sizes = {"x": (STEPS, BATCH, 3)}
    before, after = (measure(each, sizes).macs for each in (model, result.model))
    less = places * (UNITS * (READ + UNITS) - LEFT * (READ - 1 + LEFT))
    of_first = STEPS * BATCH * 3
    rows = STEPS * BATCH if name != "GRU-both-ways" else BATCH
    of_last = rows * len(PRUNED) * case.times * 2
    assert before - after == less + of_first + of_last
    assert result.report.output.macs == after


def test_what_is_predicted_shrinks_with_units() -> None:
    """The products with all gates are most of it."""
    case = CASES["LSTM"]
    wide = case.model("LSTM", {})
    seconds = [
        onnx_upscale.optimize(
            wide, document(masks), target=TARGETS["multiply-adds dear, blocks of 1"]
        ).report.predicted_seconds
        for masks in ({}, {"rnn.output": PRUNED})
    ]
    assert None not in seconds
    gone = STEPS * BATCH * (4 * (UNITS * (READ + UNITS) - LEFT * (READ + LEFT)) + 2 * 2)
    assert seconds[0] - seconds[1] == pytest.approx(gone, rel=1e-3)
