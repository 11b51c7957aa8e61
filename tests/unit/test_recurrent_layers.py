"""What everybody but the rule makes of LSTM, GRU and RNN: criteria, prune, recover, exporter."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import assert_close, input_values, node, run, weight_shape
from mask_document import Masks, document
from onnx_upscale.exporter.zeros import found_masks
from onnx_upscale.optimizer.analyze import analyze
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.plan import plan
from onnx_upscale.optimizer.plan.cost import Costs
from onnx_upscale.prices import load_prices
from onnx_upscale.pruning.families import find_families
from onnx_upscale.pruning.gauge import gauge_of
from onnx_upscale.stats import measure
from recurrent_net import BATCH, GATES, READ, STEPS, UNITS, RecurrentNet, hidden_size
from targets import TARGETS

SIZES = {"x": (STEPS, BATCH, 3)}


def _model(
    op: str = "LSTM", masks: Masks | None = None, last: bool = True, **how: Any
) -> onnx.ModelProto:
    net = RecurrentNet(14, 1, masks or {})
    inner = net("Relu", net.product("x", "first", 3, READ))
    read = net("Relu", net.product(inner, "second", READ, READ))
    made = net.recurrent(op, read, **how)
    ends = made[1] if how.get("without") else net.squeeze(made[0], 1)
    if not last:
        return net.model(ends)
    hidden = net("Relu", net.product(ends, "hidden", UNITS, READ))
    return net.model(net.product(hidden, "last", READ, 2))


def _samples() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal(SIZES["x"]).astype(np.float32)} for _ in range(16)]


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("criterion", ["l1", "l2", "lamp", "fpgm", "hrank", "random"])
def test_criteria_score_both_sides(op: str, criterion: str) -> None:
    model = _model(op)
    given: dict[str, Any] = {"data": _samples()} if criterion == "hrank" else {}
    for side, channels in (("input", READ), ("output", UNITS)):
        masks = onnx_upscale.mask(model, criterion, 0.5, side=side, layers=["rnn"], **given)
        ((_, sides),) = masks["masks"].items()
        assert len(sides[side]) == channels // 2
        assert onnx_upscale.optimize(model, masks).report.verify.ok


def test_the_unit_with_the_smallest_weights_goes_first() -> None:
    model = _model()
    found = node(model, "rnn")
    assert found is not None
    weight = next(t for t in model.graph.initializer if t.name == found.input[1])
    values = onnx.numpy_helper.to_array(weight).copy()
    values.reshape(4, UNITS, READ)[:, [2, 5]] *= 0.01
    values[..., [0, 3, 6, 7]] *= 0.01
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    for side, amount, wanted in (("output", 2 / UNITS, [2, 5]), ("input", 0.5, [0, 3, 6, 7])):
        masks = onnx_upscale.mask(model, "l1", amount, side=side, layers=["rnn"])
        assert masks["masks"] == {found.input[1]: {side: wanted}}


def test_units_that_are_seen_at_the_end_only_are_not_scored() -> None:
    """There is no tensor of theirs to look at for all steps."""
    model = _model(without=[0])
    masks = onnx_upscale.mask(model, "l1", 0.5, side="output")
    found = node(model, "rnn")
    assert found is not None
    assert found.input[1] not in masks["masks"]
    with pytest.raises(onnx_upscale.UsageError, match="matches no layer"):
        onnx_upscale.mask(model, "l1", 0.5, side="output", layers=["rnn"])
    assert onnx_upscale.mask(model, "l1", 0.5, layers=["rnn"])["masks"]


@pytest.mark.parametrize("op", GATES)
def test_prune_and_recover_leave_them_alone(op: str) -> None:
    model, samples = _model(op), _samples()
    pruned = onnx_upscale.prune(model, samples, macs=0.95)
    assert pruned.report.verify.ok
    assert pruned.report.macs.after < pruned.report.macs.before
    assert weight_shape(pruned.model, "rnn") == weight_shape(model, "rnn")
    assert hidden_size(pruned.model) == UNITS
    masks = document({"rnn.output": (1, 2), "rnn.input": (3, 4), "second.input": (0, 1)})
    recovered = onnx_upscale.recover(model, masks, samples)
    assert any("rnn: not repaired" in each for each in recovered.warnings)
    emitted = onnx_upscale.optimize(recovered.model)
    assert hidden_size(emitted.model) == UNITS - 2
    assert weight_shape(emitted.model, "rnn")[2] == READ - 2


@pytest.mark.parametrize("goal", ["macs", "params"])
def test_a_goal_counts_what_units_read_of_each_other(goal: str) -> None:
    model = _model("GRU", {"rnn.output": (0,), "rnn.input": (1, 2)}, directions=1)
    analysis, prices = analyze(load(model).graph), load_prices("cpu-avx512")
    gauge = gauge_of(goal, analysis.structure, prices)
    planned = plan(analysis, "gather", prices)
    emitted = onnx_upscale.optimize(model, strategy="gather").model
    if goal == "macs":
        assert gauge.total(planned) == measure(emitted, SIZES).macs
        return
    assert gauge.total(planned) == measure(emitted, SIZES).params


@pytest.mark.parametrize("op", GATES)
def test_neither_units_nor_what_they_read_are_units_of_prune(op: str) -> None:
    structure = analyze(load(_model(op)).graph).structure
    families = find_families(structure)
    named = {
        party.layer.node.title for each in families for party in (*each.readers, *each.writers)
    }
    assert named == {"first", "second", "hidden", "last"}
    assert {len(each.roots) for each in families} == {READ}
    costs = Costs(structure, load_prices(TARGETS["multiply-adds dear, blocks of 1"]))
    (layer,) = (each for each in structure.layers.values() if each.recurrence is not None)
    pairs = GATES[op] * UNITS * (READ + UNITS)
    assert costs.layer(layer, READ, UNITS) == pytest.approx(STEPS * BATCH * pairs, rel=1e-3)


def test_zeros_become_masks_of_the_input_side_only() -> None:
    """A unit whose first weight is zero may still be made of others, and of its biases."""
    model = _model()
    found = node(model, "rnn")
    assert found is not None
    weight = next(t for t in model.graph.initializer if t.name == found.input[1])
    values = onnx.numpy_helper.to_array(weight).copy()
    values.reshape(4, UNITS, READ)[:, 2] = 0
    values[..., 3] = 0
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    masks = found_masks(load(model))
    assert masks["masks"] == {weight.name: {"input": [3]}}


def _shared(masks: Masks) -> onnx.ModelProto:
    """Two layers of the same constants, of which the model gives all that they make."""
    net = RecurrentNet(14, 2, masks)
    one = net.recurrent("LSTM", "x", name="one", inputs=3)
    two = net.recurrent("LSTM", "x", name="two", inputs=3)
    if not masks:
        for slot in (1, 2, 3):
            net.nodes[1].input[slot] = net.nodes[0].input[slot]
    else:
        stored = {t.name: t for t in net.initializers}
        for slot in (1, 2, 3):
            first, second = (stored[net.nodes[at].input[slot]] for at in (0, 1))
            values = onnx.numpy_helper.to_array(first).copy()
            values[onnx.numpy_helper.to_array(second) == 0] = 0
            second.CopyFrom(onnx.numpy_helper.from_array(values, second.name))
    return net.model(net("Exp", one[0]), net("Exp", two[0]))


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_mask_on_one_of_two_that_share_weights_means_that_one(side: str) -> None:
    masks = {f"two.{side}": (1, 2)}
    for strategy in ("auto", "gather"):
        result = onnx_upscale.optimize(_shared({}), document(masks), strategy=strategy)
        assert result.report.verify.ok
        expected = _shared(masks)
        inputs = input_values(expected)
        assert_close(run(expected, inputs), run(result.model, inputs), strategy)


def _in_heads(masks: Masks) -> onnx.ModelProto:
    """Units that are split into two heads, each of which is multiplied with itself elsewhere."""
    net = RecurrentNet(14, 3, masks)
    read = net("Relu", net.product("x", "first", 3, READ))
    made = net.recurrent("GRU", read)
    queries = net.squeeze(made[0], 1)
    keys = net.product(read, "keys", READ, UNITS)
    split = [net("Reshape", each, net.ints(STEPS, BATCH, 2, 3)) for each in (queries, keys)]
    left = net("Transpose", split[0], perm=[1, 2, 0, 3])
    right = net("Transpose", split[1], perm=[1, 2, 3, 0])
    return net.model(net("Relu", net("MatMul", left, right)))


def test_units_in_heads_stay_while_others_read_them() -> None:
    for masks, kept in (({"keys.output": (0, 4)}, UNITS), ({"rnn.output": (0, 3)}, UNITS - 2)):
        for strategy in ("auto", "gather"):
            result = onnx_upscale.optimize(_in_heads({}), document(masks), strategy=strategy)
            expected = _in_heads(masks)
            inputs = input_values(expected)
            assert_close(run(expected, inputs), run(result.model, inputs), strategy)
            assert hidden_size(result.model) == kept


def test_zeros_are_added_to_no_layer_that_reads_itself() -> None:
    """Units that a sum wants stay as zeros in the layer, whatever a Pad behind it would cost."""

    def model(masks: Masks) -> onnx.ModelProto:
        net = RecurrentNet(14, 4, masks)
        read = net("Relu", net.product("x", "first", 3, READ))
        made = net.recurrent("LSTM", read)
        other = net.product("x", "other", 3, UNITS)
        joined = net("Add", net.squeeze(made[0], 1), other)
        return net.model(net.product(net("Relu", joined), "last", UNITS, 2))

    masks = {"rnn.output": (0, 1, 4)}
    expected = model(masks)
    inputs = input_values(expected)
    for target in TARGETS.values():
        result = onnx_upscale.optimize(model({}), document(masks), target=target)
        assert_close(run(expected, inputs), run(result.model, inputs), target)
        assert hidden_size(result.model) == UNITS
