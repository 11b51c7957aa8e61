"""Every command on a model that is too large for one file, as far as limits can be made small."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import external_data_helper, numpy_helper

import onnx_upscale
from build import Net
from command import refused, run
from onnx_upscale import mapped, storage
from onnx_upscale.optimizer.load.model import read_files
from onnx_upscale.pruning.evaluation import Evaluation
from onnx_upscale.running import Session, parts, session

DATA = ("--data", "data.npy")


def stack() -> onnx.ModelProto:
    """Three layers; the last one reads half of the channels twice."""
    net = Net(17, x=["n", 16])
    first = net("MatMul", "x", net.constant(net.random(16, 48), "first.weight"), name="first")
    weight = net.random(48, 48)
    weight[:, 24:] = weight[:, :24]
    second = net("MatMul", net("Relu", first), net.constant(weight, "second.weight"), name="second")
    net("MatMul", net("Relu", second), net.constant(net.random(48, 8), "last.weight"), name="last")
    return net.model("last.0")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples, the model in one file (`one.onnx`) and with external weights (`big.onnx`)."""
    monkeypatch.chdir(tmp_path)
    np.save("data.npy", np.random.default_rng(1).standard_normal((60, 16), np.float32))
    onnx.save(stack(), "one.onnx")
    onnx.save(stack(), "big.onnx", save_as_external_data=True, location="w", size_threshold=0)
    masks = {"version": 1, "masks": {"last": {"input": list(range(24, 48))}}}
    Path("m.json").write_text(json.dumps(masks))


@pytest.fixture(params=["mapped", "large"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Weights stay in their files; `large`: and all are more than one file can hold."""
    monkeypatch.setattr(mapped, "LEAST", 128)
    monkeypatch.setattr(parts, "MOST", 4000)
    if request.param == "large":
        monkeypatch.setattr(storage, "_MOST", 4000)
        monkeypatch.setattr(session, "_LENT", 128)
    reading = onnx.load_external_data_for_model

    def read(model: onnx.ModelProto, folder: str) -> None:
        """Reads external weights, of which none is large."""
        assert not any(each.data_location for each in model.graph.initializer)
        reading(model, folder)

    monkeypatch.setattr(onnx, "load_external_data_for_model", read)
    return str(request.param)


def weights(path: str) -> dict[str, Any]:
    model = onnx.load(path, load_external_data=False)
    external_data_helper.load_external_data_for_model(model, ".")
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def assert_same_model(one: str, other: str) -> None:
    found, wanted = weights(one), weights(other)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    x = np.load("data.npy")[:3]
    for name, value in Session(other).run({"x": x}).items():
        np.testing.assert_allclose(Session(one).run({"x": x})[name], value, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("kind")
class TestCommands:
    @pytest.mark.parametrize("criterion", ["l1", "fpgm", "reconstruction"])
    def test_mask(self, criterion: str) -> None:
        how = ("--criterion", criterion, "--amount", "0.4", *DATA)
        for name in ("one", "big"):
            done = run("mask", f"{name}.onnx", f"{name}.json", *how)
            assert done.exit_code == 0, done.output
        assert Path("one.json").read_text() == Path("big.json").read_text()

    def test_recover(self) -> None:
        for name in ("one", "big"):
            done = run("recover", f"{name}.onnx", "m.json", f"{name}.out.onnx", *DATA)
            assert done.exit_code == 0, done.output
        assert_same_model("big.out.onnx", "one.out.onnx")
        assert not weights("big.out.onnx")["last.weight"][24:].any()
        assert list(Path().glob("big.out.onnx.*.data"))
        done = run("recover", "big.onnx", "m.json", "big.out.onnx", *DATA, "--seed", "1")
        assert done.exit_code == 0, done.output
        assert len(list(Path().glob("big.out.onnx.*.data"))) == 1

    def test_recover_and_optimize(self) -> None:
        for name in ("one", "big"):
            done = run(f"{name}.onnx", "m.json", f"{name}.out.onnx", "--recover", *DATA)
            assert done.exit_code == 0, done.output
        assert_same_model("big.out.onnx", "one.out.onnx")
        assert weights("big.out.onnx")["last.weight"].shape == (24, 8)

    def test_prune(self) -> None:
        how = ("--macs", "0.7", *DATA, "--masks-out")
        for name in ("one", "big"):
            more = (f"{name}.json", "--recovered-out", f"{name}.r.onnx")
            done = run("prune", f"{name}.onnx", f"{name}.out.onnx", *how, *more)
            assert done.exit_code == 0, done.output
        assert Path("one.json").read_text() == Path("big.json").read_text()
        assert_same_model("big.out.onnx", "one.out.onnx")
        assert_same_model("big.r.onnx", "one.r.onnx")
        assert list(Path().glob("big.out.onnx.*.data"))
        assert run("verify", "big.r.onnx", "-", "big.out.onnx").exit_code == 0

    def test_prune_by_a_score(self) -> None:
        sizes = []

        def size(path: str) -> float:
            model = onnx.load(path, load_external_data=False)
            onnx_upscale.optimize(path, verify=False)
            sizes.append(sum(math.prod(tensor.dims) for tensor in model.graph.initializer))
            return 1.0

        made = onnx_upscale.prune("big.onnx", "data.npy", params=0.7, evaluate=size)
        assert sizes[1] <= 0.72 * sizes[0]
        made.save("out.onnx")
        assert size("out.onnx") == 1.0
        assert sizes[2] == sizes[1]
        evaluation = Evaluation.of(size)
        assert evaluation.score(read_files("big.onnx", mapped=True), "it") == 1.0
        assert sizes[3] == sizes[0]

    def test_bench(self) -> None:
        done = run("bench", "big.onnx", "one.onnx", "--runs", "2", "--report", "r.json")
        assert done.exit_code == 0, done.output
        big, one = json.loads(Path("r.json").read_text())["models"]
        assert big["bytes"] > one["bytes"]
        held = read_files("big.onnx", mapped=True)
        (first, _) = onnx_upscale.bench([held, "one.onnx"], runs=2).models
        assert first.peak_memory is not None
        assert first.bytes == held.weight


def test_layout_that_was_asked_for() -> None:
    how = ("recover", "big.onnx", "m.json", "out.onnx", *DATA, "--external-data", "never")
    assert run(*how).exit_code == 0
    assert not list(Path().glob("out.onnx.*.data"))
    done = run("prune", "one.onnx", "o.onnx", "--macs", "0.7", *DATA, "--external-data=always")
    assert done.exit_code == 0, done.output
    assert list(Path().glob("o.onnx.*.data"))


def test_large_models_do_not_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_MOST", 4000)
    how = ("recover", "big.onnx", "m.json", "out.onnx", *DATA, "--workers", "2")
    refused(*how, saying=["--workers: models above 2 GB are looked at by one process"])


def test_what_is_handed_over_beside_the_bytes(kind: str) -> None:
    for source in ("one.onnx", "big.onnx"):
        model = read_files(source, mapped=True).model
        light, lent = session._lending(model)
        names = {"first.weight", "second.weight", "last.weight"}
        assert {tensor.name for tensor in lent} == (
            names if kind == "large" or source == "big.onnx" else set()
        )
        if kind == "large":
            assert len(light.SerializeToString()) < 1000
        x = {"x": np.load("data.npy")}
        wanted = Session("one.onnx").run(x)["last.0"]
        np.testing.assert_allclose(Session(model).run(x)["last.0"], wanted, rtol=1e-4, atol=1e-4)


def test_bytes_of_a_model_in_memory(kind: str) -> None:
    read = read_files("big.onnx", mapped=True)
    held = 4 * (16 * 48 + 48 * 48 + 48 * 8)
    assert held <= read.weight < held + 1000
    assert (read.weight == held) == (kind == "large")
    assert read_files(read).weight >= held
    assert not mapped.is_mapped(read_files(read).model)
