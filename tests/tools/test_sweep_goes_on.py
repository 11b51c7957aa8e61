"""A sweep that was stopped goes on where it was, unless the package is another by then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import onnx_upscale
import state
import sweep


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "package"
    (folder / "inner").mkdir(parents=True)
    for name in ("__init__.py", "inner/rule.py"):
        (folder / name).write_text("same")
    monkeypatch.setattr(onnx_upscale, "__file__", str(folder / "__init__.py"))
    return folder


def test_any_file_of_the_package_counts_but_not_what_python_compiled(package: Path) -> None:
    before = state.package_state()
    (package / "inner" / "rule.pyc").write_text("compiled")
    assert state.package_state() == before
    (package / "inner" / "data.json").write_text("")
    added = state.package_state()
    (package / "inner" / "rule.py").write_text("other")
    assert len({before, added, state.package_state()}) == 3


def left(folder: Path, monkeypatch: pytest.MonkeyPatch, *flags: str) -> list[str]:
    """The models that a run would take up, of four."""
    jobs = [(name, "new", None) for name in ("done", "older", "cut", "never")]
    found: list[str] = []
    monkeypatch.setattr(sweep, "_jobs", lambda folder, only: jobs)
    monkeypatch.setattr(sweep, "_warm_up", lambda: None)
    monkeypatch.setattr(sweep, "_run", lambda folder, state, name, *job: found.append(name))
    monkeypatch.setattr("sys.argv", ["sweep.py", "run", str(folder), *flags])
    sweep.main()
    return found


def test_lines_of_this_state_are_not_measured_again(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = state.package_state()
    states = {"done": now, "older": "0123456789ab", "cut": now}
    lines = [
        json.dumps({"model": name, "exporter": "new", "package": each})
        for name, each in states.items()
    ]
    (tmp_path / "results.jsonl").write_text("\n".join(lines)[:-1])
    assert left(tmp_path, monkeypatch) == ["older", "cut", "never"]
    assert left(tmp_path, monkeypatch, "--again") == ["done", "older", "cut", "never"]
    assert left(tmp_path, monkeypatch, "--exporter", "old") == []


def test_the_last_line_of_a_model_holds(tmp_path: Path) -> None:
    lines = [{"model": "one", "exporter": "new", "package": each} for each in ("a", "b")]
    (tmp_path / "results.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert [row["package"] for row in sweep.read(tmp_path)] == ["b"]
