"""Plans: who takes a copy and who must not, which counts are kept, what masks grow to."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onnx_upscale
from build import Net
from onnx_upscale.choices import STRATEGIES, TARGETS
from onnx_upscale.errors import UsageError
from onnx_upscale.optimizer.plan.layout import stretches
from onnx_upscale.prices import load_prices
from targets import TARGETS as PRICED_AS

WIDTH = 24


def chain(layers: int, *, depthwise: bool = False) -> onnx.ModelProto:
    """Convolutions one after the other; layer i reads through the weight `w{i}`."""
    net = Net(17, x=["n", 3, 6, 6])
    data, channels = "x", 3
    for layer in range(layers):
        weight = net.constant(net.random(WIDTH, channels, 1, 1), f"w{layer}")
        data, channels = net("Relu", net("Conv", data, weight)), WIDTH
        if depthwise:
            data = net("Conv", data, net.random(WIDTH, 1, 3, 3), group=WIDTH, pads=[1, 1, 1, 1])
    return net.model(net("Conv", data, net.constant(net.random(5, WIDTH, 1, 1), "last")))


def branched(readers: int) -> onnx.ModelProto:
    """One writer, several readers `r{i}`, whose results are added."""
    net = Net(17, x=[1, 3, 6, 6])
    trunk = net("Relu", net("Conv", "x", net.constant(net.random(WIDTH, 3, 1, 1), "w")))
    total = ""
    for reader in range(readers):
        weight = net.constant(net.random(8, WIDTH, 1, 1), f"r{reader}")
        made = net("Conv", trunk, weight)
        total = net("Add", total, made) if total else made
    return net.model(total)


def masks_of(sides: dict[str, list[int]]) -> dict[str, Any]:
    return {"version": 1, "masks": {key: {"input": pruned} for key, pruned in sides.items()}}


def weight_shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    return {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}


pruned_channels = st.lists(st.integers(0, WIDTH - 1), unique=True, max_size=WIDTH - 1)


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(masks=st.lists(pruned_channels, min_size=3, max_size=3), depthwise=st.booleans())
def test_a_chain_has_no_copy(strategy: str, masks: list[list[int]], depthwise: bool) -> None:
    sides = dict(zip(("w1", "w2", "last"), masks, strict=True))
    model = chain(3, depthwise=depthwise)
    result = onnx_upscale.optimize(model, masks_of(sides), strategy=strategy)
    assert result.report["copies"] == {"count": 0, "bytes": 0, "replaced": 0}


@pytest.mark.parametrize("strategy", ["gather", "upscale", "constrained"])
@settings(max_examples=10, deadline=None, derandomize=True)
@given(masks=st.lists(pruned_channels, min_size=3, max_size=3))
def test_unbranched_masks_prune_as_an_ordinary_pruner(
    strategy: str, masks: list[list[int]]
) -> None:
    sides = dict(zip(("w1", "w2", "last"), masks, strict=True))
    result = onnx_upscale.optimize(chain(3), masks_of(sides), strategy=strategy)
    kept = [WIDTH - len(pruned) for pruned in masks]
    assert weight_shapes(result.model) == {
        "w0": [kept[0], 3, 1, 1],
        "w1": [kept[1], kept[0], 1, 1],
        "w2": [kept[2], kept[1], 1, 1],
        "last": [5, kept[2], 1, 1],
    }


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(mask=pruned_channels)
def test_a_reader_that_needs_the_whole_tensor_reads_it(strategy: str, mask: list[int]) -> None:
    result = onnx_upscale.optimize(branched(2), masks_of({"r0": mask}), strategy=strategy)
    (segment,) = (s for s in result.report["segments"] if len(s["readers"]) == 2)
    whole = [reader for reader in segment["readers"] if reader["needed"] == segment["kept"]]
    assert whole
    assert all(r["realization"] == "whole" and not r["bytes_copied"] for r in whole)


def test_auto_keeps_counts_that_the_target_likes() -> None:
    """23 of 24 channels of a depthwise chain would leave the fast kernels."""
    model = chain(2, depthwise=True)
    masks = masks_of({"w1": [0], "last": [1, 2]})
    auto = onnx_upscale.optimize(model, masks)
    assert {w["channels"] for s in auto.report["segments"][:2] for w in s["writers"]} == {WIDTH}
    gather = onnx_upscale.optimize(model, masks, strategy="gather")
    assert [s["kept"] for s in gather.report["segments"][:2]] == [WIDTH - 1, WIDTH - 2]


def test_constrained_prunes_what_any_reader_prunes() -> None:
    masks = masks_of({"r0": [0, 1, 2, 3], "r1": [3, 4, 5]})
    result = onnx_upscale.optimize(branched(2), masks, strategy="constrained")
    assert result.report["segments"][0]["kept"] == WIDTH - 6
    assert result.report["copies"]["count"] == 0


def test_two_readers_of_the_same_channels_share_a_copy() -> None:
    masks = masks_of({"r0": [0, 2, 4], "r1": [0, 2, 4], "r2": [1]})
    result = onnx_upscale.optimize(branched(3), masks, strategy="gather")
    assert sum(node.op_type == "Gather" for node in result.model.graph.node) == 2


def test_upscale_lays_two_readers_side_by_side() -> None:
    masks = masks_of({"r0": list(range(0, 24, 3)), "r1": list(range(1, 24, 3))})
    result = onnx_upscale.optimize(branched(2), masks, strategy="upscale")
    readers = result.report["segments"][0]["readers"]
    assert {reader["realization"] for reader in readers} == {"slice"}


def test_upscale_is_the_paper_s_algorithm_and_auto_is_not() -> None:
    """Three readers that overlap each other are no path, though an order suits all of them."""
    needs = [range(0, 12), range(6, 18), range(10, 24)]
    hidden = np.random.default_rng(0).permutation(WIDTH)
    pruned = [sorted(set(range(WIDTH)) - set(hidden[list(need)].tolist())) for need in needs]
    masks = masks_of({f"r{reader}": channels for reader, channels in enumerate(pruned)})
    result = onnx_upscale.optimize(branched(3), masks, strategy="upscale")
    readers = result.report["segments"][0]["readers"]
    assert sorted(reader["realization"] for reader in readers) == ["gather", "slice", "slice"]
    planned = onnx_upscale.analyze(branched(3), masks).plan("auto")
    (segment,) = (s for s in planned.analysis.structure.segments if len(s.readers) == 3)
    for read in segment.readers:
        needed = planned.kept.reads[read.layer.node.index]
        places = np.flatnonzero(needed[planned.layout.positions(read.inputs)])
        assert places[-1] - places[0] + 1 == len(places)


def pooled(op: str) -> onnx.ModelProto:
    """A writer of 64 channels, something between, and a layer with a window that reads them."""
    net = Net(17, x=[1, 3, 12, 12])
    made = net("Conv", "x", net.random(64, 3, 3, 3))
    between = net(op, made, kernel_shape=[2, 2]) if op == "MaxPool" else net(op, made)
    weight = net.constant(net.random(16, 64, 3, 3), "reads")
    return net.model(net("Conv", between, weight))


@pytest.mark.parametrize(
    ("op", "target", "kept"),
    [("Relu", "cpu-avx512", 52), ("MaxPool", "cpu-avx512", 64), ("MaxPool", "cpu-avx2", 56)],
)
def test_whole_blocks_are_pooled(op: str, target: str, kept: int) -> None:
    """Blocked pooling takes whole blocks only; a layer is content with a multiple of four."""
    masks = masks_of({"reads": list(range(12))})
    result = onnx_upscale.optimize(pooled(op), masks, target=target)
    assert result.report["segments"][0]["kept"] == kept


@pytest.mark.parametrize(("kernel", "read"), [(1, 16), (3, 12)])
def test_a_pointwise_layer_reads_a_whole_block(kernel: int, read: int) -> None:
    """The kernel for fewer channels than a block is slow where there is no window."""
    net = Net(17, x=[1, 3, 12, 12])
    made = net("Relu", net("Conv", "x", net.random(16, 3, 3, 3)))
    weight = net.constant(net.random(32, 16, kernel, kernel), "reads")
    model = net.model(net("Conv", made, weight))
    masks = masks_of({"reads": [1, 2, 3, 4]})
    result = onnx_upscale.optimize(model, masks, target="cpu-avx512")
    assert result.report["segments"][0]["readers"][0]["read"] == read


@pytest.mark.parametrize(("size", "kept"), [(8, 36), (64, 33)])
def test_odd_counts_pay_on_large_maps_only(size: int, kept: int) -> None:
    """Leaving the blocked layout costs time that only many multiply-adds make up for."""
    net = Net(17, x=[1, 3, size, size])
    made = net("Relu", net("Conv", "x", net.random(64, 3, 3, 3)))
    model = net.model(net("Conv", made, net.constant(net.random(160, 64, 3, 3), "w1")))
    masks = masks_of({"w1": list(range(31))})
    report = onnx_upscale.optimize(model, masks, target="cpu-avx512", verify=False).report
    assert report["segments"][0]["kept"] == kept


def test_where_readers_contradict_each_other_the_largest_is_spared() -> None:
    needed = [range(12), range(6, 18), [*range(6), *range(12, 24)]]
    pruned = [sorted({*range(WIDTH)} - {*own}) for own in needed]
    masks = masks_of({f"r{reader}": own for reader, own in enumerate(pruned)})
    plan = onnx_upscale.analyze(branched(3), masks).plan(
        "auto", PRICED_AS["copies free, blocks of 1"]
    )
    ways = sorted((each.way.channels, each.name) for each in plan.readers.values())
    assert ways == [(12, "gather"), (12, "slice"), (18, "slice")]


def test_stretches_cut_before_a_repeat() -> None:
    roots = np.array([1, 1, 2, 2, 1, 1, 3, 2])
    assert stretches(roots).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert stretches(np.array([4, 4, 4])).tolist() == [0, 0, 0]


def test_an_unknown_target_names_those_there_are() -> None:
    with pytest.raises(UsageError, match="built in: cpu, cpu-avx512, "):
        load_prices("tpu")


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_gives_an_equal_model(target: str) -> None:
    masks = masks_of({"r0": [0, 2, 4, 9], "r1": [5, 6, 7, 8, 10, 11]})
    report = onnx_upscale.optimize(branched(2), masks, target=target).report
    assert report["verify"]["ok"]


def test_tuning_measures_and_stays_equal() -> None:
    masks = masks_of({"r0": [0, 2, 4, 9], "r1": [5, 6, 7, 8, 10, 11]})
    assert onnx_upscale.optimize(branched(2), masks, tune=True).report["verify"]["ok"]


@pytest.mark.parametrize(
    ("op", "given", "outputs", "how"),
    [
        ("LayerNormalization", [np.ones((6, 6), np.float32)], 2, {"axis": 2}),
        ("Dropout", [], 2, {}),
        ("MaxPool", [], 2, {"kernel_shape": [2, 2]}),
    ],
)
def test_what_nobody_wants_goes_with_outputs_that_nobody_reads(
    op: str, given: list[np.ndarray[Any, Any]], outputs: int, how: dict[str, Any]
) -> None:
    net = Net(17, x=[1, 3, 6, 6])
    trunk = net("Conv", "x", net.random(WIDTH, 3, 1, 1), name="trunk")
    idle = net("Conv", trunk, net.random(8, WIDTH, 1, 1), name="idle")
    net.nodes_of(op, idle, *given, name="last", outputs=outputs, **how)
    for strategy in STRATEGIES:
        result = onnx_upscale.optimize(net.model(net("Relu", trunk)), strategy=strategy)
        assert not {node.name for node in result.model.graph.node} & {"idle", "last"}


def test_for_a_single_reader_channels_stay_in_their_order() -> None:
    pruned = list(range(0, WIDTH, 3))
    plan = onnx_upscale.analyze(branched(2), masks_of({"r0": pruned})).plan("auto", "cpu-avx512")
    rest = [channel for channel in range(WIDTH) if channel not in pruned]
    assert plan.readers[2].here.tolist() == pruned + rest


def test_the_program_reads_no_part_of_a_concat_that_is_empty() -> None:
    net = Net(17, x=(1, 8, 4, 4))
    made = net("Conv", "x", net.random(8, 8, 1, 1))
    one, other = net.nodes_of("Split", made, net.ints(4, 4), outputs=2, axis=1)
    whole = net("Concat", net("Relu", one), other, axis=1)
    model = net.model(net("Conv", whole, net.constant(net.random(4, 8, 1, 1), "w")))
    plan = onnx_upscale.analyze(model, masks_of({"w": [4, 5, 6, 7]})).plan("gather", "cpu-avx512")
    (concat,) = (step for step in plan.program.steps if step.op == "Concat")
    assert len(concat.inputs) == 1
