"""Multiply-adds: at which sizes they are counted, and when a model runs for that."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import onnx_upscale
from build import Net, bare, input_values, run
from onnx_upscale.optimizer.load import load, witness
from onnx_upscale.optimizer.load.shapes import Inferred, infer
from onnx_upscale.stats import measure


def test_multiply_adds_at_given_sizes() -> None:
    net = Net(11, x=("n", "s", 8))
    size = net("Unsqueeze", net("Gather", net("Shape", "x"), np.array(1, np.int64)), axes=[0])
    turned = net("Reshape", "x", net("Concat", net.ints(-1), size, net.ints(4), axis=0))
    made = net("MatMul", turned, net.random(4, 3))
    model = bare(net, made)
    assert measure(model, {"x": (2, 5, 8)}, runs=False).macs == 4 * 5 * 4 * 3
    assert measure(model, {}, runs=False).macs == 0


def test_multiply_adds_that_only_a_run_shows() -> None:
    net = Net(17, x=("n", 4))
    found = net("Transpose", net("NonZero", net("Abs", "x")))
    made = net("MatMul", net("Cast", found, to=TensorProto.FLOAT), net.random(2, 3))
    model = bare(net, made)
    assert measure(model, {"x": (5, 4)}).macs == 20 * 2 * 3
    assert measure(model, {"x": (5, 4)}, runs=False).macs == 0


def test_multiply_adds_are_compared_where_as_much_is_found() -> None:
    """With masks a detector finds another number of things: here fewer rows that exceed a bound."""
    net = Net(17, x=(40, 4))
    scores = net("Relu", net("MatMul", "x", net.random(4, 6), name="first"))
    rows = net("Greater", net("ReduceSum", scores, net.ints(1), keepdims=0), np.float32(2))
    found = net("Gather", scores, net("Squeeze", net("NonZero", rows), net.ints(0)), axis=0)
    model = bare(net, net("MatMul", found, net.random(6, 3), name="second"))
    masks = {"version": 1, "masks": {"first": {"output": [0, 2, 3]}}}
    result = onnx_upscale.optimize(model, masks)
    (before,), (after,) = (run(each, input_values(each, seed=0)) for each in (model, result.model))
    assert len(after) < len(before)
    assert result.report.output.macs == 40 * 4 * 3 + len(after) * 3 * 3
    assert result.report.input.macs == 40 * 4 * 6 + len(after) * 6 * 3


def test_multiply_adds_of_a_known_model_take_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witness, "_Probe", lambda *_: pytest.fail("nothing needs a run"))
    net = Net(17, x=("n", 4))
    assert measure(bare(net, net("MatMul", "x", net.random(4, 3))), {"x": (5, 4)}).macs == 60


@pytest.mark.parametrize(("batch", "fixed"), [(5, True), ("n", False)])
def test_shapes_that_were_found_before_do_where_no_size_is_open(
    batch: int | str, fixed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Net(17, x=(batch, 4))
    model = bare(net, net("MatMul", net("Relu", "x"), net.random(4, 3)))
    tensors = load(model).graph.tensors
    assert tensors.shapes
    asked: list[onnx.ModelProto] = []

    def inferred(slim: onnx.ModelProto) -> Inferred:
        asked.append(slim)
        return infer(slim)

    monkeypatch.setattr("onnx_upscale.stats.infer", inferred)
    assert measure(model, {"x": (5, 4)}, known=tensors).macs == 60
    assert bool(asked) != fixed
