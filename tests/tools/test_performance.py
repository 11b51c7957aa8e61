"""The suite of docs/performance.md: what it measures, and what it says of that."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from build import Net, assert_close, run
from suite.jobs import KINDS, MASKS, Job, Kind, all_jobs
from suite.measuring import in_float16, measured, versions, with_open_batch


def network() -> onnx.ModelProto:
    """For one image, as exporters write it: its shapes declared, its view one of one image."""
    net = Net(17, x=[1, 3, 8, 8])
    made = net("Relu", net("Conv", "x", net.constant(net.random(16, 3, 1, 1), "stem")))
    made = net("Relu", net("Conv", made, net.constant(net.random(16, 16, 1, 1), "inner")))
    flat = net("Reshape", net("GlobalAveragePool", made), net.ints(1, 16), allowzero=1)
    return net.model(net("MatMul", flat, net.constant(net.random(16, 4), "head")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    onnx.save(network(), tmp_path / "resnet18.onnx")
    return tmp_path


def test_jobs_are_those_whose_model_is_there(folder: Path) -> None:
    jobs = [job for provider in KINDS for job in all_jobs(folder, provider)]
    assert {job.model for job in jobs} == {"resnet18"}
    assert len({job.name for job in jobs}) == len(jobs) == 2 * 2 * 2 * len(MASKS)
    kinds = [job.kind for job in jobs[:: len(MASKS)]]
    assert [(kind.provider, kind.batch, kind.form) for kind in kinds] == [
        *(("cpu", 1, "float32"), ("cpu", 1, "int8"), ("cpu", 8, "float32"), ("cpu", 8, "int8")),
        *(("cuda", 1, "float32"), ("cuda", 32, "float32")),
        *(("cuda", 1, "float16"), ("cuda", 32, "float16")),
    ]


@pytest.mark.parametrize("in_nodes", [False, True])
def test_any_number_of_images(folder: Path, in_nodes: bool) -> None:
    """Exporters keep the sizes of views in initializers, or in Constant nodes."""
    if in_nodes:
        model = network()
        (shape,) = (each for each in model.graph.initializer if each.data_type == 7)
        value = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(shape), "value")
        held = onnx.helper.make_node("Constant", [], [shape.name], value=value)
        model.graph.initializer.remove(shape)
        model.graph.node.insert(0, held)
        onnx.save(model, folder / "resnet18.onnx")
    opened = with_open_batch(folder / "resnet18.onnx", folder / "open.onnx")
    images = np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)
    (together,) = run(onnx.load(opened), {"x": images})
    each = [run(network(), {"x": images[n : n + 1]})[0] for n in range(3)]
    assert_close([together], [np.concatenate(each)])


@pytest.mark.parametrize(
    ("criterion", "batch", "form"),
    [("random", 1, "float32"), ("l1", 2, "float32"), ("random", 2, "int8"), ("l1", 1, "int8")],
)
def test_every_version_is_measured(folder: Path, criterion: str, batch: int, form: str) -> None:
    for peer in ("peer", "peerbase"):
        onnx.save(network(), folder / f"resnet18.0.5.{peer}.onnx")
    job = Job(folder, "resnet18", criterion, 0.5, Kind("cpu", form, batch))
    scratch = folder / "scratch"
    scratch.mkdir()
    row = measured(job, scratch, "cpu-avx2", runs=2, tune_seconds=0.1)
    peers = {"peerbase", "peer"} if (batch, form) == (1, "float32") else set()
    assert row["models"].keys() == {"unpruned", "gather", "upscale", "auto", "tune"} | peers
    assert all(each["ms"] > 0 for each in row["models"].values())
    assert row["job"] == job.name
    assert not logging.root.manager.disable, "whatever runs next would log nothing"


@pytest.mark.parametrize("batch", [1, 32])
def test_models_of_a_gpu(folder: Path, batch: int) -> None:
    """All in half precision, those of the peer for as many images as ours."""
    for peer in ("peer", "peerbase"):
        onnx.save(network(), folder / f"resnet18.0.5.{peer}.onnx")
    job = Job(folder, "resnet18", "random", 0.5, Kind("cuda", "float16", batch))
    scratch = folder / "scratch"
    scratch.mkdir()
    made = versions(job, scratch, "cuda")
    assert [*made] == ["unpruned", "peerbase", "peer", "gather", "upscale", "auto"]
    assert len({*made.values()}) == len(made)
    images = np.random.default_rng(0).standard_normal((batch, 3, 8, 8)).astype(np.float16)
    for path in made.values():
        model = onnx.load(path)
        weights = [tensor for tensor in model.graph.initializer if len(tensor.dims) > 1]
        assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.FLOAT16}
        assert run(model, {"x": images})[0].shape == (batch, 4)


def test_half_precision_is_near(folder: Path) -> None:
    made = in_float16(folder / "resnet18.onnx", folder / "half.onnx")
    image = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    (whole,), (half,) = (
        run(network(), {"x": image}),
        run(onnx.load(made), {"x": image.astype("f2")}),
    )
    np.testing.assert_allclose(half, whole, rtol=0.02, atol=0.01 * np.abs(whole).max())


def measurement(model: str, **ms: float) -> dict[str, Any]:
    """Half of the time that is left for computing by `auto` goes to copies."""
    parts = {"compute": 4.0, "copies": 1.0, "reorders": 1.0, "over_bound": 1.5}
    return {
        "job": f"{model} random 0.3 batch 1 float32",
        "target": "here.json",
        "models": {
            name: {"ms": each, "ratio": each / ms["unpruned"], **parts} for name, each in ms.items()
        },
    }


def test_what_is_said(tmp_path: Path) -> None:
    reporting = pytest.importorskip("suite.reporting", reason="needs matplotlib")
    rows = [
        measurement("resnet18", unpruned=10, peerbase=9, peer=8, gather=9, auto=4, tune=2),
        measurement("resnet50", unpruned=10, peerbase=2, peer=8, gather=9, auto=2),
        measurement("unet", unpruned=10, gather=9, auto=8),
    ]
    gpu = measurement("resnet18", unpruned=10, peer=8, peerbase=9, auto=5)
    gpu["job"] = "resnet18 random 0.3 batch 32 float16 cuda"
    del gpu["models"]["auto"]["over_bound"]
    reporting.write_report([*rows, gpu], tmp_path / "found")
    text = (tmp_path / "found" / "tables.md").read_text()
    assert "| resnet18 | 10.00 | 9.00 | 8.00 | 9.00 | 4.00 | 2.00 | 0.500 | 1.500 |" in text
    assert "| unet | 10.00 |  |  | 9.00 | 8.00 |  | 0.889 | 1.500 |" in text
    assert "Distance to the copy-free bound: 1.500." in text
    assert "auto / faster peer, 2 models: 0.707." in text
    assert "tune / faster peer, 1 models: 0.250." in text
    assert "tune / auto: 0.500." in text
    assert (tmp_path / "found" / "random-03-batch-1-float32.svg").stat().st_size > 1000
    assert "random-03-batch-1-float32.svg" in text
    assert "| resnet18 | 10.00 | 9.00 | 8.00 | 5.00 | 0.625 |  |" in text
    assert "## random 0.3 batch 32 float16 cuda" in text
