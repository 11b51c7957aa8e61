"""The structure of a graph is found once; masks are a step on it that leaves it as it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

import onnx_upscale
from build import Net
from case import Case
from onnx_upscale.optimizer.analyze import analyze, find_structure
from onnx_upscale.optimizer.analyze import weights as module
from onnx_upscale.optimizer.analyze.weights import MaskedWeights, Weights
from onnx_upscale.optimizer.apply import apply
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.load.layers import layers
from onnx_upscale.optimizer.load.masking import mask_graph
from onnx_upscale.optimizer.plan import Costs, plan
from onnx_upscale.prices import load_prices
from strategies import cases

PRICES = load_prices("cpu-avx512")


@settings(max_examples=30)
@given(cases())
def test_masks_on_a_known_structure_give_what_a_new_one_gives(case: Case) -> None:
    loaded = load(case.model, case.document)
    graph, resolved = loaded.graph.masked({}), loaded.masks
    structure = find_structure(graph)
    for masks in (resolved[::2], resolved, ()):  # Other masks before must leave nothing behind.
        masked = mask_graph(graph, masks)
        known, fresh = analyze(masked, structure), analyze(masked)
        # Only heads may need another one: with orders of their own, and zeros that cross a product.
        same = not known.structure.head_orders and not known.structure.crossed.size
        assert (known.structure is structure) == same
        assert not structure.head_orders and not structure.crossed.size
        np.testing.assert_array_equal(known.values, fresh.values)
        np.testing.assert_array_equal(known.needs.labels, fresh.needs.labels)
        emitted = [apply(plan(each, "auto", PRICES)).model for each in (known, fresh)]
        assert emitted[0] == emitted[1]


@settings(max_examples=30)
@given(cases())
def test_weights_under_masks_are_those_of_the_masked_constants(case: Case) -> None:
    graph = load(case.model, case.document).graph
    weights = MaskedWeights(Weights(graph.masked({})), graph)
    rng = np.random.default_rng(0)
    for layer in layers(graph):
        value = graph.value(layer.node, layer.weight_slot)
        assert value is not None
        grouped = layer.by_group(value)
        connected = (grouped != 0).any(-1)
        for share in (0.2, 1.0):
            some = rng.random(layer.inputs) < share
            wanted = (connected & some.reshape(layer.groups, 1, -1)).any(2).ravel()
            np.testing.assert_array_equal(weights.reached(layer, some), wanted)
            some = rng.random(layer.outputs) < share
            wanted = (connected & some.reshape(layer.groups, -1, 1)).any(1).ravel()
            np.testing.assert_array_equal(weights.reaching(layer, some), wanted)
        inputs = rng.standard_normal(layer.inputs)
        by_group = inputs.reshape(layer.groups, 1, -1)
        alpha = float(layer.node.attributes.get("alpha", 1.0))
        wanted = (grouped.sum(-1, dtype=np.float64) * by_group).sum(-1).ravel() * alpha
        np.testing.assert_allclose(weights.contribution(layer, inputs), wanted, atol=1e-9)


@settings(max_examples=30)
@given(cases())
def test_whatever_a_reader_needs_is_kept(case: Case) -> None:
    analyzed = onnx_upscale.analyze(case.model, case.document)
    kept = analyzed.plan("auto", "cpu-avx512").kept
    for facts in analyzed.analysis.structure.facts:
        if facts.read is not None:
            needed = analyzed.analysis.needs.reads[facts.node.index]
            assert kept.labels[facts.read.inputs[needed]].all()
            assert kept.reads[facts.node.index][needed].all()


def listed(*concats: tuple[str, ...]) -> list[int]:
    """How many channels those Concats of `x`, `y` and `z` have that a layout may break."""
    net = Net(17, x=(1, 2, 4, 4), y=(1, 3, 4, 4), z=(1, 5, 4, 4))
    sizes = {"x": 2, "y": 3, "z": 5}
    made = {name: net("Conv", name, net.random(n, n, 1, 1)) for name, n in sizes.items()}
    outputs = [net("Concat", *(made[name] for name in names), axis=1) for names in concats]
    structure = find_structure(load(net.model(*outputs)).graph)
    return [len(each.whole) for each in structure.concatenations]


def test_of_a_concat_and_another_of_some_of_its_parts_only_one_can_break() -> None:
    assert listed(("x", "y"), ("z", "x", "y"), ("y", "z")) == [10]
    assert listed(("x", "y"), ("y", "z")) == [5, 8]


def test_a_concat_of_the_same_channels_twice_can_break_by_itself() -> None:
    assert listed(("x", "y"), ("x", "x"), ("x", "x", "y")) == [7, 5, 4]


def test_axes_with_the_same_channels_are_no_tie_that_can_break() -> None:
    net = Net(17, x=(1, 4, 6, 6))
    made = net("Conv", "x", net.random(8, 4, 1, 1))
    same = net("Reshape", made, np.array([1, 8, 36]))
    shuffled = net("DepthToSpace", made, blocksize=2)
    structure = find_structure(load(net.model(same, shuffled)).graph)
    assert [(tie.outer, len(tie.part), tie.inner) for tie in structure.ties] == [(4, 2, 1)]


@settings(max_examples=30)
@given(cases())
def test_an_axis_keeps_as_many_channels_as_it_has_positions(case: Case) -> None:
    plan = onnx_upscale.analyze(case.model, case.document).plan("auto", "cpu-avx512")
    axes = plan.analysis.structure.axes
    assert plan.layout.counts(plan.analysis.structure) == {
        tensor: {axis: len(plan.layout.positions(labels)) for axis, labels in own.items()}
        for tensor, own in axes.items()
    }


def test_the_report_tells_needed_from_kept() -> None:
    net = Net(17, x=(1, 3, 6, 6))
    made = net("Relu", net("Conv", "x", net.random(32, 3, 3, 3)))
    pooled = net("MaxPool", made, kernel_shape=[2, 2])
    model = net.model(net("Conv", pooled, net.constant(net.random(4, 32, 1, 1), "w")))
    masks = {"version": 1, "masks": {"w": {"input": list(range(12))}}}
    report = onnx_upscale.optimize(model, masks, target="cpu-avx512", verify=False).report
    assert (report["segments"][0]["needed"], report["segments"][0]["kept"]) == (20, 32)


@pytest.mark.parametrize("strategy", ["auto", "gather"])
def test_a_scalar_that_a_mask_makes_a_vector_is_cut_with_its_channels(strategy: str) -> None:
    net = Net(17, x=(1, 3, 6, 6))
    made = net("Add", net("Conv", "x", net.random(8, 3, 1, 1), name="layer"), np.float32(0.5))
    model = net.model(net("Conv", net("Relu", made), net.random(4, 8, 3, 3)))
    masks = {"version": 1, "masks": {"layer": {"output": [0, 1, 2, 5, 6]}}}
    report = onnx_upscale.optimize(model, masks, strategy=strategy).report
    assert report["verify"]["ok"]
    assert report["output"]["params"] < report["input"]["params"]


@pytest.mark.parametrize("zeros", [0, 1, 40])
def test_pairs_are_the_same_however_they_are_kept(
    zeros: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Net(17, x=["n", 12, 5, 5])
    weight = net.random(6, 4, 3, 3)
    weight.reshape(24, 9)[np.random.default_rng(0).permutation(24)[:zeros]] = 0
    net("Conv", "x", net.constant(weight, "w"), name="conv", group=3)
    graph = load(net.model("conv.0")).graph
    (layer,) = layers(graph)
    wanted = (weight.reshape(3, 2, 4, 9) != 0).any(-1)
    for many in (1, 1 << 20):
        monkeypatch.setattr(module, "_MANY", many)
        weights = Weights(graph)
        for _ in range(2):  # Also once it is remembered.
            np.testing.assert_array_equal(weights.connected(layer), wanted)
        assert weights.is_dense(layer) == wanted.all()
        assert Weights(graph).is_dense(layer) == wanted.all()


@settings(max_examples=30)
@given(cases())
def test_what_is_around_a_segment_is_counted_as_it_is_kept(case: Case) -> None:
    plan = onnx_upscale.analyze(case.model, case.document).plan("auto", "cpu-avx512")
    structure, kept = plan.analysis.structure, plan.kept.labels
    counts = structure.across.tally.counts(kept)
    around = zip(
        structure.segments, structure.across.writers, structure.across.readers, strict=True
    )
    for segment, writers, readers in around:
        made = [
            (layer, layer.inputs if axis is None else np.count_nonzero(kept[axis]))
            for layer, axis in segment.writing_layers
        ]
        read = [
            (each.layer, each.layer.outputs if each.outputs is None else kept[each.outputs].sum())
            for each in segment.readers
        ]
        for found, wanted in ((writers, made), (readers, read)):
            assert [
                (each.layer, each.channels if each.number < 0 else counts[each.number])
                for each in found
            ] == wanted
    growing, tally = structure.growing
    assert [each for each in structure.segments if not each.in_grid] == list(growing)
    assert tally.counts(kept) == [
        np.count_nonzero(kept[each.roots[own.places]]) for each in growing for own in each.sets
    ]


@settings(max_examples=20)
@given(cases())
def test_costs_that_remember_other_masks_plan_as_new_ones_do(case: Case) -> None:
    loaded = load(case.model, case.document)
    graph = loaded.graph.masked({})
    structure = find_structure(graph)
    costs = Costs(structure, PRICES)
    for masks in (loaded.masks[::2], loaded.masks, ()):
        analysis = analyze(mask_graph(graph, masks), structure)
        again, fresh = plan(analysis, "auto", costs), plan(analysis, "auto", PRICES)
        assert again.seconds == fresh.seconds
        assert apply(again).model == apply(fresh).model
