"""`onnx-upscale bench`: what it prints and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnxruntime
import pytest
from click.testing import CliRunner, Result

from benchmarks import small
from onnx_upscale.cli import main

BEFORE = b"what was there before"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    onnx.save(small("x"), "a.onnx")
    onnx.save(small("y"), "b.onnx")
    yield tmp_path
    assert not list(tmp_path.rglob("*.tmp"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["bench", *arguments])


@pytest.mark.usefixtures("here")
class TestCommand:
    def test_table(self) -> None:
        result = run("a.onnx", "b.onnx", "--runs", "6", "--threads", "2", "--batch", "2")
        assert result.exit_code == 0, result.output
        lines = result.stdout.splitlines()
        assert "provider cpu, 2 thread(s), 6 runs in turn, inputs: x 2x3x6x6" in lines[0]
        assert lines[1].split()[0] == "model"
        assert [line.split()[0] for line in lines[2:]] == ["a.onnx", "b.onnx"]
        assert "operator" not in result.stdout

    def test_profile(self) -> None:
        result = run("a.onnx", "b.onnx", "--runs", "2", "--profile", "--no-memory")
        assert result.exit_code == 0, result.output
        assert "operator ms" in result.stdout
        assert "= reorders" in result.stdout
        assert sorted(path.name for path in Path().iterdir()) == ["a.onnx", "b.onnx"]

    def test_warnings_go_to_stderr(self) -> None:
        result = run("a.onnx", "--runs", "2", "--no-memory")
        assert "warning: 2 runs are too few" in result.stderr
        assert "warning" not in result.stdout

    def test_json_and_quiet(self) -> None:
        options = ["--runs", "2", "--no-memory", "--input", "y=5x3x6x6", "--report", "r.json", "-q"]
        result = run("a.onnx", "b.onnx", *options)
        assert result.exit_code == 0
        assert result.output == ""
        content = json.loads(Path("r.json").read_text())
        assert content["batch"] == 5
        assert [model["path"] for model in content["models"]] == ["a.onnx", "b.onnx"]

    @pytest.mark.parametrize(
        ("arguments", "saying"),
        [
            ([], "Missing argument"),
            (["none.onnx"], "none.onnx: no such file"),
            (["a.onnx", "none.onnx"], "none.onnx: no such file"),
            (["a.onnx", "text.onnx"], "text.onnx: not an ONNX model"),
            (["a.onnx", "c.onnx"], "c.onnx: its input 'x' is float32 1x3x7x7, but that of a.onnx"),
            (["a.onnx", "--provider", "tpu"], "'tpu' is not one of"),
            (["a.onnx", "--runs", "0"], "0 is not in the range x>=1"),
            (["a.onnx", "--runs", "many"], "'many' is not a valid integer"),
            (["a.onnx", "--batch", "0"], "0 is not in the range x>=1"),
            (["c.onnx", "--batch", "2"], "c.onnx: --batch 2: no input has a first axis"),
            (["a.onnx", "--threads", "-1"], "-1 is not in the range x>=0"),
            (["a.onnx", "--input", "3x4"], "'3x4' is not of the form NAME="),
            (["a.onnx", "--input", "z=1x3x6x6"], "--input z: no model has such an input"),
            (["a.onnx", "--report", "nowhere/r.json"], "there is no directory"),
            (["a.onnx", "--report", "."], "is a directory"),
            (["a.onnx", "b.onnx", "--report", "b.onnx"], "--report b.onnx: is model 2"),
            (["a.onnx", "link.onnx", "--report", "a.onnx"], "--report a.onnx: is model 1"),
        ],
    )
    def test_bad_input(self, arguments: list[str], saying: str) -> None:
        Path("text.onnx").write_bytes(BEFORE)
        Path("link.onnx").symlink_to("b.onnx")
        onnx.save(small(batch=1, side=7), "c.onnx")
        before = {path.name: path.read_bytes() for path in Path().iterdir()}
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        assert result.stderr.startswith("onnx-upscale: error: ")
        assert result.stderr.count("\n") == 1
        assert saying in result.stderr
        assert {path.name: path.read_bytes() for path in Path().iterdir()} == before

    def test_an_absent_provider(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"]
        )
        result = run("a.onnx", "--provider", "cuda", "--report", "r.json")
        assert result.exit_code == 2
        assert "--provider cuda: the installed onnxruntime does not have it" in result.stderr
        assert not Path("r.json").exists()

    def test_it_can_be_run(self) -> None:
        command = [sys.executable, "-m", "onnx_upscale", "bench", "a.onnx", "--runs", "6"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "a.onnx" in done.stdout
