"""Streams that end or fail, and names that would steer the terminal."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from command import run, shell, small
from onnx_upscale import main_job
from onnx_upscale.making import make


@pytest.mark.usefixtures("here")
class TestStreams:
    """Results that nobody reads."""

    @pytest.mark.parametrize(
        "arguments",
        [
            ["in.onnx", "masks.json", "out.onnx", "-v"],
            ["analyze", "in.onnx"],
            ["verify", "in.onnx", "-", "in.onnx"],
        ],
    )
    @pytest.mark.parametrize("both", [False, True])
    def test_closed_pipe(self, arguments: list[str], both: bool) -> None:
        read, write = os.pipe()
        os.close(read)
        with os.fdopen(write, "w") as closed:
            command = [sys.executable, "-m", "onnx_upscale", *arguments]
            errors = subprocess.STDOUT if both else subprocess.PIPE
            done = subprocess.run(command, stdout=closed, stderr=errors, text=True, timeout=60)
        assert done.returncode == 0
        assert "Traceback" not in (done.stderr or "")
        assert "BrokenPipe" not in (done.stderr or "")

    def test_full_device(self) -> None:
        command = [sys.executable, "-m", "onnx_upscale", "in.onnx", "masks.json", "out.onnx"]
        with open("/dev/full", "w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
        # The model is there, so this is no failure.
        assert done.returncode == 0
        assert "warning: standard output cannot be written: No space left" in done.stderr
        assert done.stderr.count("\n") == 1
        onnx.load("out.onnx")

    def test_a_name_that_is_no_text(self) -> None:
        name = os.fsdecode(b"o\xff\xc3\xa9.onnx")
        environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
        done = shell("in.onnx", "masks.json", name, "--report", "r.json", env=environment)
        assert done.returncode == 0, done.stderr
        assert Path(name).exists()


# Sets the window's title, clears the screen, forges a line, and more that is not seen.
SHOWN = r"\x1b]0;owned\x07\x1b[2J\nonnx-upscale: all is well\r\x7f\x9b1m\u202egnp\u2066\u2028"
HOSTILE = SHOWN.encode().decode("unicode_escape")


@pytest.mark.usefixtures("here")
class TestNamesThatSteerTheTerminal:
    @pytest.fixture(autouse=True)
    def hostile(self, here: Path) -> None:
        model = small().model("second.0")
        for node in model.graph.node:
            node.name += HOSTILE
            node.output[0] += HOSTILE
            node.input[:] = [n if n == "x" or "weight" in n else n + HOSTILE for n in node.input]
        model.graph.output[0].name += HOSTILE
        onnx.save(model, "in.onnx")
        named = {"version": 1, "masks": {"second.weight": {"input": [0, 3, 5, 6]}}}
        Path("masks.json").write_text(json.dumps(named))

    @pytest.mark.parametrize(
        "arguments",
        [
            ["analyze", "in.onnx"],
            ["analyze", "in.onnx", "--json"],
            ["in.onnx", "masks.json", "out.onnx", "-v"],
            ["in.onnx", "masks.json", f"{HOSTILE[:4]}.onnx", "--strategy", f"{HOSTILE}"],
            ["in.onnx", "masks.json", f"{HOSTILE}"],
            ["verify", "in.onnx", "masks.json", "in.onnx"],
            ["mask", "in.onnx", "m.json", "--criterion", "l1", "--amount", "0.5", "--skip", "no"],
            ["mask", "in.onnx", "m.json", "--criterion", "l1", "--amount", "0.5"],
            ["bench", "in.onnx", "--runs", "1", "--no-memory", "--profile"],
            ["bench", "in.onnx", "--runs", "1", "--no-memory", "--input", f"{HOSTILE}=1x2"],
            ["export", f"{HOSTILE}:none", "out.onnx"],
        ],
        ids=lambda arguments: ascii(" ".join(arguments))[:40],
    )
    def test_names_are_escaped(self, arguments: list[str]) -> None:
        result = run(*arguments)
        for line in (result.stdout + result.stderr).split("\n"):
            assert line.isprintable(), ascii(line)
            assert not line.startswith("onnx-upscale: all is well")

    def test_what_is_shown_instead(self) -> None:
        assert f"first{SHOWN}" in run("analyze", "in.onnx").stdout
        assert f"'second.0{SHOWN}'" in run("verify", "in.onnx", "masks.json", "in.onnx").stderr
        rows = json.loads(run("analyze", "in.onnx", "--json").stdout)["segments"]
        assert f"first{HOSTILE}" in [name for row in rows for name in row["writers"]]

    def test_an_internal_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: Any) -> None:
            raise ValueError(HOSTILE)

        monkeypatch.setattr(main_job, "apply", fail)
        monkeypatch.setattr(make, "find_sites", fail)
        job, making = "in.onnx masks.json out.onnx", "mask in.onnx m.json --criterion l1 --amount 1"
        for command, verbose in itertools.product((job, making), ([], ["-v"])):
            result = run(*command.split(), *verbose)
            assert result.exit_code == 1
            assert ("Traceback" in result.stderr) == bool(verbose)
            assert "internal error" in result.stderr
            assert all(line.isprintable() for line in result.stderr.split("\n"))
