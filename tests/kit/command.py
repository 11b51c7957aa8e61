"""The command line in a folder of its own, and what must hold whenever it refuses something."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner, Result

from build import Net
from onnx_upscale.cli import main

BEFORE = b"what was there before"
SMALL = {"version": 1, "masks": {"second": {"input": [0, 3, 5, 6]}}}


def small() -> Net:
    net = Net(17, x=["batch", 3, 6, 6])
    first = net("Conv", "x", net.constant(net.random(8, 3, 3, 3), "first.weight"), name="first")
    active = net("Relu", first, name="active")
    net("Conv", active, net.constant(net.random(5, 8, 1, 1), "second.weight"), name="second")
    return net


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with in.onnx and masks.json, in which no temporary file may be left."""
    monkeypatch.chdir(tmp_path)
    onnx.save(small().model("second.0"), "in.onnx")
    Path("masks.json").write_text(json.dumps(SMALL))
    yield tmp_path
    assert not list(tmp_path.rglob("*.tmp"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def shell(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "onnx_upscale", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def refused(
    *arguments: str, saying: str | list[str], status: int = 2, out: str = "out.onnx"
) -> str:
    """Runs what must fail in one clear line, without OUT and with one that must stay."""
    line = ""
    for before in (None, BEFORE):
        Path(out).unlink(missing_ok=True)
        if before is not None:
            Path(out).write_bytes(before)
        result = run(*arguments)
        assert result.exit_code == status, result.output
        assert result.stdout == ""
        line = result.stderr
        assert line.startswith("onnx-upscale: error: ")
        assert line.count("\n") == 1, line
        for part in [saying] if isinstance(saying, str) else saying:
            assert part in line
        assert (Path(out).read_bytes() if Path(out).exists() else None) == before
    return line
