"""Copies that move before the nodes between a tensor of several readers and one of them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import onnx_upscale
from build import Net
from onnx_upscale.optimizer.analyze import Structure, analyze, find_structure
from onnx_upscale.optimizer.apply import apply
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.plan import plan
from onnx_upscale.prices import load_prices
from targets import TARGETS

COPIES_PAY = TARGETS["multiply-adds dear, blocks of 1"]
SIDE = 6


def normalized(net: Any, data: str, channels: int, epsilon: float = 1e-5) -> str:
    values = [net.random(channels) for _ in range(3)]
    spread = np.linspace(0.01, 1.0, channels, dtype=np.float32)
    return str(net("BatchNormalization", data, *values, spread, epsilon=epsilon))


def layer(net: Any, data: str, inputs: int, outputs: int, name: str) -> str:
    weight = net.constant(net.random(outputs, inputs, 1, 1), name)
    return str(net("Conv", data, weight, net.random(outputs)))


def dense(layers: int = 3, growth: int = 8, epsilon: float = 1e-5, opset: int = 17) -> Any:
    """A block in which every layer `r{i}` reads all that those before it made."""
    net: Any = Net(opset, x=[1, 3, SIDE, SIDE])
    parts = [net("MaxPool", layer(net, "x", 3, growth, "w"), kernel_shape=[1, 1])]
    for number in range(layers):
        width = growth * len(parts)
        whole = net("Concat", *parts, axis=1) if number else parts[0]
        data = net("Relu", normalized(net, whole, width, epsilon))
        parts.append(layer(net, data, width, growth, f"r{number}"))
    return net.model(layer(net, net("Concat", *parts, axis=1), width + growth, 4, "last"))


def gated(net: Any, data: str, channels: int, gate: str) -> str:
    """What squeeze-and-excite does to a tensor."""
    mean = net("GlobalAveragePool", data)
    small = net("Relu", layer(net, mean, channels, 4, f"{gate}.squeeze"))
    factors = net("Sigmoid", layer(net, small, 4, channels, gate))
    return str(net("Mul", factors, data))


def with_gate(channels: int = 16) -> Any:
    net: Any = Net(17, x=[1, 3, SIDE, SIDE])
    made = net("Relu", layer(net, "x", 3, channels, "w"))
    return net.model(layer(net, gated(net, made, channels, "gate"), channels, 8, "r"))


def masks_of(**sides: list[int]) -> dict[str, Any]:
    return {"version": 1, "masks": {key: {"input": pruned} for key, pruned in sides.items()}}


def readings(report: Any) -> dict[str, str]:
    return {
        reader["node"]: reader["realization"]
        for segment in report["segments"]
        for reader in segment["readers"]
    }


def structure_of(model: onnx.ModelProto) -> Structure:
    return find_structure(load(model).graph)


def approaches(model: onnx.ModelProto) -> list[list[str]]:
    """What works for one reader alone, by operator, for those readers that have such nodes."""
    return [[node.op for node in each.nodes] for each in structure_of(model).approaches.values()]


DENSE_MASKS = masks_of(r1=[0, 3, 9, 12], r2=[1, 2, 8, 14, 17, 20])


def test_a_dense_block_copies_right_behind_its_concats() -> None:
    result = onnx_upscale.optimize(dense(), DENSE_MASKS, target=COPIES_PAY)
    assert Counter(readings(result.report).values())["moved"] == 2
    assert result.report["copies"]["count"] == 2
    nodes = result.model.graph.node
    makers = {name: node for node in nodes for name in node.output}
    for copy in (node for node in nodes if node.op_type == "Gather"):
        concat = makers[copy.input[0]]
        # Counted from the end, so that onnxruntime does not concatenate blocks.
        assert concat.op_type == "Concat"
        assert [a.i for a in concat.attribute if a.name == "axis"] == [-3]
        (scales,) = (node for node in nodes if copy.output[0] in node.input)
        assert scales.op_type == "Conv"
        group = next(a.i for a in scales.attribute if a.name == "group")
        weights = {t.name: numpy_helper.to_array(t) for t in result.model.graph.initializer}
        assert weights[scales.input[1]].shape == (group, 1, 1, 1)
        assert group == len(weights[copy.input[1]])
    assert result.report["verify"]["ok"]


@pytest.mark.parametrize(("opset", "negative"), [(10, False), (11, True)])
def test_axes_count_from_the_end_where_operators_know_that(opset: int, negative: bool) -> None:
    result = onnx_upscale.optimize(dense(opset=opset), DENSE_MASKS, target=COPIES_PAY)
    assert "moved" in readings(result.report).values()
    axes = [
        attribute.i
        for node in result.model.graph.node
        if node.op_type == "Concat"
        for attribute in node.attribute
    ]
    assert (min(axes) < 0) == negative


def test_the_smallest_spread_of_a_normalization_counts() -> None:
    result = onnx_upscale.optimize(dense(epsilon=0.5), DENSE_MASKS, target=COPIES_PAY)
    assert "moved" in readings(result.report).values()
    assert result.report["verify"]["ok"]


def test_a_gate_makes_no_factors_for_channels_that_go() -> None:
    masks = {**masks_of(r=[0, 3, 6, 9])["masks"], **masks_of(**{"gate.squeeze": [1, 2]})["masks"]}
    result = onnx_upscale.optimize(with_gate(), {"version": 1, "masks": masks}, target=COPIES_PAY)
    assert "moved" in readings(result.report).values()
    shapes = {t.name: list(t.dims) for t in result.model.graph.initializer}
    assert shapes["gate"][0] == shapes["r"][1] == 12
    writers = {
        writer["node"]: writer["channels"]
        for segment in result.report["segments"]
        for writer in segment["writers"]
    }
    assert sorted(writers.values())[-2:] == [12, 16]
    assert result.report["verify"]["ok"]


@pytest.mark.parametrize("target", ["multiply-adds dear, blocks of 1", "one layout"])
@pytest.mark.parametrize(
    ("model", "masks"), [(dense(), DENSE_MASKS), (with_gate(), masks_of(r=[0, 3, 6, 9]))]
)
def test_the_program_of_a_plan_is_that_of_the_emitted_model(
    model: onnx.ModelProto, masks: dict[str, Any], target: str
) -> None:
    prices = load_prices(TARGETS[target])
    planned = plan(analyze(load(model, masks).graph), "auto", prices)
    assert "moved" in {reading.name for reading in planned.readers.values()}
    again = analyze(load(apply(planned).model).graph)
    everything = again.keeping(np.arange(len(again.structure.roots)))
    emitted = plan(dataclasses.replace(again, needs=everything), "gather", prices)
    assert Counter(planned.kernels) == Counter(emitted.kernels)


def test_a_copy_stays_where_moving_it_saves_nothing() -> None:
    """Where copies cost nothing at all, what comes before a reader is free as well."""
    report = onnx_upscale.optimize(
        dense(), DENSE_MASKS, target=TARGETS["copies free, blocks of 1"]
    ).report
    assert {"gather", "slice"} & set(readings(report).values())
    assert "moved" not in readings(report).values()


@pytest.mark.parametrize("strategy", ["gather", "upscale", "constrained"])
def test_only_auto_moves_copies(strategy: str) -> None:
    report = onnx_upscale.optimize(
        dense(), DENSE_MASKS, strategy=strategy, target=COPIES_PAY
    ).report
    assert "moved" not in readings(report).values()


def test_with_one_layout_nothing_is_written_otherwise() -> None:
    result = onnx_upscale.optimize(dense(), DENSE_MASKS, target=TARGETS["one layout"])
    assert "moved" in readings(result.report).values()
    ops = Counter(node.op_type for node in result.model.graph.node)
    assert ops["BatchNormalization"] == 3
    axes = {a.i for n in result.model.graph.node if n.op_type == "Concat" for a in n.attribute}
    assert axes == {1}


@pytest.mark.parametrize("flat", ["Flatten", "Squeeze", "Reshape"])
def test_what_scales_rows_is_no_convolution(flat: str) -> None:
    """A BatchNormalization behind images that were pooled to rows."""
    net: Any = Net(17, x=[2, 3, SIDE, SIDE])
    made = net("GlobalAveragePool", trunk(net))
    given = {"Squeeze": [net.ints(2, 3)], "Reshape": [net.ints(0, -1)]}
    rows = normalized(net, net(flat, made, *given.get(flat, [])), 8)
    net.others.append(net("Sigmoid", made))
    last = net("Gemm", rows, net.constant(net.random(4, 8), "r"), net.random(4), transB=1)
    model, masks = net.model(last, *net.others), masks_of(r=[0, 3, 5], other=[1, 2])
    result = onnx_upscale.optimize(model, masks, target=COPIES_PAY)
    assert "moved" in readings(result.report).values()
    assert result.report["verify"]["ok"]


def trunk(net: Any, channels: int = 8) -> str:
    """A tensor that somebody else reads as well."""
    made = net("MaxPool", layer(net, "x", 3, channels, "w"), kernel_shape=[1, 1])
    net.others = [layer(net, made, channels, 4, "other")]
    return str(made)


def ending(net: Any, data: str, channels: int = 8) -> Any:
    return net.model(layer(net, data, channels, 4, "r"), *net.others)


def start() -> tuple[Any, str]:
    net: Any = Net(17, x=[1, 3, SIDE, SIDE])
    return net, trunk(net)


def test_an_approach_ends_where_somebody_else_reads() -> None:
    net, data = start()
    first = net("Relu", data)
    net.others.append(layer(net, first, 8, 4, "another"))
    assert approaches(ending(net, net("Sigmoid", net("Exp", first)))) == [["Exp", "Sigmoid"]]


def test_a_tensor_read_twice_by_the_same_approach() -> None:
    net, data = start()
    model = ending(net, net("Mul", net("Sigmoid", data), data))
    ((found),) = structure_of(model).approaches.values()
    assert [node.op for node in found.nodes] == ["Sigmoid", "Mul"]
    assert found.source == data and len(found.edges) == 2


def test_no_more_than_one_tensor_is_copied() -> None:
    net, data = start()
    other = trunk(net)
    assert approaches(ending(net, net("Relu", net("Add", data, other)))) == [["Relu"]]


@pytest.mark.parametrize(
    "node",
    [
        lambda net, data: net("MaxPool", data, kernel_shape=[3, 3], pads=[1] * 4),
        lambda net, data: net("ReduceMean", data, axes=[2], keepdims=1),
        lambda net, data: net("Conv", data, net.random(8, 1, 3, 3), group=8, pads=[1] * 4),
        lambda net, data: net("Softmax", data, axis=1),
        lambda net, data: net("Slice", data, *map(net.ints, [0], [6], [1])),
        lambda net, data: net("Transpose", data, perm=[0, 1, 3, 2]),
        lambda net, data: net("Expand", data, net("Shape", data)),
        lambda net, data: net("Mul", data, net("ReduceMean", data, axes=[1], keepdims=1)),
    ],
    ids=["pools", "larger", "layer", "mixes", "counts", "moves", "is told sizes", "reads others"],
)
def test_nodes_that_copies_do_not_pass(node: Any) -> None:
    net, data = start()
    made = node(net, data)
    channels = 6 if net.nodes[-1].op_type == "Slice" else 8
    assert approaches(ending(net, made, channels)) == []


def test_nothing_moves_between_a_layer_and_what_it_takes_over() -> None:
    net: Any = Net(17, x=[1, 3, SIDE, SIDE])
    assert (
        approaches(net.model(layer(net, net("Relu", layer(net, "x", 3, 8, "w")), 8, 4, "r"))) == []
    )


def test_outputs_of_the_model_are_read_by_others() -> None:
    net, data = start()
    middle = net("Relu", data)
    net.others.append(middle)
    assert approaches(ending(net, net("Exp", middle))) == [["Exp"]]


def test_what_is_fresh_in_a_concat() -> None:
    """Two parts are read by three Concats each, the third by two."""
    found = structure_of(dense(3)).approaches
    fresh = [each.fresh for each in found.values()]
    assert fresh == pytest.approx([1.0, 1 / 3, (1 / 3 + 1 / 3 + 1 / 2) / 3])


_STEPS: dict[str, Callable[..., Any]] = {
    "relu": lambda net, data, channels: net("Relu", data),
    "normalize": normalized,
    "exp": lambda net, data, channels: net("Exp", net("Clip", data, np.float32(-3), np.float32(1))),
    "silu": lambda net, data, channels: net("Mul", data, net("Sigmoid", data)),
    "shift": lambda net, data, channels: net("Add", data, net.random(1, channels, 1, 1)),
    "slope": lambda net, data, channels: net("PRelu", data, net.random(channels, 1, 1)),
    "gate": lambda net, data, channels: gated(net, data, channels, f"g{len(net.nodes)}"),
    "upsample": lambda net, data, channels: net(
        "Resize", data, "", np.array([1, 1, 2, 2], np.float32), mode="nearest"
    ),
}
steps = st.lists(st.sampled_from(sorted(_STEPS)), min_size=1, max_size=4)


def block(kinds: list[list[str]], widths: list[int], opset: int) -> Any:
    """Layers that read what those before made, each through steps of its own."""
    net: Any = Net(opset, x=[2, 3, SIDE, SIDE])
    parts = [layer(net, "x", 3, widths[0], "w")]
    ends = []
    for number, own in enumerate(kinds):
        width = sum(widths[: len(parts)])
        data = net("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]
        for kind in own:
            data = _STEPS[kind](net, data, width)
        ends.append(layer(net, data, width, 3, f"e{number}"))
        made = net("Relu", net("Concat", *parts, axis=1) if len(parts) > 1 else parts[0])
        parts.append(layer(net, made, width, widths[len(parts)], f"r{number}"))
    return net.model(*ends, *parts[1:])


@settings(max_examples=40, deadline=None)
@given(
    kinds=st.lists(steps, min_size=1, max_size=3),
    widths=st.lists(st.integers(2, 9), min_size=4, max_size=4),
    seed=st.integers(0, 2**16),
    opset=st.sampled_from([13, 17, 21]),
    target=st.sampled_from(["multiply-adds dear, blocks of 1", "one layout", "as built in"]),
)
def test_moved_copies_change_nothing(
    kinds: list[list[str]], widths: list[int], seed: int, opset: int, target: str
) -> None:
    rng = np.random.default_rng(seed)
    model = block(kinds, widths, opset)
    masks = {}
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 4 and tensor.name[0] in "erg" and tensor.dims[1] > 1:
            count = int(rng.integers(tensor.dims[1]))
            masks[tensor.name] = {"input": rng.permutation(tensor.dims[1])[:count].tolist()}
    report = onnx_upscale.optimize(
        model, {"version": 1, "masks": masks}, target=TARGETS[target], samples=1
    ).report
    assert report["verify"]["ok"]
