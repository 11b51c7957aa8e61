"""Weights that a model computes from constants: standardized, as exporters write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import Array, Net, assert_close, input_values, run, weight_shape

FORMS = ("training-9", "training-13", "training-15", "given-17", "by-hand-17")
EPSILON = 1e-5


def standardized(net: Net, form: str, weight: Array, gain: Array) -> str:
    """The nodes that make a weight of zero mean and a variance of `gain` squared."""
    outputs = len(weight)
    zero, one = np.zeros(outputs, np.float32), np.ones(outputs, np.float32)
    if form.startswith("by-hand"):
        mean = net("ReduceMean", weight, axes=[1, 2, 3])
        moved = net("Sub", weight, mean)
        variance = net("ReduceMean", net("Mul", moved, moved), axes=[1, 2, 3])
        root = net("Sqrt", net("Add", variance, np.float32(EPSILON)))
        return net("Mul", net("Div", moved, root), gain.reshape(-1, 1, 1, 1))
    flat = net("Reshape", weight, net.ints(1, outputs, -1))
    how: dict[str, Any] = {"epsilon": EPSILON, "momentum": 1.0}
    if form.startswith("given"):
        rows = weight.reshape(outputs, -1)
        normed = net("BatchNormalization", flat, gain, zero, rows.mean(1), rows.var(1), **how)
    elif net.opset < 14:
        normed, *_ = net.nodes_of(
            "BatchNormalization", flat, gain, zero, zero, one, outputs=5, **how
        )
    else:
        how["training_mode"] = 1
        normed, *_ = net.nodes_of(
            "BatchNormalization", flat, gain, zero, zero, one, outputs=3, **how
        )
    return net("Reshape", normed, net.ints(*weight.shape))


def build(form: str, gone: Mapping[str, Sequence[int]], written: bool) -> onnx.ModelProto:
    """Two layers; their weights are computed, or written down as numpy computes them."""
    net = Net(int(form.split("-")[-1]), x=(2, 3, 6, 6))
    tensor = "x"
    for name, outputs, inputs in (("first", 16, 3), ("second", 8, 16), ("third", 4, 8)):
        weight, gain = net.random(outputs, inputs, 3, 3), np.abs(net.random(outputs)) + 0.5
        rows = weight.astype(np.float64).reshape(outputs, -1)
        rows = (rows - rows.mean(1, keepdims=True)) / np.sqrt(rows.var(1, keepdims=True) + EPSILON)
        full = (rows * gain[:, np.newaxis]).reshape(weight.shape).astype(np.float32)
        full[:, list(gone.get(name, ()))] = 0
        source = full if written else standardized(net, form, weight, gain)
        tensor = net("Relu", net("Conv", tensor, source, name=name, pads=[1, 1, 1, 1]))
    return net.model(tensor)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("strategy", ["auto", "gather"])
def test_channels_leave_as_from_a_plain_model(form: str, strategy: str) -> None:
    gone = {"second": [0, 3, 4, 9, 10, 11, 12, 15], "third": [1, 2, 5, 6]}
    masks = {"version": 1, "masks": {name: {"input": pruned} for name, pruned in gone.items()}}
    model = build(form, {}, written=False)
    result = onnx_upscale.optimize(model, masks, strategy=strategy)
    assert result.report["verify"]["ok"]
    inputs = input_values(model)
    assert_close(run(build(form, gone, written=True), inputs), run(result.model, inputs))
    made = [weight_shape(result.model, name)[:2] for name in ("first", "second", "third")]
    assert made == [(8, 3), (4, 8), (4, 4)]
    assert {node.op_type for node in result.model.graph.node} == {"Conv", "Relu"}
