"""Attention: whole heads leave, and the same channels of every head."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest

import onnx_upscale
from attention import (
    CHANNELS,
    FLAT,
    FORMS,
    HEADS,
    TOKENS,
    WIDTH,
    Attention,
    attention,
    head,
    masked,
    of_each,
    writers,
)
from build import Net, assert_close, input_values, run, weight_shape
from mask_document import Masks, document
from onnx_upscale.optimizer.analyze import find_structure
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.plan.layout import Layout, misfits


def check(form: str, masks: Masks, strategy: str = "auto") -> onnx.ModelProto:
    """Optimizes under masks, and compares with the model whose weights are zero there."""
    model = attention(form, {})
    proven = strategy in ("auto", "constrained")  # Masks mean the same to the others.
    emitted = onnx_upscale.optimize(model, document(masks), strategy=strategy, verify=proven).model
    inputs = input_values(model)
    assert_close(run(attention(form, masks), inputs), run(emitted, inputs))
    return emitted


def widths(model: onnx.ModelProto, form: str) -> list[int]:
    """How many channels are left of queries, keys and values together, and of the result."""
    made = {name for name, _ in writers(form).values()}
    return [sum(weight_shape(model, name)[1] for name in made), weight_shape(model, "o")[0]]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("strategy", ["auto", "upscale", "gather", "constrained"])
def test_a_head_that_nobody_reads_leaves(form: str, strategy: str) -> None:
    made = check(form, masked(form, "o", head(1)), strategy)
    assert widths(made, form) == [3 * 2 * WIDTH, 2 * WIDTH]


@pytest.mark.parametrize("form", FORMS)
def test_a_head_that_is_zero_leaves(form: str) -> None:
    made = check(form, masked(form, "qkv", head(0, 2)))
    assert widths(made, form) == [3 * WIDTH, WIDTH]


@pytest.mark.parametrize("form", FORMS)
def test_a_head_without_values_leaves(form: str) -> None:
    made = check(form, masked(form, "v", head(1)))
    assert widths(made, form) == [3 * 2 * WIDTH, 2 * WIDTH]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("parts", ["q", "k", "qk"])
def test_channels_of_a_product_leave(form: str, parts: str) -> None:
    made = check(form, masked(form, parts, of_each(0, 2)))
    assert widths(made, form) == [2 * HEADS * 2 + FLAT, FLAT]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("parts", ["v", "o", "vo"])
def test_channels_of_the_result_leave(form: str, parts: str) -> None:
    made = check(form, masked(form, parts, of_each(3)))
    assert widths(made, form) == [2 * FLAT + HEADS * 3, HEADS * 3]


@pytest.mark.parametrize("form", FORMS)
def test_channels_of_every_head_leave(form: str) -> None:
    made = check(form, masked(form, "qkvo", of_each(1, 2)))
    assert widths(made, form) == [3 * HEADS * 2, HEADS * 2]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("parts", ["q", "k", "v", "o"])
def test_each_head_may_lose_channels_of_its_own(form: str, parts: str) -> None:
    gone = [0, 2, WIDTH + 1, WIDTH + 2, 2 * WIDTH, 2 * WIDTH + 1, 2 * WIDTH + 3]
    made = check(form, masked(form, parts, gone))
    left = HEADS * (WIDTH - 2)
    whole = [left + 2 * FLAT, left] if parts in "vo" else [2 * left + FLAT, FLAT]
    assert widths(made, form) == whole


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("strategy", ["auto", "gather"])
@pytest.mark.parametrize("keys", [(0, 0, 0), (1, 2, 0), (3, 3, 1)])
def test_queries_are_zero_in_one_head_and_keys_in_another(
    form: str, strategy: str, keys: Sequence[int]
) -> None:
    """No channel of all heads is zero in either, and the product does without some all the same."""
    queries = (0, 1, 2)
    one, other = ([at * WIDTH + each for at, each in enumerate(gone)] for gone in (queries, keys))
    masks = {key: list(gone) for key, gone in masked(form, "q", one).items()}
    for key, gone in masked(form, "k", other).items():
        masks.setdefault(key, []).extend(gone)
    made = check(form, masks, strategy)
    fewest = min(1 + (a != b) for a, b in zip(queries, keys, strict=True))
    assert widths(made, form) == [2 * HEADS * (WIDTH - fewest) + FLAT, FLAT]


@pytest.mark.parametrize("form", FORMS)
def test_heads_and_channels_leave_together(form: str) -> None:
    made = check(form, masked(form, "qkvo", [*of_each(3), *head(1)]))
    assert widths(made, form) == [3 * 2 * 3, 2 * 3]


@pytest.mark.parametrize("form", FORMS)
def test_random_masks(form: str) -> None:
    rng = np.random.default_rng(FORMS.index(form))
    for _ in range(6):
        masks: dict[str, list[int]] = {}
        for name in {name for name, _ in writers(form).values()} | {"o"}:
            for side, size in (("input", CHANNELS), ("output", FLAT)):
                if name == "o":
                    size = FLAT if side == "input" else CHANNELS
                elif side == "output":
                    size = FLAT * (3 if name == "qkv" else 1)
                share = rng.choice([0, 0.3, 0.7])
                gone = rng.random(size) < share
                if side == "output" or (name == "o" and rng.random() < 0.5):
                    for start in range(0, size - WIDTH + 1, WIDTH):
                        gone[start : start + WIDTH] |= rng.random() < 0.3
                masks[f"{name}.{side}"] = np.flatnonzero(gone)[: size - 1].tolist()
        for strategy in ("auto", "gather", "constrained"):
            model = attention(form, {})
            result = onnx_upscale.optimize(model, document(masks), strategy=strategy)
            if strategy == "constrained":
                continue  # It equals its own masks, which `optimize` has verified.
            inputs = input_values(model)
            assert_close(run(attention(form, masks), inputs), run(result.model, inputs), str(masks))


def test_tensors_in_between_are_compared_in_the_order_of_each_head() -> None:
    gone = [0, 2, WIDTH + 1, WIDTH + 2, 2 * WIDTH, 2 * WIDTH + 1]
    net = Attention("separate", {})
    model = net.attention()
    queries = [made.output[0] for made in model.graph.node if made.op_type == "Transpose"][:1]
    masks = document(masked("separate", "q", gone))
    result = onnx_upscale.optimize(model, masks, verify_at=queries)
    assert result.report["verify"]["pieces"]
    assert widths(result.model, "separate") == [2 * HEADS * 2 + FLAT, FLAT]


def convolved(masks: Masks, beside: str = "nothing") -> onnx.ModelProto:
    """Attention over the pixels of an image, with a depthwise convolution behind it.

    Args:
        masks: Channels that are zero, or are not read.
        beside: What is added to the result: of the values, of the queries, or of values that a
            constant is added to.
    """
    net = Net(18, x=(1, CHANNELS, TOKENS, TOKENS))

    def conv(tensor: str, name: str, inputs: int, outputs: int) -> str:
        weight = net.random(outputs, inputs, 1, 1)
        weight[:, list(masks.get(f"{name}.input", ()))] = 0
        weight[list(masks.get(f"{name}.output", ()))] = 0
        return net("Conv", tensor, weight, name=name)

    flats = {name: conv("x", name, CHANNELS, FLAT) for name in "qkv"}
    queries, keys, values = (
        net("Reshape", flat, net.ints(1, HEADS, WIDTH, TOKENS**2)) for flat in flats.values()
    )
    scores = net("MatMul", net("Transpose", queries, perm=[0, 1, 3, 2]), keys)
    turned = net("Transpose", net("Softmax", scores, axis=-1), perm=[0, 1, 3, 2])
    flat = net("Reshape", net("MatMul", values, turned), net.ints(1, FLAT, TOKENS, TOKENS))
    flat = net("Conv", flat, net.random(FLAT, 1, 1, 1), group=FLAT)
    if beside in ("values", "moved values"):
        local = net("Conv", flats["v"], net.random(FLAT, 1, 3, 3), group=FLAT, pads=[1] * 4)
        local = net("Add", local, net.random(FLAT, 1, 1)) if beside == "moved values" else local
        flat = net("Relu", net("Add", flat, local))
    elif beside == "queries":
        flat = net("Add", flat, flats["q"])
    return net.model(conv(flat, "o", FLAT, CHANNELS))


@pytest.mark.parametrize("part", "vo")
@pytest.mark.parametrize("beside", ["values", "moved values"])
@pytest.mark.parametrize("strategy", ["auto", "upscale", "gather"])
def test_each_head_loses_channels_of_its_own_where_values_are_added(
    part: str, beside: str, strategy: str
) -> None:
    gone = [0, 2, WIDTH + 1, WIDTH + 2, 2 * WIDTH, 2 * WIDTH + 1, 2 * WIDTH + 3]
    masks = masked("separate", part, gone)
    model = convolved({}, beside)
    emitted = onnx_upscale.optimize(model, document(masks), strategy=strategy).model
    inputs = input_values(model)
    assert_close(run(convolved(masks, beside), inputs), run(emitted, inputs))
    assert [weight_shape(emitted, name)[0] for name in "qkv"] == [FLAT, FLAT, HEADS * 2]


@pytest.mark.parametrize("beside", ["values", "moved values", "queries"])
@pytest.mark.parametrize("strategy", ["auto", "upscale", "gather", "constrained"])
def test_random_masks_where_something_is_added(beside: str, strategy: str) -> None:
    random = np.random.default_rng(3)
    model = convolved({}, beside)
    inputs = input_values(model)
    for _ in range(4):
        masks = {
            f"{name}.{'input' if name == 'o' else 'output'}": np.flatnonzero(
                random.random(FLAT) < 0.4
            ).tolist()
            for name in "qkvo"
        }
        result = onnx_upscale.optimize(model, document(masks), strategy=strategy)
        if strategy != "constrained":  # That one proves what it grew by itself.
            assert_close(run(convolved(masks, beside), inputs), run(result.model, inputs))


def test_no_channel_of_a_head_is_kept_for_the_sake_of_a_count() -> None:
    masks = masked("separate", "qkvo", of_each(3))
    model = convolved({})
    emitted = onnx_upscale.optimize(model, document(masks), target="cpu-avx512").model
    inputs = input_values(model)
    assert_close(run(convolved(masks), inputs), run(emitted, inputs))
    assert [weight_shape(emitted, name)[0] for name in "qkv"] == [HEADS * 3] * 3
    assert weight_shape(emitted, "o")[1] == HEADS * 3


def test_a_layout_that_mixes_heads_does_not_fit() -> None:
    structure = find_structure(load(attention("separate", {})).graph)
    (grid, *_) = structure.grids
    count, rank = len(structure.roots), np.arange(len(structure.roots))
    kept, frozen = np.ones(count, bool), np.zeros(count, bool)
    assert not misfits(structure, Layout(structure.roots, kept, rank, frozen))
    rank[grid.flat[[0, WIDTH]]] = rank[grid.flat[[WIDTH, 0]]]
    assert misfits(structure, Layout(structure.roots, kept, rank, frozen))


@pytest.mark.parametrize("batch", [2, "batch"])
@pytest.mark.parametrize(
    ("gone", "left"),
    [([0, 1], (2, 1)), ([1, 3], (2, 2)), ([0], (4, 2)), ([0, 1, 2], (1, 1))],
    ids=["all-that-share", "one-of-each", "one", "all-but-one"],
)
def test_heads_that_share_keys(batch: int | str, gone: list[int], left: tuple[int, int]) -> None:
    """Of four heads each two share keys and values: as many of each two leave."""

    def build(pruned: Sequence[int]) -> onnx.ModelProto:
        net = Net(18, x=(batch, TOKENS, CHANNELS))

        def parted(name: str, heads: int) -> str:
            made = net("MatMul", "x", net.random(CHANNELS, heads * WIDTH), name=name)
            cut = net("Reshape", made, net.ints(0, TOKENS, heads, WIDTH))
            return net("Transpose", cut, perm=[0, 2, 1, 3])

        def repeated(tensor: str) -> str:
            alone = net("Unsqueeze", tensor, net.ints(2))
            start = net("Slice", net("Shape", alone), net.ints(0), net.ints(2))
            sizes = net("Concat", start, net.ints(2, TOKENS, WIDTH), axis=0)
            return net("Reshape", net("Expand", alone, sizes), net.ints(0, 4, TOKENS, WIDTH))

        queries, keys, values = parted("q", 4), parted("k", 2), parted("v", 2)
        scores = net("MatMul", queries, net("Transpose", repeated(keys), perm=[0, 1, 3, 2]))
        mixed = net("MatMul", net("Softmax", scores, axis=-1), repeated(values))
        flat = net("Reshape", net("Transpose", mixed, perm=[0, 2, 1, 3]), net.ints(0, TOKENS, 16))
        weight = net.random(16, CHANNELS)
        weight[head(*pruned)] = 0
        return net.model(net("MatMul", flat, weight, name="o"))

    model = build([])
    emitted = onnx_upscale.optimize(model, document({"o.input": head(*gone)})).model
    inputs = input_values(model)
    assert_close(run(build(gone), inputs), run(emitted, inputs))
    heads = [weight_shape(emitted, name)[1] // WIDTH for name in "qkv"]
    assert heads == [left[0], left[1], left[1]]


def with_odd_queries(how: str, masks: Masks) -> onnx.ModelProto:
    """Something that the same channel of all heads has a part in."""
    net = Attention("separate", masks)
    queries, keys, values = net.operands()
    if how == "scale":
        queries = net("Mul", queries, net.random(WIDTH))
    elif how == "halves":
        first, second = net.nodes_of("Split", queries, net.ints(2, 2), outputs=2, axis=3)
        queries = net("Concat", second, first, axis=3)
    elif how == "mean":
        queries = net("Sub", queries, net("ReduceMean", queries, net.ints(1)))
    elif how == "softmax":
        queries = net("Softmax", queries, axis=1)
    scores = net("MatMul", queries, net.turned(keys))
    mixed = net("MatMul", net("Softmax", scores, axis=-1), values)
    flat = net("Reshape", net("Transpose", mixed, perm=[0, 2, 1, 3]), net.ints(0, TOKENS, FLAT))
    return net.model(net.linear(flat, "o", FLAT, CHANNELS))


@pytest.mark.parametrize("how", ["scale", "halves", "mean", "softmax"])
def test_heads_stay_in_step_where_their_channels_meet(how: str) -> None:
    gone = [0, 2, WIDTH + 1, WIDTH + 2, 2 * WIDTH, 2 * WIDTH + 1, 2 * WIDTH + 3]
    masks = masked("separate", "qk", gone)
    model = with_odd_queries(how, {})
    emitted = onnx_upscale.optimize(model, document(masks)).model
    inputs = input_values(model)
    assert_close(run(with_odd_queries(how, masks), inputs), run(emitted, inputs))
    assert weight_shape(emitted, "q")[1] == FLAT


def with_odd_scores(how: str, masks: Masks) -> onnx.ModelProto:
    """Something that wants the heads of scores as they are, or mixes them."""
    net = Attention("separate", masks)
    queries, keys, values = net.operands()
    scores = net("MatMul", queries, net.turned(keys))
    outputs = [scores] if how == "output" else []
    if how == "talking":
        last = net("Transpose", scores, perm=[0, 2, 3, 1])
        talked = net("MatMul", net("Relu", last), net.random(HEADS, HEADS))
        scores = net("Transpose", talked, perm=[0, 3, 1, 2])
    elif how == "by position":
        rows = net.constant(np.array([[1], [0]]))
        scores = net("Add", scores, net("GatherND", scores, rows))
    mixed = net("MatMul", net("Softmax", scores, axis=1 if how == "softmax" else -1), values)
    flat = net("Reshape", net("Transpose", mixed, perm=[0, 2, 1, 3]), net.ints(0, TOKENS, FLAT))
    return net.model(net.linear(flat, "o", FLAT, CHANNELS), *outputs)


@pytest.mark.parametrize("how", ["output", "talking", "softmax", "by position"])
@pytest.mark.parametrize("part", "vo")
def test_each_head_has_channels_of_its_own_where_scores_are_mixed(how: str, part: str) -> None:
    gone = [0, 2, WIDTH + 1, WIDTH + 2, 2 * WIDTH, 2 * WIDTH + 1, 2 * WIDTH + 3]
    masks = masked("separate", part, gone)
    model = with_odd_scores(how, {})
    emitted = onnx_upscale.optimize(model, document(masks)).model
    inputs = input_values(model)
    assert_close(run(with_odd_scores(how, masks), inputs), run(emitted, inputs))
    assert widths(emitted, "separate") == [2 * FLAT + HEADS * 2, HEADS * 2]


@pytest.mark.parametrize("form", ["dynamic", "packed", "unbound", "sliced"])
@pytest.mark.parametrize("by", ["output", "reader"])
def test_what_stands_in_an_idiom_may_be_wanted_by_others(form: str, by: str) -> None:
    def build(masks: Masks, place: int) -> onnx.ModelProto:
        net = Attention(form, masks)
        result = net.attention().graph.output[0].name
        seen = net.nodes[place].output[0]
        return net.model(result, seen if by == "output" else net("ReduceSum", seen, keepdims=0))

    masks = masked(form, "qvo", [*of_each(1), *head(2)])
    whole = attention(form, {})
    for place, made in enumerate(whole.graph.node):
        if made.op_type in ("Reshape", "Transpose"):
            model = build({}, place)
            emitted = onnx_upscale.optimize(model, document(masks)).model
            inputs = input_values(model)
            assert_close(run(build(masks, place), inputs), run(emitted, inputs), made.name)


@pytest.mark.parametrize(
    "equation",
    [
        "bihd,bjhd->bij",  # Sums over heads.
        "bihd,bjgd->bhij",  # Each head of the queries meets all of the keys,
        "bihd,bjgd->bhgij",  # or each of them.
        "bihd,bihd->bhi",
        "bihd,bjhd->bijh",
    ],
)
def test_an_einsum_may_mix_heads(equation: str) -> None:
    """Then all heads have the same channels in the same order, though another takes them apart."""

    def build(masks: Masks) -> onnx.ModelProto:
        net = Attention("einsum, tokens first", masks)
        queries, keys, _ = net.operands()
        by_heads = net("Einsum", queries, keys, equation="bihd,bjhd->bhij")
        return net.model(net("Einsum", queries, keys, equation=equation), by_heads)

    for masks in (
        {"q.output": [0, WIDTH + 1, 2 * WIDTH + 2]},
        {"q.output": [0, WIDTH + 1, 2 * WIDTH + 2], "k.output": [1, WIDTH, 2 * WIDTH]},
        {"q.output": of_each(1), "k.output": [*of_each(2), 0]},
        {"q.output": head(1), "k.output": head(2)},
    ):
        emitted = onnx_upscale.optimize(build({}), document(masks)).model
        inputs = input_values(emitted)
        assert_close(run(build(masks), inputs), run(emitted, inputs))


@pytest.mark.parametrize("form", FORMS)
def test_no_node_is_put_in_that_moves_nothing(form: str) -> None:
    model = check(form, masked(form, "o", head(1)))
    orders = [list(a.ints) for n in model.graph.node for a in n.attribute if a.name == "perm"]
    assert orders or form == "einsum, tokens first"
    assert all(order != sorted(order) for order in orders)
