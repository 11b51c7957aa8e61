"""The weight inside Attention (of onnxruntime) is that of a layer, which masks may name.

Its output channels are the columns: those of queries, then of keys, then of values.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnx_upscale
from build import assert_close, input_values, node, run, weight_shape
from case import Case, Layer
from case import Masks as Named
from fused_attention import (
    CHANNELS,
    FORMS,
    HEADS,
    MICROSOFT,
    TOKENS,
    WIDTH,
    FusedNet,
    of_each,
    of_heads,
)
from mask_document import Masks
from masked import masked
from onnx_upscale.criteria.neighbours import follow
from onnx_upscale.errors import MaskError, UsageError
from onnx_upscale.exporter.zeros import found_masks
from onnx_upscale.optimizer.analyze import analyze, find_structure
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.load.layers import layers
from onnx_upscale.optimizer.plan import plan
from onnx_upscale.prices import load_prices
from onnx_upscale.pruning.families import find_families
from targets import TARGETS

STRATEGIES = ("auto", "gather")
_PRICES = ("copies free, blocks of 1", "copies free, align 2", "multiply-adds dear, blocks of 1")
_PACKED = [form for form in FORMS if form.startswith("packed")]
_STARTS = {"q": 0, "k": HEADS * WIDTH, "v": 2 * HEADS * WIDTH}


def in_columns(gone: Masks) -> list[int]:
    """Channels of queries, keys and values, as columns of the weight that holds all of them."""
    return [_STARTS[part] + each for part in gone for each in gone[part]]


def document(masks: Named) -> dict[str, Any]:
    return {"version": 1, "masks": masks}


def optimized(
    model: onnx.ModelProto, masks: Named, wanted: onnx.ModelProto, **how: Any
) -> onnx.ModelProto:
    """What is left of a model, which must be what another one computes."""
    emitted = onnx_upscale.optimize(model, document(masks), **how).model
    inputs = input_values(model)
    assert_close(run(wanted, inputs), run(emitted, inputs), f"{masks}, {how}")
    return emitted


def widths(model: onnx.ModelProto) -> list[int]:
    """Columns of the weight, numbers in the bias, and channels of the result."""
    return [
        weight_shape(model, "attention")[1],
        *weight_shape(model, "attention", 2),
        weight_shape(model, "o")[0],
    ]


def between(
    masks: Masks, rows: Sequence[int] = (), known: Sequence[int] = (), biased: bool = True
) -> onnx.ModelProto:
    """Attention behind a layer that another one reads as well.

    Args:
        masks: Columns that are zero, by part, and channels that the projection does not read.
        rows: Rows of the weight that are zero.
        known: Channels that are the same for every input.
        biased: Whether the attention has a bias.
    """
    net = FusedNet(masks)
    first, shift = net.random(CHANNELS, CHANNELS), np.abs(net.random(CHANNELS))
    first[:, list(known)] = 0
    made = net("MatMul", "x", net.constant(first, "first.weight"), name="first")
    data = net("Relu", net("Add", made, shift))
    weights, biases = zip(*(net.params(name) for name in "qkv"), strict=True)
    weight = np.concatenate(weights, 1)
    weight[list(rows)] = 0
    read = [data, net.constant(weight, "qkv.weight")]
    read += [net.constant(np.concatenate(biases))] if biased else []
    how: dict[str, Any] = {"domain": MICROSOFT, "num_heads": HEADS}
    attended = net.attend("Attention", *read, **how)[0]
    return net.finished(attended, net("MatMul", data, net.random(CHANNELS, 4), name="other"))


@pytest.mark.parametrize("form", _PACKED)
@pytest.mark.parametrize("parts", ["qkv", "v", "q", "k"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_output_masks_take_heads(form: str, parts: str, strategy: str) -> None:
    own = FORMS[form]
    gone = {part: of_heads(1, width=own.width if part == "v" else WIDTH) for part in parts}
    masks: Named = {"qkv.weight": {"output": in_columns(gone)}}
    made = optimized(own.model({}), masks, own.model(gone), strategy=strategy)
    left = HEADS - ("v" in parts)  # A query of zeros takes the mean of all values.
    columns, read = own.columns(left, left, WIDTH, own.width)
    assert widths(made) == [columns, columns, read]
    attention = node(made, "attention")
    assert attention is not None
    assert [each.i for each in attention.attribute if each.name == "num_heads"] == [left]


@pytest.mark.parametrize("form", _PACKED)
@pytest.mark.parametrize("part", "qkv")
@pytest.mark.parametrize("apart", [False, True])
def test_output_masks_take_channels_of_heads(form: str, part: str, apart: bool) -> None:
    """The same ones of every head, or others of each."""
    own = FORMS[form]
    width = own.width if part == "v" else WIDTH
    gone = {part: of_each(0, 2, width=width)}
    if apart:
        gone[part] = [at * width + (at + each) % width for at in range(HEADS) for each in (0, 2)]
    masks: Named = {"qkv.weight": {"output": in_columns(gone)}}
    made = optimized(own.model({}), masks, own.model(gone), strategy="gather")
    scores, values = (WIDTH, own.width - 2) if part == "v" else (WIDTH - 2, own.width)
    columns, read = own.columns(HEADS, HEADS, scores, values)
    assert widths(made) == [columns, columns, read]


def test_it_is_called_by_its_weight_its_node_or_what_that_makes() -> None:
    model = FORMS["packed"].model({})
    made = [
        onnx_upscale.optimize(model, document({name: {"output": in_columns({"v": of_heads(2)})}}))
        for name in ("qkv.weight", "attention", "attention.0")
    ]
    assert len({each.content for each in made}) == 1
    assert all(each.report.masks.targets == 1 for each in made)
    assert widths(made[0].model)[0] == 3 * (HEADS - 1) * WIDTH


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_input_mask_takes_rows_of_the_weight_alone(biased: bool, strategy: str) -> None:
    masks: Named = {"qkv.weight": {"input": [1, 6]}}
    model, wanted = between({}, biased=biased), between({}, rows=[1, 6], biased=biased)
    target = TARGETS["copies free, blocks of 1"]
    made = optimized(model, masks, wanted, strategy=strategy, target=target)
    assert weight_shape(made, "attention") == (CHANNELS - 2, 3 * HEADS * WIDTH)
    assert weight_shape(made, "first") == (CHANNELS, CHANNELS)


@pytest.mark.parametrize("target", _PRICES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_all_readers_ignore_leaves(target: str, strategy: str) -> None:
    masks: Named = {"attention": {"input": [1, 6]}, "other": {"input": [1, 2, 6]}}
    model = between({})
    layers = (
        Layer("attention", None, (node_input(model, "attention"), -1, CHANNELS), ("", -1, 0), 3),
        Layer("other", None, (node_input(model, "other"), -1, CHANNELS), ("", -1, 0), 3),
    )
    wanted = masked(Case(model, masks, layers))
    made = optimized(model, masks, wanted, strategy=strategy, target=TARGETS[target])
    assert weight_shape(made, "first")[1] == weight_shape(made, "attention")[0] == CHANNELS - 2


def node_input(model: onnx.ModelProto, name: str) -> str:
    """The tensor that a node reads."""
    found = node(model, name)
    assert found is not None
    return found.input[0]


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_the_same_for_every_input_goes_into_its_bias(biased: bool, strategy: str) -> None:
    model = between({}, known=[2, 5], biased=biased)
    made = optimized(model, {}, model, strategy=strategy)
    assert weight_shape(made, "attention") == (CHANNELS - 2, 3 * HEADS * WIDTH)
    assert weight_shape(made, "attention", 2) == (3 * HEADS * WIDTH,)
    assert weight_shape(made, "first") == (CHANNELS, CHANNELS - 2)


@pytest.mark.parametrize("biased", [False, True])
def test_random_masks_of_both_sides(biased: bool) -> None:
    rng = np.random.default_rng(int(biased))
    model = between({}, biased=biased)
    data, total = node_input(model, "attention"), 3 * HEADS * WIDTH
    ends = ("attention.0", -1, total)
    layer = Layer("attention", "qkv.weight", (data, -1, CHANNELS), ends, 3)
    for target, strategy in itertools.product(_PRICES, STRATEGIES):
        gone = rng.random((3, HEADS, WIDTH)) < rng.choice([0, 0.2])
        gone |= rng.random((3, HEADS, 1)) < rng.choice([0.2, 0.6])
        gone |= rng.random((3, 1, WIDTH)) < rng.choice([0, 0.4])
        sides = {
            "input": np.flatnonzero(rng.random(CHANNELS) < 0.4).tolist(),
            "output": np.flatnonzero(gone).tolist(),
        }
        masks: Named = {rng.choice(layer.keys).item(): sides}
        wanted = masked(Case(model, masks, (layer,)))
        optimized(model, masks, wanted, strategy=strategy, target=TARGETS[target])


@pytest.mark.parametrize("side", ["input", "output"])
@pytest.mark.parametrize("strategy", [*STRATEGIES, "upscale"])
def test_all_of_a_side_may_be_pruned(side: str, strategy: str) -> None:
    every = range(CHANNELS if side == "input" else 3 * HEADS * WIDTH)
    gone = {part: range(HEADS * WIDTH) for part in "qkv"}
    wanted = between({}, rows=every) if side == "input" else between(gone)
    optimized(between({}), {"qkv.weight": {side: list(every)}}, wanted, strategy=strategy)


@pytest.mark.parametrize(("side", "most"), [("input", CHANNELS), ("output", 3 * HEADS * WIDTH)])
def test_what_does_not_fit_is_refused(side: str, most: int) -> None:
    said = f"mask 'attention', side '{side}': channel {most} is out of range: use 0 to {most - 1}"
    with pytest.raises(MaskError, match=said):
        onnx_upscale.optimize(between({}), document({"attention": {side: [most]}}))


def test_zeros_are_found_as_masks_where_the_bias_is_zero_as_well() -> None:
    model = FORMS["packed"].model({"k": [3, 4]})
    found = found_masks(load(model))["masks"]
    assert found == {"qkv.weight": {"output": in_columns({"k": [3, 4]})}}


def test_mask_scores_its_columns_and_its_rows() -> None:
    model = between({})
    (stored,) = (each for each in model.graph.initializer if each.name == "qkv.weight")
    weight = np.abs(onnx.numpy_helper.to_array(stored))
    for side, axis in (("input", 1), ("output", 0)):
        layers = ["qkv.weight"]
        (entry,) = onnx_upscale.mask(model, "l1", 0.25, side=side, layers=layers)["masks"].values()
        lowest = np.argsort(weight.sum(axis), kind="stable")
        assert entry[side] == sorted(lowest[: len(lowest) // 4].tolist())


@pytest.mark.parametrize("criterion", ["hrank", "bn"])
def test_criteria_that_look_behind_a_layer_say_that_there_is_nothing(criterion: str) -> None:
    model = between({})
    how: dict[str, Any] = {"side": "output", "layers": ["attention"]}
    if criterion == "hrank":
        how["data"] = [{"x": input_values(model)["x"]}]
    with pytest.raises(UsageError, match=f"criterion {criterion}: .*layer 'qkv.weight'"):
        onnx_upscale.mask(model, criterion, 0.25, **how)


def test_a_family_of_heads_has_the_columns_that_leave_with_one() -> None:
    """What the attention reads stays: its errors are not seen in what its node makes."""
    structure = find_structure(load(between({})).graph).with_whole_heads
    (family,) = find_families(structure)
    assert family.units == HEADS
    assert [(party.layer.node.title, party.times) for party in family.readers] == [("o", WIDTH)]
    made = [(party.layer.node.title, party.times) for party in family.writers]
    assert made == [("attention", 3 * WIDTH)]


@pytest.mark.parametrize("left", [HEADS, HEADS - 1])
def test_its_product_is_priced_as_one(left: int) -> None:
    analysis = analyze(load(between({"o": of_heads(*range(left, HEADS))})).graph)
    kernels = plan(analysis, "gather", load_prices("cpu-avx2")).kernels
    found = [(each.inputs, each.outputs) for each in kernels if each.family == "product"]
    plain = [(CHANNELS, CHANNELS), (CHANNELS, 4), (left * WIDTH, CHANNELS)]
    assert sorted(found) == sorted([*plain, (CHANNELS, 3 * left * WIDTH)])


def test_nothing_counts_as_behind_it_and_it_works_where_it_reads() -> None:
    net = FusedNet({})
    weight = net.constant(net.random(CHANNELS, 3 * HEADS * WIDTH))
    made = net.attend("Attention", "x", weight, domain=MICROSOFT, num_heads=HEADS)[0]
    graph = load(net.finished(net("Relu", made))).graph
    layer = next(layers(graph))
    assert (layer.node.title, layer.stepping) == ("attention", ("x", 2))
    assert not list(follow(graph, layer))


def in_a_branch(masks: Masks, rows: Sequence[int] = ()) -> onnx.ModelProto:
    """Attention in one branch of an If: no run shows what it reads if the other one is taken."""
    net = FusedNet(masks)
    weights, biases = zip(*(net.params(name) for name in "qkv"), strict=True)
    weight = np.concatenate(weights, 1)
    weight[list(rows)] = 0
    inner = FusedNet({})
    first = inner("MatMul", "x", inner.random(CHANNELS, CHANNELS), name="first")
    data = inner("BiasGelu", first, inner.random(CHANNELS), domain=MICROSOFT)
    read = [data, inner.constant(weight, "qkv.weight"), inner.constant(np.concatenate(biases))]
    attended = inner.attend("Attention", *read, domain=MICROSOFT, num_heads=HEADS)[0]
    projection = net.random(HEADS * WIDTH, CHANNELS)
    last = inner("MatMul", attended, projection, name="o")
    plain = helper.make_node("Identity", ["x"], ["plain"], "plain")
    branches: dict[str, Any] = {
        "then_branch": _body(inner.nodes, last, inner.initializers),
        "else_branch": _body([plain], "plain", []),
    }
    net.inputs.append(helper.make_tensor_value_info("which", TensorProto.BOOL, []))
    net.nodes = [helper.make_node("If", ["which"], ["made"], "choice", **branches)]
    net.initializers = []
    shape = (net.batch, TOKENS, CHANNELS)
    graph = helper.make_graph(
        net.nodes, "net", net.inputs, [helper.make_tensor_value_info("made", 1, shape)]
    )
    imports = [helper.make_opsetid("", 23), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def _body(
    nodes: Sequence[onnx.NodeProto], made: str, stored: Sequence[onnx.TensorProto]
) -> onnx.GraphProto:
    value = helper.make_tensor_value_info(made, 1, ("batch", TOKENS, CHANNELS))
    return helper.make_graph(nodes, made, [], [value], stored)


@pytest.mark.parametrize("name", ["attention", "qkv.weight"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_masks_name_it_in_a_body(name: str, strategy: str) -> None:
    gone = {part: of_heads(3) for part in "qkv"}
    sides = {"input": [0, 5], "output": in_columns(gone)}
    made = onnx_upscale.optimize(
        in_a_branch({}), document({f"choice/then_branch/{name}": sides}), strategy=strategy
    ).model
    (choice,) = made.graph.node
    body = next(each.g for each in choice.attribute if each.name == "then_branch")
    (weight,) = (each for each in body.initializer if each.name == "qkv.weight")
    assert list(weight.dims) == [CHANNELS - 2, 3 * (HEADS - 1) * WIDTH]
    wanted = in_a_branch(gone, [0, 5])
    for which in (True, False):
        inputs = {**input_values(made), "which": np.array(which)}
        assert_close(run(wanted, inputs), run(made, inputs), str(which))
