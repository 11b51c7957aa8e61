"""What recipes have in common: commands as a reader would type them, and versions."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import onnx_upscale

ROOT = Path(__file__).parents[2]


def show_versions(*packages: str) -> None:
    """Prints what a run was made with."""
    own = f"onnx-upscale {onnx_upscale.__version__}"
    print(", ".join([own, *(f"{name} {version(name)}" for name in packages)]))


def run(line: str, folder: Path) -> None:
    """Runs a command of this package in a folder, and prints it with what it prints.

    Args:
        line: The command as somebody would type it.
        folder: Where.
    """
    print(f"\n$ {line}", flush=True)
    program, *arguments = shlex.split(line)
    assert program == "onnx-upscale"
    paths = os.pathsep.join([str(ROOT), str(folder)])
    command = [sys.executable, "-m", "onnx_upscale", *arguments]
    subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": paths}, check=True)
