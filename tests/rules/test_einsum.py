"""Einsum, as a layer and between activations."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import pytest

import onnx_upscale
from build import Net, weight_shape
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.load.einsum import Equation, equation_of
from onnx_upscale.optimizer.load.layers import layers, multiply_adds
from rule_cases import (
    CHANNELS,
    SIZE,
    Build,
    Case,
    MaskedNet,
    check_counts,
    check_random_masks,
    pinned,
    runs,
)

PLACES = SIZE * SIZE


def tokens(n: MaskedNet, x: str) -> str:
    """(batch, place, channel)"""
    return n("Relu", n("Transpose", n.shaped(x, 2, CHANNELS, PLACES), perm=[0, 2, 1]))


def _layer(equation: str, first: bool = False) -> Build:
    """An Einsum whose weight has the letters c, the inputs, and o, the outputs."""

    def build(n: MaskedNet, x: str) -> str:
        terms = equation.replace(" ", "").partition("->")[0].split(",")
        data, letters = terms[::-1] if first else terms
        sizes = {"c": CHANNELS, "o": 5, "b": 2}
        shape = [sizes[letter] for letter in letters]
        weight = n.weight("op", *shape, into=letters.index("c"), out=letters.index("o"))
        source = n("Relu", x) if data.startswith("bc") else tokens(n, x)
        read = (weight, source) if first else (source, weight)
        return n("Sigmoid", n("Einsum", *read, name="op", equation=equation))

    return build


def _einsums() -> Iterator[Case]:
    def layer(name: str, build: Build, axis: int = 1) -> Case:
        return Case(name, build, at="op.input", layer=True, inner=5, since=13, axis=axis)

    yield layer("Einsum-tokens", _layer("bsc,co->bso"), axis=2)
    yield layer("Einsum-turned", _layer("bsc, oc -> bso"), axis=2)
    yield layer("Einsum-image", _layer("bchw,oc->bohw"))
    yield layer("Einsum-from-the-left", _layer("oc,bchw->bohw", first=True))
    yield layer("Einsum-to-the-front", _layer("bsc,co->sbo"), axis=2)
    yield layer("Einsum-any-rank", _layer("...c,co->...o"), axis=2)
    yield layer("Einsum-image-of-any-rank", _layer("bc...,oc->bo..."))
    yield layer("Einsum-by-a-batch", _layer("bsc,bco->bso"), axis=2)

    def scaled(n: MaskedNet, x: str) -> str:
        return n("Einsum", x, n.random(CHANNELS), equation="bchw,c->bchw")

    def gated(n: MaskedNet, x: str) -> str:
        gate = n("GlobalAveragePool", n.conv("x", "other", CHANNELS, pads=[1, 1, 1, 1]))
        return n("Einsum", n("Relu", x), n.shaped(gate, 2, CHANNELS), equation="bchw,bc->bchw")

    def weighed(n: MaskedNet, x: str) -> str:
        """Attention over the places."""
        data = tokens(n, x)
        scores = n(
            "Softmax", n.shaped(n.conv("x", "other", 36, pads=[1, 1, 1, 1]), 2, 36, 36), axis=2
        )
        return n("Einsum", scores, data, equation="bqk,bkc->bqc")

    def turned(n: MaskedNet, x: str) -> str:
        return n("Einsum", x, equation="bchw->bhwc")

    yield Case("Einsum-scaled", scaled, since=13)
    yield Case("Einsum-gated", gated, since=13)
    yield Case("Einsum-weighed", weighed, since=13, axis=2)
    yield Case("Einsum-transposed", turned, since=13, axis=3)
    yield pinned("Einsum-diagonal", lambda n, x: n("Einsum", x, equation="bchh->bch"), since=13)


CASES = tuple(_einsums())


def test_an_equation_is_read() -> None:
    assert equation_of("ij, jk -> ik", (2, 2)) == Equation(("ij", "jk"), "ik")
    assert equation_of("...d,df->...f", (3, 2)) == Equation(("abd", "df"), "abf")
    assert equation_of("...d,...d->...", (3, 2)) == Equation(("abd", "bd"), "ab")
    assert equation_of("i,i->", (1, 1)) == Equation(("i", "i"), "")
    for text, ranks in [
        ("ij,jk", (2, 2)),  # Nobody says what it makes.
        ("ii->i", (2,)),
        ("ij->k", (2,)),
        ("ij->i", (3,)),
        ("ij,jk->ik", (2, 2, 2)),
    ]:
        assert equation_of(text, ranks) is None, text


def _net(equation: str, data: tuple[int, ...], weight: tuple[int, ...]) -> onnx.ModelProto:
    net = Net(17, x=data)
    return net.model(net("Einsum", "x", net.random(*weight), equation=equation, name="op"))


def test_letters_tell_sides_and_work() -> None:
    graph = load(_net("bsd,df->bsf", (2, 3, 6), (6, 4))).graph
    (layer,) = layers(graph)
    assert (layer.inputs, layer.outputs, layer.data_axis, layer.output_axis) == (6, 4, 2, 2)
    assert multiply_adds(layer.node.proto, graph.shapes) == 2 * 3 * 6 * 4


def test_of_several_output_letters_only_the_input_side_is_a_side() -> None:
    net = Net(17, x=(2, 3, 6))
    first = net("Relu", net("MatMul", "x", net.random(6, 8), name="first"))
    made = net("Einsum", first, net.random(8, 2, 3), equation="bsd,dnh->bsnh", name="op")
    model = net.model(made)
    masks = {"version": 1, "masks": {"op": {"input": [1, 2, 5]}}}
    result = onnx_upscale.optimize(model, masks, strategy="gather")
    assert weight_shape(result.model, "first") == (6, 5)
    assert weight_shape(result.model, "op") == (5, 2, 3)
    with pytest.raises(onnx_upscale.MaskError, match="no output channels"):
        load(model, {"version": 1, "masks": {"op": {"output": [1]}}})


@pytest.mark.parametrize(
    ("equation", "shape"),
    [
        ("bsd,sdf->bf", (3, 6, 4)),  # Two letters are contracted.
        ("bsd,df->bf", (6, 4)),  # It sums over places as well.
        ("bsd,dfe->bsf", (6, 4, 2)),  # And over an axis of the weight.
    ],
)
def test_what_sums_over_more_is_no_layer(equation: str, shape: tuple[int, ...]) -> None:
    assert not list(layers(load(_net(equation, (2, 3, 6), shape)).graph))


def test_channels_of_two_activations_leave_together() -> None:
    """Queries and keys, whose scores an Einsum makes; what nobody reads is zero in one of them."""
    net = Net(17, x=(2, 3, 6))
    queries = net("MatMul", "x", net.random(6, 8), name="q")
    keys = net("MatMul", "x", net.random(6, 8), name="k")
    model = net.model(net("Einsum", queries, keys, equation="bqd,bkd->bqk"))
    masks = {"version": 1, "masks": {"q": {"output": [1, 2, 5]}, "k": {"output": [2, 7]}}}
    for strategy in ("auto", "gather"):
        result = onnx_upscale.optimize(model, masks, strategy=strategy)
        assert weight_shape(result.model, "q") == weight_shape(result.model, "k") == (6, 4)


def test_what_is_summed_over_stays_unless_it_is_zero() -> None:
    net = Net(17, x=(2, 3, 6))
    made = net("Relu", net("MatMul", "x", net.random(6, 8), name="op"))
    model = net.model(net("Einsum", made, equation="bsd->bs"))
    masks = {"version": 1, "masks": {"op": {"output": [1, 2, 5]}}}
    assert weight_shape(onnx_upscale.optimize(model, masks).model, "op") == (6, 5)


@pytest.mark.parametrize(("case", "opset"), runs(CASES, few=True))
def test_random_masks_leave_the_function_of_the_masked_model(case: Case, opset: int) -> None:
    check_random_masks(case, opset)


@pytest.mark.parametrize(("case", "opset"), runs(CASES, few=True))
def test_channels_that_nobody_reads_go_and_pinned_ones_stay(case: Case, opset: int) -> None:
    check_counts(case, opset)
