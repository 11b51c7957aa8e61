"""Runs the tutorials of docs/tutorials, and writes down what they print.

    python tools/tutorials.py [NAME ...]

The blocks of Python and of shell of a page are one program, which runs in a folder that holds the
files of models/. A block of text behind one becomes what that printed.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TUTORIALS = ROOT / "docs" / "tutorials"
_BLOCK = re.compile(r"^```(python|sh|text)\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
_END = "--- end of a block ---"


def run(page: str, folder: Path) -> str:
    """Runs a tutorial.

    Args:
        page: Its text.
        folder: An empty folder to run it in.

    Returns:
        The page with what its blocks printed.

    Raises:
        RuntimeError: A block failed; the message is what it printed.
    """
    for file in (ROOT / "models").iterdir():
        shutil.copy(file, folder)
    blocks = [block.groups() for block in _BLOCK.finditer(page)]
    program = "".join(_code(*block) for block in blocks if block[0] != "text")
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    printed = iter(done.stdout.split(f"{_END}\n"))
    last = ""

    def filled(block: re.Match[str]) -> str:
        nonlocal last
        if block[1] == "text":
            return f"```text\n{last.rstrip()}\n```\n"
        last = next(printed)
        return block[0]

    return _BLOCK.sub(filled, page)


def _code(kind: str, body: str) -> str:
    if kind == "sh":
        body = "".join(f"{_call(line)}\n" for line in body.splitlines())
    return f"{body}\nprint({_END!r}, flush=True)\n"


def _call(line: str) -> str:
    program, *arguments = shlex.split(line)
    if program != "onnx-upscale":
        raise RuntimeError(f"not a command of this package: {line}")
    command = [sys.executable, "-m", "onnx_upscale", *arguments]
    return f"__import__('subprocess').run({command!r}, check=True)"


def main() -> None:
    for path in sorted(TUTORIALS.glob("*.md")):
        if len(sys.argv) > 1 and path.stem not in sys.argv[1:]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            path.write_text(run(path.read_text(encoding="utf-8"), Path(folder)), encoding="utf-8")
        print(path.stem, "ran")


if __name__ == "__main__":
    main()
