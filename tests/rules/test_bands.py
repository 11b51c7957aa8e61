"""Channels of a head in bands: each band that nobody takes in step has an order per head."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onnx_upscale
from build import assert_close, input_values, run, weight_shape
from case import Case, Masks
from head_forms import (
    BODIES,
    CHANNELS,
    FLAT,
    FORMS,
    HEADS,
    TOKENS,
    TURNED,
    WIDTH,
    Heads,
    case,
    layer_sizes,
    random_masks,
)
from masked import masked
from onnx_upscale.optimizer.analyze import Structure
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.plan.layout import Layout, misfits

STRATEGIES = ("gather", "upscale", "constrained", "auto")


def optimized(given: Case, strategy: str = "gather") -> onnx.ModelProto:
    """Optimizes, and compares with the reference; at times with the package's own verification."""
    proven = strategy in ("gather", "constrained")  # Masks mean the same to the others.
    result = onnx_upscale.optimize(given.model, given.document, strategy=strategy, verify=proven)
    inputs = input_values(given.model)
    if strategy != "constrained":  # It equals its own masks, which `optimize` has verified.
        assert_close(run(masked(given), inputs), run(result.model, inputs), str(given.masks))
    return result.model


def of_heads(*gone: tuple[int, ...], start: int = 0, stride: int = WIDTH) -> list[int]:
    """Places of each head's channels."""
    return [at * stride + start + place for at, own in enumerate(gone) for place in own]


OWN = ((0, 3), (1, 4), (0, 5), (2, 3))
"""Two places of every head, never the same."""
REST = ((4,), (5,), (4,), (5,))
"""One of those of every head that are not turned."""


@pytest.mark.parametrize("strategy", STRATEGIES[:2])
@pytest.mark.parametrize("form", ["beside", "beside, slices"])
@pytest.mark.parametrize("start", [0, WIDTH, 2 * WIDTH])
def test_each_of_three_bands_has_an_order_of_its_own(form: str, strategy: str, start: int) -> None:
    masks: Masks = {"qkv": {"output": of_heads(*OWN, start=start, stride=3 * WIDTH)}}
    made = optimized(case(form, masks), strategy)
    fewer = 2 if start == 2 * WIDTH else 4  # Queries take keys along.
    assert weight_shape(made, "qkv")[1] == HEADS * (3 * WIDTH - fewer)
    assert weight_shape(made, "o")[0] == FLAT - (HEADS * 2 if start == 2 * WIDTH else 0)


@pytest.mark.parametrize("form", ["axis", "channels"])
@pytest.mark.parametrize("kind", [0, 1, 2])
def test_kinds_that_lie_between_others_go_their_own_ways(form: str, kind: int) -> None:
    places = np.arange(HEADS * 3 * WIDTH).reshape(
        HEADS, *(3, WIDTH) if form == "axis" else (WIDTH, 3)
    )
    own = places[:, kind] if form == "axis" else places[:, :, kind]
    gone = [int(own[head, place]) for head, out in enumerate(OWN) for place in out]
    made = optimized(case(form, {"qkv": {"output": gone}}))
    fewer = 2 if kind == 2 else 4
    assert weight_shape(made, "qkv")[1] == HEADS * (3 * WIDTH - fewer)


@pytest.mark.parametrize("form", FORMS)
def test_what_the_projection_does_not_read_leaves_the_values(form: str) -> None:
    gone = OWN
    if form == "shared":  # Heads 0 and 1 share values, as 2 and 3 do.
        gone = (OWN[0], OWN[0], OWN[1], OWN[1])
    made = optimized(case(form, {"o": {"input": of_heads(*gone)}}))
    layer = "v" if "v" in layer_sizes(form) else "qkv"
    whole = layer_sizes(form)[layer][1]
    less = 0 if form == "many groups" else whole // (WIDTH if layer == "v" else 3 * WIDTH) * 2
    assert whole - less in weight_shape(made, layer)


def test_queries_shared_or_not_stay_in_step_where_they_are_turned() -> None:
    masks: Masks = {"q": {"output": of_heads(*OWN)}}
    assert weight_shape(optimized(case("all turned", masks)), "q")[1] == FLAT
    assert weight_shape(optimized(case("plain", masks)), "q")[1] == HEADS * (WIDTH - 2)


@pytest.mark.parametrize("form", ["turned", "shared"])
@pytest.mark.parametrize("part", ["q", "k"])
def test_what_is_not_turned_has_an_order_of_its_own(form: str, part: str) -> None:
    heads = layer_sizes(form)[part][1] // WIDTH
    masks: Masks = {part: {"output": of_heads(*REST[:heads])}}
    made = optimized(case(form, masks))
    shared = 0 if form == "shared" else 1  # Of heads that share keys it must be the same.
    assert weight_shape(made, part)[1] == heads * (WIDTH - shared)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_pair_that_is_turned_leaves_from_all_heads_at_once(strategy: str) -> None:
    pair = tuple(range(0, TURNED, TURNED // 2))
    for form in ("turned", "beside, turned"):
        stride = 3 * WIDTH if form in ("beside, turned",) else WIDTH
        layer = "qkv" if form == "beside, turned" else "q"
        gone = of_heads(*[pair] * HEADS, stride=stride)
        made = optimized(case(form, {layer: {"output": gone}}), strategy)
        left = 3 * WIDTH - 4 if layer == "qkv" else WIDTH - 2
        assert weight_shape(made, layer)[1] == HEADS * left


def test_two_zeros_meet_in_a_band() -> None:
    """A channel that is zero in the queries of one head and in the keys of another."""
    queries, keys = ((4,), (), (4,), ()), ((), (5,), (), (5,))
    masks: Masks = {"q": {"output": of_heads(*queries)}, "k": {"output": of_heads(*keys)}}
    made = optimized(case("turned", masks))
    assert [weight_shape(made, name)[1] for name in "qk"] == [HEADS * (WIDTH - 1)] * 2


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("form", ["groups", "few groups"])
@pytest.mark.parametrize("part", ["q", "k", "v"])
def test_heads_that_grouped_convolutions_make(form: str, part: str, strategy: str) -> None:
    given = case(form, {part: {"output": of_heads(*OWN)}})
    made = optimized(given, strategy)
    if strategy != "auto":  # That keeps whole blocks.
        found = {name: weight_shape(made, name)[0] for name in "qkv"}
        left = HEADS * (WIDTH - 2)
        assert found == dict.fromkeys("qkv", FLAT) | dict.fromkeys(
            "v" if part == "v" else "qk", left
        )


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=max(12, settings().max_examples // 50))
@given(
    seed=st.integers(0, 2**32 - 1),
    body=st.sampled_from(BODIES),
    strategy=st.sampled_from(STRATEGIES),
)
def test_random_masks_per_head(form: str, seed: int, body: str, strategy: str) -> None:
    optimized(case(form, random_masks(form, seed), body), strategy)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_without_masks_nothing_changes(form: str, strategy: str) -> None:
    given = case(form, {})
    made = optimized(given, strategy)
    assert made.graph == given.model.graph


def test_copies_of_a_band_that_are_mixed_stay_in_step() -> None:
    """Queries are made of halves of two bands, and keys of the other halves."""
    net = Heads("beside")
    flat = net.linear("x", "qkv", CHANNELS, 3 * FLAT)
    cut = net("Reshape", flat, net.ints(1, TOKENS, HEADS, 3 * WIDTH))
    cut = net("Transpose", cut, perm=[0, 2, 1, 3])
    half = WIDTH // 2
    queries = [*range(half), *range(WIDTH + half, 2 * WIDTH)]
    keys = [*range(WIDTH, WIDTH + half), *range(half, WIDTH)]
    places = (queries, keys, range(2 * WIDTH, 3 * WIDTH))
    parts = [net("Gather", cut, net.ints(*own), axis=3) for own in places]
    scores = net("MatMul", parts[0], net("Transpose", parts[1], perm=[0, 1, 3, 2]))
    mixed = net("Transpose", net("MatMul", scores, parts[2]), perm=[0, 2, 1, 3])
    made = net.linear(net("Reshape", mixed, net.ints(1, TOKENS, FLAT)), "o", FLAT, CHANNELS)
    masks: Masks = {"qkv": {"output": of_heads(*OWN, stride=3 * WIDTH)}}
    optimized(Case(net.model(made), masks, tuple(net.layers)))


@pytest.mark.parametrize("form", ["plain", "beside, turned", "shared", "axis"])
@pytest.mark.parametrize("strategy", ["gather", "constrained"])
def test_tensors_in_between_are_compared_band_by_band(form: str, strategy: str) -> None:
    gone = (OWN[0], OWN[0], OWN[1], OWN[1]) if form == "shared" else OWN
    given = case(form, {"o": {"input": of_heads(*gone)}})
    last = [node for node in given.model.graph.node if node.op_type == "Transpose"][-1]
    result = onnx_upscale.optimize(
        given.model, given.document, strategy=strategy, verify_at=[last.input[0]]
    )
    assert result.report["verify"]["pieces"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_heads_are_in_step_where_a_layout_does_not_fit_their_orders(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bands that pass all checks fit; should one not, only it is taken back."""
    masks: Masks = {"q": {"output": of_heads(*OWN)}, "o": {"input": of_heads(*OWN)}}
    given = case("plain", masks)
    orders: list[int] = []

    def misfit(structure: Structure, layout: Layout) -> list[IntArray]:
        orders.append(len(structure.head_orders))
        mine = next(facts for facts in structure.facts if facts.node.title == "o")
        assert mine.read is not None
        flats = {tuple(each.flats) for each in structure.head_orders}
        read = structure.roots[mine.read.inputs]
        moved = any(set(read) <= set(flat) for flat in flats)
        return [mine.read.inputs] if moved else misfits(structure, layout)

    monkeypatch.setattr("onnx_upscale.optimizer.plan.misfits", misfit)
    made = optimized(given, strategy)
    assert set(orders) == {2, 1}
    left = HEADS * (WIDTH - 2)
    assert [weight_shape(made, name)[1] for name in "qkv"] == [left, left, FLAT]


def test_heads_that_are_taken_apart_stay_in_step() -> None:
    net = Heads("plain")
    queries, keys, values = net.operands("x")
    first, second = net.nodes_of("Split", queries, net.ints(1, HEADS - 1), outputs=2, axis=1)
    queries = net("Concat", net("Neg", first), second, axis=1)
    scores = net("MatMul", queries, net("Transpose", keys, perm=[0, 1, 3, 2]))
    mixed = net("Transpose", net("MatMul", scores, values), perm=[0, 2, 1, 3])
    made = net.linear(net("Reshape", mixed, net.ints(1, TOKENS, FLAT)), "o", FLAT, CHANNELS)
    masks: Masks = {"q": {"output": of_heads(*OWN)}}
    emitted = optimized(Case(net.model(made), masks, tuple(net.layers)))
    assert weight_shape(emitted, "q")[1] == FLAT


def projected(net: Heads, mixed: str) -> Case:
    """What queries of own orders go through, with masks that would have them."""
    flat = net("Reshape", mixed, net.ints(1, TOKENS, FLAT))
    model = net.model(net.linear(flat, "o", FLAT, CHANNELS))
    gone = of_heads(*OWN)
    masks: Masks = {"q": {"output": gone}, "o": {"input": gone}}
    return Case(model, masks, tuple(net.layers))


def test_a_part_that_is_read_by_itself_is_a_band_by_itself() -> None:
    net = Heads("plain")
    queries, keys, values = net.operands("x")
    scores = net("MatMul", queries, net("Transpose", keys, perm=[0, 1, 3, 2]))
    start, end, axis = net.ints(WIDTH // 2), net.ints(2**62), net.ints(3)
    queries, keys = (net("Slice", each, start, end, axis) for each in (queries, keys))
    more = net("MatMul", queries, net("Transpose", keys, perm=[0, 1, 3, 2]))
    mixed = net("MatMul", net("Add", scores, net("Tanh", more)), values)
    made = optimized(projected(net, net("Transpose", mixed, perm=[0, 2, 1, 3])))
    assert weight_shape(made, "v")[1] == HEADS * (WIDTH - 2)


def test_heads_that_attend_to_each_other_stay_in_step() -> None:
    net = Heads("plain")
    sizes = net.ints(1, TOKENS, HEADS, WIDTH)
    queries, keys, values = (
        net("Reshape", net.linear("x", name, CHANNELS, FLAT), sizes) for name in "qkv"
    )
    scores = net("MatMul", queries, net("Transpose", keys, perm=[0, 1, 3, 2]))
    made = optimized(projected(net, net("MatMul", net("Softmax", scores, axis=-1), values)))
    assert [weight_shape(made, name)[1] for name in "qv"] == [FLAT, FLAT]
