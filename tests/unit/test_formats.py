"""Formats that were made for one machine stay whole, and are named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import onnx_upscale
from build import Net
from command import run

SAID = r"NCHWc format \(\d of the nodes, com.microsoft.nchwc\).* the model before that step"


def blocked(folder: Path, linear: bool) -> onnx.ModelProto:
    """What onnxruntime saves of two convolutions at its highest level, with a layer behind them."""
    net = Net(17, x=(1, 16, 8, 8))
    first = net("Relu", net("Conv", "x", net.random(16, 16, 3, 3), name="first"))
    last = net("Conv", first, net.random(16, 16, 3, 3), name="second")
    if linear:
        rows = net("Relu", net("Gemm", net("Flatten", last), net.random(256, 8), name="third"))
        last = net("Gemm", rows, net.random(8, 3), name="fourth")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    path = folder / "blocked.onnx"
    options.optimized_model_filepath = str(path)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    content = net.model(last).SerializeToString()
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    made = onnx.load(path)
    if not any(node.domain == "com.microsoft.nchwc" for node in made.graph.node):
        pytest.skip("this machine's onnxruntime has no such layout")
    return made


def test_optimizing_says_so_once(tmp_path: Path) -> None:
    result = onnx_upscale.optimize(blocked(tmp_path, linear=False))
    (warning,) = result.report.warnings
    assert re.search(SAID, warning)


def test_what_is_plain_loses_channels_all_the_same(tmp_path: Path) -> None:
    masks = {"version": 1, "masks": {"fourth": {"input": [1, 2]}}}
    result = onnx_upscale.optimize(blocked(tmp_path, linear=True), masks)
    (warning,) = result.report.warnings
    assert re.search(SAID, warning)
    assert result.report.output.params < result.report.input.params


@pytest.mark.parametrize("key", ["first", "second_nchwc"])
def test_masks_on_it_are_refused(tmp_path: Path, key: str) -> None:
    masks = {"version": 1, "masks": {key: {"input": [1, 2]}}}
    with pytest.raises(onnx_upscale.MaskError, match=SAID):
        onnx_upscale.optimize(blocked(tmp_path, linear=False), masks)


def test_commands_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocked(tmp_path, linear=False)
    found = run("analyze", "blocked.onnx")
    assert found.exit_code == 0
    assert re.search(f"warning: .*{SAID}", found.stderr)
    found = run("mask", "blocked.onnx", "masks.json", "--criterion", "l1", "--amount", "0.3")
    assert found.exit_code == 2
    assert re.search(f"error: the model has no layer .*{SAID}", found.stderr)
    np.savez("data.npz", x=np.zeros((8, 16, 8, 8), np.float32))
    found = run("prune", "blocked.onnx", "out.onnx", "--data", "data.npz", "--macs", "0.7")
    assert found.exit_code == 2
    assert re.search(f"error: the model has no layer .*{SAID}", found.stderr)


def test_masks_for_the_rest_are_made_with_a_warning(tmp_path: Path) -> None:
    made = onnx_upscale.mask(blocked(tmp_path, linear=True), "l1", 0.3, layers=["fourth"])
    assert re.search(SAID, made.warnings[0])
    assert json.dumps(made)


def test_other_models_hear_nothing() -> None:
    net = Net(17, x=(1, 4))
    model = net.model(net("Gemm", "x", net.random(4, 3), name="only"))
    assert not onnx_upscale.analyze(model).warnings
    with pytest.raises(onnx_upscale.MaskError) as error:
        onnx_upscale.optimize(model, {"version": 1, "masks": {"other": {"input": [1]}}})
    assert "NCHWc" not in str(error.value)
