"""The main job on a model that is repaired first."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import Array, Net, assert_close, run
from onnx_upscale import DataError, VerifyError
from onnx_upscale.proof import prove
from pruning import square


def residual(width: int = 8) -> onnx.ModelProto:
    net = Net(17, x=["batch", 3, 6, 6])
    stem = net("Relu", square(net.random(width, 3), net, "x", "stem"))
    inner = net("Relu", square(net.random(width, width), net, stem, "a"))
    joined = net("Add", stem, square(net.random(width, width), net, inner, "b"))
    square(net.random(4, width), net, joined, "head")
    return net.model("head.0")


def inputs(count: int = 20, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((count, 3, 6, 6)).astype(np.float32)


MASKS: dict[str, Any] = {
    "version": 1,
    "masks": {
        "a.weight": {"input": [0, 3, 5]},
        "head.weight": {"input": [0, 2, 7]},
        "b": {"output": [1]},
    },
}


def test_it_is_recover_and_then_the_main_job() -> None:
    model, samples = residual(), inputs()
    repaired = onnx_upscale.recover(model, MASKS, samples)
    expected = onnx_upscale.optimize(repaired.model)
    found = onnx_upscale.optimize(model, MASKS, recover=samples)
    assert found.content == expected.content
    data = {"x": inputs(4, seed=1)}
    assert_close(run(repaired.model, data), run(found.model, data))
    report = found.report
    assert report.verify.ok
    assert report.recovered is not None
    assert report.recovered["outputs"] == repaired.report["outputs"]
    assert next(iter(report.seconds)) == "recover"
    # It tells of the model and the masks that were given.
    plain = onnx_upscale.optimize(model, MASKS).report
    assert (report.input, report.masks) == (plain.input, plain.masks)
    assert plain.recovered is None
    (output,) = report.recovered["outputs"]
    assert output["error_after"] < output["error_before"]
    assert report["recovered"]["outputs"] == report.recovered["outputs"]


def test_constrained_masks_are_repaired_as_they_were_grown() -> None:
    model, samples = residual(), inputs()
    found = onnx_upscale.optimize(model, MASKS, recover=samples, strategy="constrained")
    stream = [0, 1, 2, 3, 5, 7]  # What anybody who reads or makes it has pruned.
    masks = {"a.weight": {"input": stream}, "head.weight": {"input": stream}, "b": {"output": [1]}}
    repaired = onnx_upscale.recover(model, {"version": 1, "masks": masks}, samples).model
    assert found.content == onnx_upscale.optimize(repaired, strategy="constrained").content
    plain = onnx_upscale.optimize(model, MASKS, strategy="constrained")
    assert found.report.copies.count == 0
    assert found.report.output.macs == plain.report.output.macs


def test_what_was_left_as_it_was_is_a_warning() -> None:
    net = Net(17, x=["batch", 3, 6, 6])
    hidden = net("Relu", square(net.random(8, 3), net, "x", "stem"))
    ints = net.constant(np.ones((4, 8, 1, 1), np.int8), "ints")
    weight = net("DequantizeLinear", ints, np.float32(0.1), np.int8(0))
    model = net.model(net("Conv", hidden, weight, name="last"))
    masks = {"version": 1, "masks": {"last": {"input": [0, 1]}}}
    report = onnx_upscale.optimize(model, masks, recover=inputs()).report
    assert any("last: not repaired" in warning for warning in report.warnings)


def test_masks_of_which_nothing_leaves_are_warned_of() -> None:
    nothing: dict[str, Any] = {"version": 1, "masks": {}}
    report = onnx_upscale.optimize(residual(), nothing, recover=inputs()).report
    assert report.warnings == ("the masks name no layer, so nothing is removed",)
    removed = onnx_upscale.optimize(residual(), MASKS, recover=inputs(), strategy="gather")
    assert removed.report.warnings == ()


def test_samples_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="expected shape"):
        onnx_upscale.optimize(residual(), MASKS, recover=inputs()[:, :2])


def test_a_failed_verification_tells_of_the_model_that_was_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(*arguments: Any) -> Any:
        found = prove(*arguments)
        return dataclasses.replace(found, ok=False, failure="on purpose")

    monkeypatch.setattr("onnx_upscale.main_job.prove", failing)
    with pytest.raises(VerifyError, match="on purpose") as caught:
        onnx_upscale.optimize(residual(), MASKS, recover=inputs())
    assert caught.value.report is not None
    assert caught.value.report.masks.targets == 3
    assert caught.value.report.recovered is not None
