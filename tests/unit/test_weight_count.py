"""Weights that are left: what a plan promises is what is emitted, and of the model as it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnx_upscale
from build import Net
from mask_document import document
from onnx_upscale.optimizer.analyze import analyze
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.plan import plan
from onnx_upscale.prices import load_prices
from onnx_upscale.pruning.gauge import gauge_of

SAMPLES = {"x": np.random.default_rng(1).standard_normal((48, 16)).astype(np.float32)}
COUNT = 6


def weights(model: onnx.ModelProto) -> int:
    return sum(numpy_helper.to_array(tensor).size for tensor in model.graph.initializer)


def shared() -> onnx.ModelProto:
    """Layers that all have the same weight and bias, and a last one that does not."""
    net = Net(17, x=["n", 16])
    weight, bias = net.constant(net.random(16, 16) / 4, "w"), net.constant(net.random(16), "b")
    data = "x"
    for number in range(COUNT):
        made = net("MatMul", data, weight, name=f"layer{number}")
        data = net("Relu", net("Add", made, bias))
    return net.model(net("MatMul", data, net.constant(net.random(16, 5), "last"), name="end"))


def seen_by_others() -> onnx.ModelProto:
    """A weight that a node reads besides of which nobody knows what it does."""
    net = Net(17, x=["n", 16])
    weight = net.constant(net.random(16, 16), "w")
    data = net("Relu", net("MatMul", "x", net.random(16, 16), name="first"))
    made = net("MatMul", data, weight, name="second")
    return net.model(net("Add", made, net("ReduceSum", net("Sin", weight), keepdims=0)))


def tied() -> onnx.ModelProto:
    """Embeddings whose table is the last layer's weight, turned over."""
    net = Net(17, x=["n", 16])
    table = net.constant(net.random(10, 16), "table")
    ids = net("Cast", net("ReduceMean", "x", axes=[1], keepdims=0), to=onnx.TensorProto.INT64)
    found = net("Gather", table, net("Clip", ids, np.int64(0), np.int64(9)), name="embedding")
    made = net("MatMul", net("Relu", found), net.random(16, 16), name="middle")
    return net.model(net("MatMul", made, net("Transpose", table, perm=[1, 0]), name="head"))


def grouped() -> onnx.ModelProto:
    net = Net(17, x=["n", 16, 5, 5])
    data = net("Relu", net("Conv", "x", net.random(16, 16, 1, 1), net.random(16), name="first"))
    data = net("Conv", data, net.random(16, 4, 3, 3), name="groups", group=4)
    return net.model(net("Conv", net("Relu", data), net.random(6, 16, 1, 1), name="last"))


def _cases() -> Iterator[Any]:
    # With their masks none of the layers that share a weight gets another one.
    yield pytest.param(shared(), {}, id="shared, none masked")
    yield pytest.param(shared(), {"end.input": (1, 4, 5)}, id="shared, masked at its end")
    yield pytest.param(shared(), {"layer3.input": (1, 2)}, id="shared, one of its own")
    yield pytest.param(seen_by_others(), {"second.input": (1, 7)}, id="seen by others")
    yield pytest.param(tied(), {}, id="tied, none masked")
    yield pytest.param(tied(), {"middle.input": (3, 4, 5)}, id="tied")
    both = {"middle.input": (3, 4, 5), "middle.output": (3, 4, 5)}
    yield pytest.param(tied(), both, id="tied, cut alike")
    wide = {"groups.input": (0, 1, 5, 6, 9, 10, 13, 14)}
    yield pytest.param(grouped(), wide, id="as many of every group")
    yield pytest.param(grouped(), {"groups.input": (0, 1, 2, 3)}, id="a group")


@pytest.mark.parametrize(("model", "pruned"), list(_cases()))
def test_a_plan_promises_what_is_emitted(model: onnx.ModelProto, pruned: dict[str, Any]) -> None:
    masks = document(pruned)
    analysis, prices = analyze(load(model, masks).graph), load_prices("cpu-avx2")
    gauge = gauge_of("params", analysis.structure, prices)
    emitted = onnx_upscale.optimize(model, masks, strategy="gather").model
    copied = [
        tensor
        for tensor in emitted.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT64 and len(tensor.dims) == 1
    ]
    added = sum(numpy_helper.to_array(tensor).size for tensor in copied)  # Places to gather.
    assert gauge.total(plan(analysis, "gather", prices)) == weights(emitted) - added


def test_what_is_repaired_is_no_longer_shared() -> None:
    net = Net(17, x=["n", 16])
    data, weight = (
        net("Relu", net("MatMul", "x", net.random(16, 16))),
        net.constant(net.random(16, 8)),
    )
    one, two = (net("MatMul", data, weight, name=name) for name in ("one", "two"))
    model = net.model(net("Sub", one, net("Relu", two)))
    masks = document({"one.input": (2, 5), "two.input": (2, 5)})
    analysis, prices = analyze(load(model, masks).graph), load_prices("cpu-avx2")
    promised = gauge_of("params", analysis.structure, prices).total(plan(analysis, "auto", prices))
    repaired = onnx_upscale.recover(model, masks, SAMPLES).model
    assert promised == weights(onnx_upscale.optimize(repaired, target="cpu-avx2").model)
    assert promised > weights(onnx_upscale.optimize(model, masks, target="cpu-avx2").model)


@pytest.mark.parametrize("goal", [0.95, 0.7])
def test_shares_are_of_the_model_that_was_given(goal: float) -> None:
    """A reader that is repaired has weights of its own: there are more, not fewer."""
    model = shared()
    pruned = onnx_upscale.prune(model, SAMPLES, params=goal, target="cpu-avx2", runs=2)
    found = pruned.report.params
    assert found.before == weights(model)
    assert found.after == weights(pruned.model)
    assert pruned.report.predicted.after == pytest.approx(found.after, rel=0.03)
    assert pruned.row["params"] <= goal * 1.001
    assert weights(pruned.recovered.model) > found.before
    assert pruned.result.report.input.params == found.before
    assert pruned.result.report.input.bytes < len(pruned.recovered.model.SerializeToString())


def test_a_goal_that_is_missed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for left in (0.96, 90.0):  # Until the tries are over, and until no more can be asked for.
        monkeypatch.setattr(
            "onnx_upscale.pruning.candidates.Candidate.left", lambda *_, left=left: left
        )
        saying = rf"`params` 0\.9: cannot be reached: {left:g} is left"
        with pytest.raises(onnx_upscale.UsageError, match=saying):
            onnx_upscale.prune(shared(), SAMPLES, params=0.9, target="cpu-avx2", runs=2)
