"""Convolutions that are computed in two parts: whole blocks of what they read, and the rest."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

import onnx_upscale
from build import Net, assert_close, input_values, run
from onnx_upscale.optimizer.analyze import Structure, analyze, find_structure
from onnx_upscale.optimizer.apply import apply
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.plan import Plan, PlanError, SelectParts, check_plan, plan
from onnx_upscale.optimizer.plan.cost import Costs
from onnx_upscale.prices import CopyWork, Kernel, LayerWork, load_prices
from targets import TARGETS

# Blocks of 4, so that five channels take as long as eight, and copies cost nothing.
FREE = TARGETS["copies free, align 2"]
WIDTH, SIDE = 8, 6
SIDE_MADE = SIDE - 2  # Windows of 3 x 3, without padding.


def two_readers(
    opset: int = 17, behind: str = "Relu", plain: bool = False, **attributes: Any
) -> Any:
    """Two convolutions `a` and `b` that read what one makes; `behind` stands behind `a`."""
    net: Any = Net(opset, x=[1, 3, SIDE, SIDE])
    made = net("Relu", net("Conv", "x", net.random(WIDTH, 3, 1, 1), net.random(WIDTH)))
    ends = [net("ReduceMean", made, axes=[2])] if plain else []
    for name in "ab":
        weight = net.constant(net.random(8, WIDTH, 3, 3), name)
        ends.append(net("Conv", made, weight, net.random(8), name=name, **attributes))
    constants = [net.random(8, 1, 1)] if behind in ("Add", "Mul") else []
    if behind == "BatchNormalization":
        constants = [net.random(8) for _ in range(3)] + [np.ones(8, np.float32)]
    if behind:
        ends[-2] = net(behind, ends[-2], *constants)
    return net.model(*ends)


def masks_of(**sides: list[int]) -> dict[str, Any]:
    return {"version": 1, "masks": {key: {"input": pruned} for key, pruned in sides.items()}}


# Of eight channels `a` needs five, and `b` the other three and some of those.
MASKS = masks_of(a=[1, 4, 6], b=[0, 2])


def readings(report: Any) -> dict[str, str]:
    return {
        reader["node"]: reader["realization"]
        for segment in report["segments"]
        for reader in segment["readers"]
    }


def planned(model: onnx.ModelProto, masks: dict[str, Any] = MASKS, target: str = FREE) -> Plan:
    return plan(analyze(load(model, masks).graph), "auto", load_prices(target))


def structure_of(model: onnx.ModelProto) -> Structure:
    return find_structure(load(model).graph)


@pytest.mark.parametrize("opset", [7, 9, 10, 13, 17, 21])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2, 1], "pads": [1, 2, 0, 1]},
        {"dilations": [2, 2]},
        {"auto_pad": "SAME_UPPER"},
    ],
)
def test_the_sum_of_both_parts_is_the_layer(opset: int, attributes: dict[str, Any]) -> None:
    result = onnx_upscale.optimize(two_readers(opset, **attributes), MASKS, target=FREE)
    assert readings(result.report)["a"] == "parts"
    assert result.report.verify.ok
    weights = {t.name: numpy_helper.to_array(t) for t in result.model.graph.initializer}
    layers = [node for node in result.model.graph.node if node.op_type == "Conv"]
    assert sorted(weights[node.input[1]].shape[1] for node in layers) == [1, 2, 3, 4, 4]
    assert [len(node.input) for node in layers].count(2) == 2  # A bias is added once.


def test_masks_are_what_counts_not_the_parts() -> None:
    """Against a model whose weights are zeroed by hand, without the package's verification."""
    model = two_readers()
    result = onnx_upscale.optimize(model, MASKS, target=FREE, verify=False)
    for tensor in model.graph.initializer:
        if tensor.name in "ab":
            values = numpy_helper.to_array(tensor).copy()
            values[:, MASKS["masks"][tensor.name]["input"]] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    inputs = input_values(model, seed=3)
    assert_close(run(model, inputs), run(result.model, inputs))


def test_the_program_of_a_plan_is_that_of_the_emitted_model() -> None:
    prices, own = load_prices(FREE), planned(two_readers())
    assert "parts" in {reading.name for reading in own.readers.values()}
    again = analyze(load(apply(own).model).graph)
    everything = again.keeping(np.arange(len(again.structure.roots)))
    emitted = plan(dataclasses.replace(again, needs=everything), "gather", prices)
    assert Counter(own.kernels) == Counter(emitted.kernels)
    families = Counter(kernel.family for kernel in own.kernels)
    assert families["few"] == families["direct"] == 2
    assert "binary" not in families  # The sum is a part of the second convolution.


@pytest.mark.parametrize("behind", ["Add", "Mul", "BatchNormalization"])
def test_what_would_be_fused_into_the_layer_is_not_kept_from_it(behind: str) -> None:
    report = onnx_upscale.optimize(two_readers(behind=behind), MASKS, target=FREE).report
    assert readings(report)["a"] != "parts"
    assert readings(report)["b"] == "parts"


def single(weight: Any, **attributes: Any) -> Any:
    net: Any = Net(17, x=[1, WIDTH, *[SIDE] * (np.ndim(weight) - 2)])
    return net.model(net("Relu", net("Conv", "x", weight, **attributes)))


def test_layers_that_have_no_parts() -> None:
    weight = np.ones((4, WIDTH, 3, 3), np.float32)
    assert structure_of(single(weight)).parted
    assert not structure_of(single(weight[:, :, :1, :1])).parted
    assert not structure_of(single(weight[:, :4], group=2)).parted
    assert not structure_of(single(weight[..., 0])).parted
    net: Any = Net(17, x=[1, WIDTH, SIDE, SIDE])
    stored = net("DequantizeLinear", weight.astype(np.int8), np.float32(1), np.int8(0))
    assert not structure_of(net.model(net("Conv", "x", stored))).parted


@pytest.mark.parametrize("target", ["one layout", "copies free, blocks of 1"])
def test_there_are_none_without_blocks(target: str) -> None:
    report = onnx_upscale.optimize(two_readers(), MASKS, target=TARGETS[target]).report
    assert "parts" not in readings(report).values()


@pytest.mark.parametrize("strategy", ["gather", "upscale", "constrained"])
def test_only_auto_has_parts(strategy: str) -> None:
    report = onnx_upscale.optimize(two_readers(), MASKS, strategy=strategy, target=FREE).report
    assert "parts" not in readings(report).values()


def test_whole_blocks_have_no_rest() -> None:
    report = onnx_upscale.optimize(
        two_readers(), masks_of(a=[1, 4, 6, 7], b=[0, 2]), target=FREE
    ).report
    assert readings(report)["a"] in ("gather", "slice")


def test_half_precision_has_one_layout() -> None:
    net: Any = Net(17, x=[1, 3, SIDE, SIDE])
    data = net("Cast", "x", to=TensorProto.FLOAT16)
    made = net("Relu", net("Conv", data, net.random(WIDTH, 3, 1, 1).astype(np.float16)))
    ends = [
        net("Conv", made, net.constant(net.random(8, WIDTH, 3, 3).astype(np.float16), name))
        for name in "ab"
    ]
    report = onnx_upscale.optimize(net.model(*ends), MASKS, target=FREE).report
    assert "parts" not in readings(report).values()


def test_readers_of_the_same_weight_and_channels() -> None:
    """Both have the same parts of the same copies, and the weight is stored once per part."""
    net: Any = Net(17, x=[1, 3, SIDE, SIDE])
    made = net("Relu", net("Conv", "x", net.random(WIDTH, 3, 1, 1)))
    tied, other = (net.constant(net.random(8, WIDTH, 3, 3), name) for name in ("tied", "other"))
    ends = [net("Conv", made, tied, pads=[p] * 4) for p in (0, 1)] + [net("Conv", made, other)]
    masks = masks_of(tied=[1, 4, 6], other=[0, 2])
    result = onnx_upscale.optimize(net.model(*ends), masks, target=FREE)
    assert Counter(readings(result.report).values())["parts"] == 3
    assert result.report.verify.ok
    copies = [n for n in result.model.graph.node if n.op_type in ("Gather", "Slice")]
    assert len(copies) == 4


def test_channels_of_a_known_value_are_added_once() -> None:
    """What a layer absorbs of constants goes into its bias, or behind both parts."""
    net: Any = Net(17, x=[1, 3, SIDE, SIDE])
    weight = net.constant(net.random(WIDTH, 3, 1, 1), "w")
    made = net("Sigmoid", net("Conv", "x", weight))
    ends = [
        net("Relu", net("Conv", made, net.constant(net.random(8, WIDTH, 3, 3), n))) for n in "ab"
    ]
    masks = {"w": {"output": [3]}, **MASKS["masks"]}
    result = onnx_upscale.optimize(net.model(*ends), {"version": 1, "masks": masks}, target=FREE)
    assert result.report.verify.ok
    assert "parts" in readings(result.report).values()


def test_prices_decide() -> None:
    """On small images copies cost more than they save."""
    report = onnx_upscale.optimize(two_readers(), MASKS, target="cpu-avx512").report
    assert "parts" not in readings(report).values()


@pytest.mark.parametrize(("needed", "chosen"), [(34, "parts"), (47, "zero-fill"), (48, "whole")])
def test_few_channels_beyond_whole_blocks_make_a_part(needed: int, chosen: str) -> None:
    """A layer of squeezenet: 34 channels take as long as 48, 32 and 2 do not."""
    net: Any = Net(17, x=[1, 16, 56, 56])
    made = net("Relu", net("Conv", "x", net.random(48, 16, 1, 1)))
    weights = [net.constant(net.random(w, 48, 3, 3), n) for n, w in (("a", 136), ("b", 16))]
    model = net.model(*(net("Relu", net("Conv", made, each)) for each in weights))
    own = planned(model, masks_of(a=list(range(needed, 48)), b=[0]), "cpu-avx512")
    assert next(r.name for r in own.readers.values() if r.read.layer.outputs == 136) == chosen


@pytest.mark.parametrize("behind", ["Relu", "LeakyRelu"])
@pytest.mark.parametrize("plain", [False, True])
def test_what_parts_cost(plain: bool, behind: str) -> None:
    """Both layers, a pass to add up, one to bound values, and copies of what is reordered once."""
    prices = load_prices("cpu-avx512")
    model = two_readers(behind=behind, plain=plain)
    own = next(r for r in planned(model).readers.values() if r.name == "parts" and r.needed == 5)
    places, bounded = SIDE_MADE**2, behind == "LeakyRelu"
    work = LayerWork(False, 4, 8, places, 9, 4, 1, bounded=bounded)
    wanted = prices.layer(work) + prices.layer(work._replace(inputs=1, bounded=False))
    wanted += prices.kernel(Kernel("fused", 8, 8, places))
    copies = (
        prices.copy(CopyWork(8, count, SIDE**2, True, False, 4, reordered))
        for count, reordered in ((4, 0 if plain else None), (1, 0))
    )
    costs = Costs(structure_of(model), prices)
    assert own.seconds(costs, 8) == pytest.approx(wanted + sum(copies))


def test_a_part_without_a_channel_is_refused() -> None:
    own = planned(two_readers())
    check_plan(own)
    for first in (0, 5):
        edits = {
            index: tuple(
                dataclasses.replace(edit, first=first) if isinstance(edit, SelectParts) else edit
                for edit in each
            )
            for index, each in own.edits.items()
        }
        with pytest.raises(PlanError, match="a part without a channel"):
            check_plan(dataclasses.replace(own, edits=edits))
