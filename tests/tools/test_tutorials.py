"""The tutorials run as they stand there."""

from __future__ import annotations

from pathlib import Path

import pytest

import tutorials

PAGES = sorted(tutorials.TUTORIALS.glob("*.md"))


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_runs(page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    ran = tutorials.run(text, tmp_path)
    assert ran.split("```")[::2] == text.split("```")[::2]


def test_what_a_block_prints_stands_behind_it(tmp_path: Path) -> None:
    page = "```python\na = 2\n```\n\n```python\nprint(a + a)\n```\n\n```text\n5\n```\n"
    assert tutorials.run(page, tmp_path) == page.replace("5", "4")


def test_a_block_that_fails_is_told(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no such thing"):
        tutorials.run("```python\nraise SystemExit('no such thing')\n```\n", tmp_path)
    with pytest.raises(RuntimeError, match=r"nowhere\.onnx"):
        tutorials.run("```sh\nonnx-upscale analyze nowhere.onnx\n```\n", tmp_path)


def test_only_this_package_is_called(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="rm -r"):
        tutorials.run("```sh\nrm -r .\n```\n", tmp_path)
