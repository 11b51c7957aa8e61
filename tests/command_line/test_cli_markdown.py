"""`--markdown`: what a command prints, as Markdown."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from command import refused, run, small
from onnx_upscale import main_job
from onnx_upscale.optimizer.verify import Verification

pytestmark = pytest.mark.usefixtures("here")

JOB = ["in.onnx", "masks.json", "out.onnx"]


def printed(*arguments: str) -> list[str]:
    """What is printed, whether a command is quiet or not."""
    loud, quiet = (run(*arguments, "--markdown", *more) for more in ([], ["-q"]))
    assert loud.exit_code == quiet.exit_code == 0, loud.output
    assert loud.stdout == quiet.stdout
    assert quiet.stderr == ""
    return loud.stdout.splitlines()


def test_the_main_job() -> None:
    lines = printed(*JOB)
    assert lines[:4] == [
        "out.onnx: strategy auto",
        "",
        "|  | before | after |  |",
        "| --- | --- | --- | --- |",
    ]
    assert lines[-1].startswith("equal to the masked model on 2 random inputs")


def test_a_dry_run_leaves_out_the_settings() -> None:
    lines = printed(*JOB, "--dry-run")
    assert lines[0].startswith("nothing is written: ")
    assert "| second | 4 of 8 | 5 of 5 |" in lines
    assert "[optimize]" not in lines


def test_names_are_no_markdown() -> None:
    model = small().model("second.0")
    model.graph.node[0].name = "<b>|\n@"
    onnx.save(model, "in.onnx")
    assert "| \\<b\\>\\|\\n@ | 3 of 3 | 4 of 8 |" in printed(*JOB, "--dry-run")


def test_a_file_of_settings_may_ask_for_it() -> None:
    for asked, typed, start in (
        ("markdown", [], "out.onnx: strategy"),
        ("markdown", ["--json"], "{"),
        ("json", ["--markdown"], "out.onnx: strategy"),
    ):
        Path("s.toml").write_text(f"[optimize]\n{asked} = true\n")
        result = run(*JOB, "--config", "s.toml", *typed)
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith(start)


def test_not_both() -> None:
    refused(*JOB, "--json", "--markdown", saying="--json and --markdown: give one of them")


def test_nothing_is_printed_of_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    refused("none.onnx", "-", "out.onnx", "--markdown", saying="none.onnx: no such file")
    wrong = Verification(2, 1.0, 0.5, False, (), "output 'y' differs")
    monkeypatch.setattr(main_job, "prove", lambda *_: wrong)
    refused(*JOB, "--markdown", saying="differs", status=3)
