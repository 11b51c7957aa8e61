"""onnx-upscale prune."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

from onnx_upscale.cli import main

MODEL = Path(__file__).parents[2] / "models" / "digits.onnx"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.save("data.npy", rng.random((40, 1, 8, 8)).astype(np.float32))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["prune", str(MODEL), *arguments])


@pytest.mark.slow
def test_it_writes_what_was_asked_for() -> None:
    more = ["--masks-out", "m.json", "--recovered-out", "r.onnx", "--report", "report.json"]
    result = run("out.onnx", "--data", "data.npy", "--macs", "0.6", *more)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[1].startswith("out.onnx")
    assert json.loads(Path("m.json").read_text())["version"] == 1
    report = json.loads(Path("report.json").read_text())
    assert report["goal"] == {"name": "macs", "value": 0.6, "seconds": False}
    assert report["macs"]["after"] <= 0.62 * report["macs"]["before"]
    onnx.checker.check_model(onnx.load("out.onnx"))
    verified = CliRunner().invoke(main, ["verify", "r.onnx", "-", "out.onnx"])
    assert verified.exit_code == 0, verified.output


@pytest.mark.slow
def test_some_layers_only() -> None:
    names = [tensor.name for tensor in onnx.load(MODEL).graph.initializer if len(tensor.dims) == 4]
    chosen = [option for name in names[-2:] for option in ("--layers", name)]
    options = ["--data", "data.npy", "--params", "0.97", "--masks-out", "m.npz", *chosen]
    result = run("out.onnx", *options)
    assert result.exit_code == 0, result.output
    with np.load("m.npz") as arrays:
        assert set(arrays) == {f"{name}.input" for name in names[-2:]}
    masked = CliRunner().invoke(main, [str(MODEL), "m.npz", "masked.onnx", "--no-verify"])
    assert masked.exit_code == 0, masked.output
    shapes = [
        sorted(tuple(tensor.dims) for tensor in onnx.load(path).graph.initializer)
        for path in ("out.onnx", "masked.onnx")
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("arguments", "saying"),
    [
        (["--macs", "0.5"], "give inputs of the model with --data"),
        (["--data", "data.npy"], "give exactly one goal of --latency, --macs"),
        (["--data", "data.npy", "--macs", "2"], "--macs 2: must be a share between 0 and 1"),
        (["--data", "data.npy", "--macs", "0.5", "--error", "1"], "found --macs, --error"),
        (["--data", "none.npy", "--macs", "0.5"], "none.npy"),
        (["--data", "data.npy", "--macs", "0.001"], "--macs 0.001: cannot be reached"),
    ],
)
def test_bad_input(arguments: list[str], saying: str) -> None:
    Path("out.onnx").write_bytes(b"before")
    result = run("out.onnx", *arguments)
    assert result.exit_code == 2, result.output
    assert saying in result.stderr
    assert result.stderr.count("\n") == 1
    assert Path("out.onnx").read_bytes() == b"before"
