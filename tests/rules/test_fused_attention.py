"""Attention in one operator loses what attention that is written out loses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import Net, assert_close, input_values, node, run, weight_shape
from fused_attention import (
    CHANNELS,
    FORMS,
    HEADS,
    MICROSOFT,
    NOTHING,
    TOKENS,
    WIDTH,
    FusedNet,
    columns,
    lengths,
    of_each,
    of_heads,
    optimized,
    product,
    rotations,
)
from onnx_upscale.exporter.zeros import found_masks
from onnx_upscale.optimizer.analyze import find_structure
from onnx_upscale.optimizer.load import load
from onnx_upscale.stats import measure
from targets import TARGETS

STRATEGIES = ("auto", "gather")
_PRICES = ("copies free, blocks of 1", "copies free, align 2", "multiply-adds dear, blocks of 1")


def attribute(model: onnx.ModelProto, name: str) -> Any:
    """An attribute of the attention, or None."""
    (attention,) = (each for each in model.graph.node if "Attention" in each.op_type)
    found = [each for each in attention.attribute if each.name == name]
    return onnx.helper.get_attribute_value(found[0]) if found else None


def without(model: onnx.ModelProto, name: str, channels: Sequence[int]) -> onnx.ModelProto:
    """The model with zeros in some columns of a weight."""
    (stored,) = (each for each in model.graph.initializer if each.name == name)
    weight = onnx.numpy_helper.to_array(stored).copy()
    weight[:, list(channels)] = 0
    stored.CopyFrom(onnx.numpy_helper.from_array(weight, name))
    return model


def counted(model: onnx.ModelProto) -> set[int]:
    """How many heads the attributes of all nodes say."""
    attributes = [each for node in model.graph.node for each in node.attribute]
    return {each.i for each in attributes if each.name in ("num_heads", "q_num_heads")}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_group_of_heads_that_nobody_reads_leaves(form: str, strategy: str) -> None:
    own = FORMS[form]
    each = HEADS // own.shared
    gone = of_heads(*range(each, 2 * each), width=own.width)
    masks = {"version": 1, "masks": {"o.weight": {"input": gone}}}
    made = optimized(own.model({}), "", own.model({"o": gone}), strategy=strategy, masks=masks)
    left = HEADS - each
    assert columns(made) == own.columns(left, own.shared - 1, WIDTH, own.width)
    assert counted(made) <= {left}
    if own.shared < HEADS:
        assert attribute(made, "kv_num_heads") in (own.shared - 1, None)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("target", _PRICES)
def test_a_head_without_values_leaves(form: str, target: str) -> None:
    own = FORMS[form]
    each = HEADS // own.shared
    model = own.model({"v": of_heads(0, width=own.width)})
    made = optimized(model, target=TARGETS[target])
    assert columns(made) == own.columns(HEADS - each, own.shared - 1, WIDTH, own.width)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_head_without_scores_stays(form: str, strategy: str) -> None:
    """It takes the mean of all values."""
    own = FORMS[form]
    made = optimized(own.model({"q": of_heads(1), "k": of_heads(1)}), strategy=strategy)
    assert columns(made) == own.columns(HEADS, own.shared, WIDTH, own.width)


@pytest.mark.parametrize("form", [form for form in FORMS if FORMS[form].shared < HEADS])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_of_every_group_as_many_heads_leave(form: str, strategy: str) -> None:
    own = FORMS[form]
    made = optimized(own.model({"o": of_heads(1, 3)}), strategy=strategy)
    assert columns(made) == own.columns(2, 2, WIDTH, WIDTH)
    assert counted(made) <= {2}
    made = optimized(own.model({"o": of_heads(1)}), strategy=strategy)
    assert columns(made)[0] == own.columns(4, 2, WIDTH, WIDTH)[0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("part", ["q", "k"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_channels_of_scores_leave(form: str, part: str, strategy: str) -> None:
    own = FORMS[form]
    gone = of_each(0, 3, 5, heads=HEADS if part == "q" else own.shared)
    made = optimized(own.model({part: gone}), strategy=strategy)
    left = WIDTH - 3 if own.scores else WIDTH
    assert columns(made) == own.columns(HEADS, own.shared, left, own.width)
    if own.scores:
        wanted = attribute(own.model({}), "scale") or WIDTH**-0.5
        assert attribute(made, "scale") == pytest.approx(wanted)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("part", ["v", "o"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_channels_of_values_leave(form: str, part: str, strategy: str) -> None:
    own = FORMS[form]
    gone = of_each(1, 2, heads=HEADS if part == "o" else own.shared, width=own.width)
    made = optimized(own.model({part: gone}), strategy=strategy)
    left = own.width - 2 if own.values else own.width
    wanted = own.columns(HEADS, own.shared, WIDTH, left)
    assert columns(made) == wanted if own.values else columns(made)[0] == wanted[0]
    assert attribute(made, "scale") == attribute(own.model({}), "scale")


@pytest.mark.parametrize("form", [form for form in FORMS if FORMS[form].shared == HEADS])
@pytest.mark.parametrize("part", ["q", "k", "v", "o"])
def test_each_head_may_lose_channels_of_its_own(form: str, part: str) -> None:
    own = FORMS[form]
    width = own.width if part in "vo" else WIDTH
    gone = [head * width + (head + each) % width for head in range(HEADS) for each in (0, 2)]
    made = optimized(own.model({part: gone}), strategy="gather")
    scores, values = WIDTH, own.width
    if part in "qk" and own.scores:
        scores -= 2
    elif part in "vo":
        values -= 2
    assert columns(made) == own.columns(HEADS, HEADS, scores, values)


@pytest.mark.parametrize("form", FORMS)
def test_random_zeros(form: str) -> None:
    own = FORMS[form]
    rng = np.random.default_rng(sum(form.encode()))
    for _ in range(5):
        masks: dict[str, Sequence[int]] = {}
        for part in "qkvo":
            heads = HEADS if part in "qo" else own.shared
            width = own.width if part in "vo" else WIDTH
            gone = rng.random((heads, width)) < rng.choice([0, 0.2, 0.7])
            gone |= rng.random((heads, 1)) < rng.choice([0, 0.4])
            gone |= rng.random((1, width)) < rng.choice([0, 0.4])
            masks[part] = np.flatnonzero(gone)[: gone.size - 1].tolist()
        model = own.model(masks)
        for strategy in STRATEGIES:
            optimized(model, f"{strategy}, {masks}", strategy=strategy)


@pytest.mark.parametrize("form", FORMS)
def test_multiply_adds_are_those_of_the_products(form: str) -> None:
    own = FORMS[form]

    def macs(queries: int, shared: int, model: onnx.ModelProto) -> tuple[int, int]:
        made, read = own.columns(queries, shared, WIDTH, own.width)
        layers = made * CHANNELS + read * CHANNELS
        scores = queries * TOKENS * (WIDTH + own.width)
        return 2 * TOKENS * (layers + scores), measure(model, {"x": (2, TOKENS, CHANNELS)}).macs

    wanted, found = macs(HEADS, own.shared, own.model({}))
    assert found == wanted
    each = HEADS // own.shared
    less = optimized(own.model({"o": of_heads(*range(each), width=own.width)}))
    wanted, found = macs(HEADS - each, own.shared - 1, less)
    assert found == wanted


def test_what_feeds_a_packed_weight_may_lose_channels() -> None:
    """Where it is zero."""
    net = FusedNet({"o": of_heads(3)})
    first = net.random(CHANNELS, CHANNELS)
    first[:, [1, 6]] = 0
    before = net("Relu", net("MatMul", "x", first, name="first"))
    params = [net.params(name) for name in "qkv"]
    weight, bias = (np.concatenate(each, -1) for each in zip(*params, strict=True))
    how: dict[str, Any] = {"domain": MICROSOFT, "num_heads": HEADS}
    model = net.finished(net.attend("Attention", before, weight, bias, **how)[0])
    made = optimized(model)
    assert weight_shape(made, "first") == (CHANNELS, CHANNELS - 2)
    assert weight_shape(made, "attention") == (CHANNELS - 2, 3 * (HEADS - 1) * WIDTH)
    assert node(made, "attention") is not None


@pytest.mark.parametrize("op", ["MultiHeadAttention", "Attention"])
def test_scores_that_are_read_keep_all(op: str) -> None:
    net = FusedNet({"o": of_heads(1)})
    own = [net.linear(name) for name in "qkv"]
    how: dict[str, Any] = {"domain": MICROSOFT, "num_heads": HEADS}
    if op == "Attention":
        how = {"q_num_heads": HEADS, "kv_num_heads": HEADS}
    made, *_, scores = net.attend(op, *own, outputs=4, **how)
    net.nodes[-1].output[1:3] = ["", ""]
    model = net.finished(made, scores)
    result = onnx_upscale.optimize(model, NOTHING, verify=False)
    assert columns(result.model) == [3 * HEADS * WIDTH, HEADS * WIDTH]
    reasons = {reason for each in result.report["segments"] for reason in each["pinned"]}
    assert f"{op}: its scores are read" in reasons


@pytest.mark.parametrize("form", ["biased", "biased, values of another size"])
@pytest.mark.parametrize("parts", ["qkv", "v", "q", "k"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_masks_take_a_bias_inside_along(form: str, parts: str, strategy: str) -> None:
    own = FORMS[form]
    gone = {part: of_heads(1, width=own.width if part == "v" else WIDTH) for part in parts}
    masks = {f"{part}.weight": {"output": channels} for part, channels in gone.items()}
    wanted = {"version": 1, "masks": masks}
    made = optimized(own.model({}), "", own.model(gone), strategy=strategy, masks=wanted)
    left = HEADS - ("v" in parts)  # A query of zeros takes the mean of all values.
    assert columns(made) == own.columns(left, left, WIDTH, own.width)


@pytest.mark.parametrize("part", "qkv")
def test_a_bias_inside_tells_which_channels_are_zero(part: str) -> None:
    own, gone = FORMS["biased, values of another size"], {part: [1, 2]}
    found = found_masks(load(own.model(gone)))["masks"]
    assert found == {f"{part}.weight": {"output": [1, 2]}}
    others = without(own.model({}), f"{part}.weight", [1, 2])
    assert not found_masks(load(others))["masks"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_bias_inside_is_no_zero(strategy: str) -> None:
    """Values that a layer does not make are what the bias says."""
    model = without(FORMS["biased"].model({}), "v.weight", of_heads(0))
    assert columns(optimized(model, strategy=strategy)) == [3 * HEADS * WIDTH, HEADS * WIDTH]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_packed_weight_that_is_zero_leaves_its_bias(strategy: str) -> None:
    gone = [2 * HEADS * WIDTH + each for each in of_heads(0)]
    model = without(FORMS["packed"].model({}), "qkv.weight", gone)
    made = optimized(model, strategy=strategy)
    assert columns(made) == [3 * HEADS * WIDTH, HEADS * WIDTH]


@pytest.mark.parametrize("form", FORMS)
def test_what_leaves_as_one_is_one(form: str) -> None:
    own = FORMS[form]
    whole = find_structure(load(own.model({})).graph).with_whole_heads
    reader = next(facts.read for facts in whole.facts if facts.node.title == "o")
    assert reader is not None
    assert len(np.unique(whole.roots[reader.inputs])) == own.shared


@pytest.mark.parametrize("laid", [False, True])
def test_what_lies_on_one_axis_stays_in_its_order(laid: bool) -> None:
    """Others may take keys first, and would have them first."""
    net = FusedNet({"o": of_heads(2, 3)}, shared=2)
    flat = product(net)
    sizes = [WIDTH * heads for heads in (HEADS, 2, 2)]
    places, caches = net.constant(np.tile(np.arange(TOKENS), (2, 1))), rotations(net)
    queries, keys, values = net.nodes_of("Split", flat, net.ints(*sizes), outputs=3, axis=2)
    keys, queries = (
        net("RotaryEmbedding", each, places, *caches, domain=MICROSOFT) for each in (keys, queries)
    )
    how: dict[str, Any] = {"q_num_heads": HEADS, "kv_num_heads": 2}
    one = net("Attention", queries, keys, values, **how)
    how = {"num_heads": HEADS, "kv_num_heads": 2, "domain": MICROSOFT}
    flat = net("Concat", queries, keys, values, axis=2) if laid else flat
    read = [flat, "", "", "", "", *lengths(net)]
    other, *_ = net.attend("GroupQueryAttention", *read, outputs=3, **how)
    model = net.finished(net("Add", one, other))
    for strategy in STRATEGIES:
        result = onnx_upscale.optimize(model, NOTHING, strategy=strategy)
        inputs = input_values(model)
        assert_close(run(model, inputs), run(result.model, inputs))


def test_an_output_mask_takes_its_bias_where_scores_are_added_too() -> None:
    def model(query: float, bias: float) -> onnx.ModelProto:
        net = Net(17, x=[1, 12, 1])
        weights = (np.array([[each]], np.float32) for each in (query, 0.4, 1.3))
        rows = [
            net("MatMul", "x", net.constant(each, name))
            for each, name in zip(weights, "qkv", strict=True)
        ]
        scores = np.random.default_rng(0).standard_normal((1, 1, 12, 12)).astype(np.float32)
        biases = np.array([bias, 0.6, 0.1], np.float32)
        made = net("MultiHeadAttention", *rows, biases, "", scores, domain=MICROSOFT, num_heads=1)
        last = net("MatMul", net.declare(made, (1, 12, 1)), np.array([[0.7]], np.float32))
        return net.model(net.declare(last, (1, 12, 1)))

    whole, wanted = model(-0.5, -0.1), model(0, 0)
    masks = {"version": 1, "masks": {"q": {"output": [0]}}}
    inputs = input_values(whole)
    made = run(onnx_upscale.optimize(whole, masks).model, inputs)
    assert_close(run(wanted, inputs), made)
    (one,), (other,) = run(whole, inputs), made
    assert np.abs(one - other).max() > 1e-3
