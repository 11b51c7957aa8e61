"""Models of IR version 3, whose initializers are graph inputs too, through every command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from build import Net
from command import run

MASKS = {
    "w2": {"input": [0, 2, 4]},
    "w1": {"output": [1]},
    "w3": {"input": [1, 2, 7]},
    "w4": {"input": [0, 1, 9, 12]},
}


def old() -> onnx.ModelProto:
    """Layers whose readers disagree, so that copies with constants of their own are made."""
    net = Net(9, x=("batch", 3, 8, 8))

    def conv(tensor: str, name: str, outputs: int, inputs: int) -> str:
        weight = net.constant(net.random(outputs, inputs, 3, 3), name)
        return net("Conv", tensor, weight, name=f"{name}.conv", pads=[1] * 4)

    first = net("Relu", conv("x", "w1", 8, 3))
    second, third = conv(first, "w2", 8, 8), conv(first, "w3", 8, 8)
    both = net("Concat", net("Relu", second), net("Sigmoid", third), axis=1)
    model = net.model(net("GlobalAveragePool", conv(both, "w4", 4, 16)))
    model.ir_version = 3
    model.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in model.graph.initializer
    )
    return model


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = old()
    onnx.checker.check_model(model)
    onnx.save(model, "in.onnx")
    Path("masks.json").write_text(json.dumps({"version": 1, "masks": MASKS}))
    values = np.random.default_rng(0).standard_normal((24, 3, 8, 8))
    np.save("data.npy", values.astype(np.float32))


def _is_old_still(path: str) -> None:
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 3
    stored = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    listed = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input
    }
    assert {name: listed[name] for name in stored} == stored
    assert listed.keys() - stored == {"x"}


def _done(*arguments: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("strategy", ["auto", "upscale", "gather", "constrained"])
def test_optimize(strategy: str) -> None:
    _done("in.onnx", "masks.json", "out.onnx", "--strategy", strategy)
    _is_old_still("out.onnx")


def test_analyze_and_verify() -> None:
    _done("analyze", "in.onnx", "masks.json")
    _done("in.onnx", "masks.json", "out.onnx", "--strategy", "gather", "--verify-at", "w2.conv.0")
    _done("verify", "in.onnx", "masks.json", "out.onnx")


@pytest.mark.parametrize("criterion", ["l1", "fpgm", "reconstruction"])
def test_mask(criterion: str) -> None:
    data = ["--data", "data.npy"] if criterion == "reconstruction" else []
    _done("mask", "in.onnx", "made.json", "--criterion", criterion, "--amount", "0.3", *data)
    _done("in.onnx", "made.json", "out.onnx")


def test_recover() -> None:
    _done("recover", "in.onnx", "masks.json", "out.onnx", "--data", "data.npy")
    _is_old_still("out.onnx")


def test_optimize_and_recover() -> None:
    _done("in.onnx", "masks.json", "out.onnx", "--recover", "--data", "data.npy")
    _is_old_still("out.onnx")


@pytest.mark.slow
def test_prune() -> None:
    _done("prune", "in.onnx", "out.onnx", "--data", "data.npy", "--macs", "0.8")
    _is_old_still("out.onnx")


@pytest.mark.slow
def test_bench() -> None:
    _done("bench", "in.onnx", "in.onnx", "--runs", "2", "--no-memory")
