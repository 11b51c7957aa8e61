"""What docs/pipelines.md shows runs as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnx_upscale
import tutorials
from build import Array, assert_close, run

PAGE = (tutorials.ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
ABOVE, OLIVE = PAGE.split("\n## Olive\n")
_BLOCK = re.compile(r"^```(json|py|console)\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
NAMES = {"json": ["optimize.json", "prune.json"], "py": ["samples.py"]}


def digits(folder: Path) -> dict[str, Array]:
    with np.load(folder / "digits.npz") as arrays:
        return {"image": (arrays["images"][-100:] / 16).astype(np.float32)}


@pytest.mark.slow
def test_calibration_data_and_the_pass_of_onnx_ir(tmp_path: Path) -> None:
    pytest.importorskip("onnx_ir")
    ran = tutorials.run(ABOVE, tmp_path)
    assert ran == ABOVE
    masked = onnx_upscale.optimize(tmp_path / "digits.onnx", tmp_path / "digits.masks.json")
    inputs = digits(tmp_path)
    assert_close(run(masked.model, inputs), run(onnx.load(tmp_path / "smaller.onnx"), inputs))


@pytest.mark.slow
def test_olive(tmp_path: Path) -> None:
    pytest.importorskip("olive")
    for file in (tutorials.ROOT / "models").iterdir():
        shutil.copy(file, tmp_path)
    blocks = [(block[1], block[2]) for block in _BLOCK.finditer(OLIVE)]
    for kind, names in NAMES.items():
        for name, text in zip(names, (body for k, body in blocks if k == kind), strict=True):
            assert f"`{name}`" in OLIVE
            (tmp_path / name).write_text(text)
    for line in "".join(body for kind, body in blocks if kind == "console").splitlines():
        _call(line.removeprefix("$ "), tmp_path)

    inputs = digits(tmp_path)
    before = onnx.load(tmp_path / "digits.onnx")
    optimized = onnx.load(tmp_path / "optimized" / "model.onnx")
    expected = onnx_upscale.optimize(before, tmp_path / "digits.masks.json", target="cpu-avx512")
    assert optimized == expected.model
    assert (tmp_path / "optimized" / "onnx-upscale.json").exists()
    pruned = onnx.load(tmp_path / "pruned" / "model.onnx")
    assert len(pruned.SerializeToString()) < 0.7 * len(before.SerializeToString())
    (was,), (now,) = run(before, inputs), run(pruned, inputs)
    assert len(set(was.argmax(1))) == 10
    assert (was.argmax(1) == now.argmax(1)).mean() > 0.95


def _call(line: str, folder: Path) -> None:
    command, _, file = line.partition(" > ")
    program, *arguments = shlex.split(command)
    called = ["-m", "olive", *arguments] if program == "olive" else arguments
    paths = os.pathsep.join([str(tutorials.ROOT), str(folder)])
    done = subprocess.run(
        [sys.executable, *called],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, "OLIVE_DISABLE_TELEMETRY": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if file:
        (folder / file).write_text(done.stdout)
