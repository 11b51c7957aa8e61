"""The GitHub action: its steps run as on a runner, with a `gh` that keeps comments in a file."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml

from command import SMALL, small

ROOT = Path(__file__).parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]
BOT = "github-actions[bot]"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the action runs on Linux and macOS")
with_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="gh brings jq, this gh does not")

_GH = """\
#!{python}
import json, os, re, subprocess, sys

store = os.environ["COMMENTS"]
words = iter(sys.argv[1:])
assert next(words) == "api"
method, fields, query, path = "GET", {{}}, None, None
for word in words:
    if word == "--method":
        method = next(words)
    elif word == "--field":
        name, value = next(words).split("=", 1)
        assert value[0] == "@"
        fields[name] = open(value[1:]).read()
    elif word == "--jq":
        query = next(words)
    elif word not in ("--silent", "--paginate"):
        path = word
with open(store) as file:
    comments = json.load(file)
allowed = os.environ["GH_TOKEN"]
if allowed == "none" or (method != "GET" and allowed == "read"):
    sys.exit("gh: Resource not accessible by integration (HTTP 403)")
if method == "GET":
    assert path == "repos/me/net/issues/7/comments"
    done = subprocess.run(["jq", "-r", query], input=json.dumps(comments), text=True)
    sys.exit(done.returncode)
if method == "POST":
    assert path == "repos/me/net/issues/7/comments"
    comments.append({{"id": len(comments) + 1, "user": {{"login": {bot!r}}}, **fields}})
else:
    number = int(re.fullmatch("repos/me/net/issues/comments/([0-9]+)", path)[1])
    (comment,) = [each for each in comments if each["id"] == number]
    comment.update(fields)
with open(store, "w") as file:
    json.dump(comments, file)
"""


@dataclass
class Runner:
    """A runner of GitHub's, as far as the action sees it."""

    folder: Path
    statuses: dict[str, int] = field(default_factory=dict)
    errors: str = ""

    def __post_init__(self) -> None:
        (self.folder / "temp").mkdir()
        (self.folder / "bin").mkdir()
        (self.folder / "comments.json").write_text("[]")
        self.program("temp/onnx-upscale/bin/onnx-upscale", f"exec {sys.executable} -m onnx_upscale")
        gh = self.program("bin/gh")
        gh.write_text(_GH.format(python=sys.executable, bot=BOT))

    def program(self, name: str, line: str = "") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/sh\n{line} "$@"\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    def use(self, pull_request: str = "7", **inputs: str) -> int:
        """Runs the steps, and gives the status of the one that decides."""
        output, summary = self.folder / "output", self.folder / "summary.md"
        output.write_text("")
        summary.write_text("")
        known = {f"inputs.{name}": each.get("default", "") for name, each in _inputs().items()}
        known |= {f"inputs.{name}": value for name, value in inputs.items()}
        known |= {"github.event.pull_request.number": pull_request, "github.token": "write"}
        self.statuses, self.errors = {}, ""
        for step in STEPS:
            known |= {
                f"steps.run.outputs.{line.split('=', 1)[0]}": line.split("=", 1)[1]
                for line in output.read_text().splitlines()
            }
            done = subprocess.run(
                ["bash", "-e", "-c", step["run"]],
                cwd=self.folder,
                capture_output=True,
                text=True,
                env={
                    **os.environ,
                    "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                    "PYTHONPATH": str(ROOT),
                    "RUNNER_TEMP": str(self.folder / "temp"),
                    "GITHUB_ACTION_PATH": str(ROOT),
                    "GITHUB_OUTPUT": str(output),
                    "GITHUB_STEP_SUMMARY": str(summary),
                    "GITHUB_REPOSITORY": "me/net",
                    "COMMENTS": str(self.folder / "comments.json"),
                    **{name: _filled(each, known) for name, each in step["env"].items()},
                },
            )
            self.statuses[step["name"]] = done.returncode
            self.errors += done.stderr
            self.said = done.stdout
        return self.statuses["Run onnx-upscale"]

    @property
    def comments(self) -> list[str]:
        return [each["body"] for each in json.loads((self.folder / "comments.json").read_text())]

    @property
    def summary(self) -> str:
        return (self.folder / "summary.md").read_text()


def _inputs() -> dict[str, dict[str, Any]]:
    inputs: dict[str, dict[str, Any]] = ACTION["inputs"]
    return inputs


def _filled(value: str, known: Mapping[str, str]) -> str:
    filled = re.sub(r"\$\{\{ ([\w.]+) \}\}", lambda found: known[found[1]], value)
    return _filled(filled, known) if filled != value else filled


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    onnx.save(small().model("second.0"), tmp_path / "in.onnx")
    (tmp_path / "masks.json").write_text(json.dumps(SMALL))
    return Runner(tmp_path)


def test_nothing_from_outside_gets_into_a_script() -> None:
    for step in STEPS:
        assert step["shell"] == "bash"
        assert "${{" not in step["run"]
        assert all(re.fullmatch(r"\$\{\{ [\w.]+ \}\}", each) for each in step["env"].values())


def test_every_input_is_used_and_explained() -> None:
    used = {each for step in STEPS for each in step["env"].values()}
    assert {f"${{{{ inputs.{name} }}}}" for name in _inputs()} <= used
    page = (ROOT / "docs" / "action.md").read_text(encoding="utf-8")
    for name in [*_inputs(), *ACTION["outputs"]]:
        assert f"| `{name}` |" in page


def test_scripts_may_be_run() -> None:
    for name in ("install", "run", "tell"):
        assert os.access(ROOT / "action" / name, os.X_OK)
        subprocess.run(["bash", "-n", ROOT / "action" / name], check=True)


@with_jq
@pytest.mark.slow
def test_one_comment_is_kept_up_to_date(runner: Runner) -> None:
    assert runner.use(model="in.onnx", masks="masks.json") == 0, runner.errors
    assert (runner.folder / "pruned.onnx").exists()
    (first,) = runner.comments
    assert first == runner.summary
    assert first.startswith("<!-- onnx-upscale: pruned.onnx -->\n### onnx-upscale\n\npruned.onnx: ")
    assert "| weights | 256 | 128 | -50.0% |" in first
    assert "equal to the masked model" in first

    (runner.folder / "s.toml").write_text('[optimize]\nstrategy = "gather"\n')
    assert runner.use(model="in.onnx", masks="masks.json", config="s.toml") == 0, runner.errors
    (second,) = runner.comments
    assert "strategy gather" in second

    assert runner.use(model="in.onnx", masks="none.json") == 2
    (third,) = runner.comments
    assert (
        "It ended with status 2.\n\n    onnx-upscale: error: none.json: no such mask file" in third
    )

    assert runner.use(model="in.onnx", masks="masks.json", key="other -->") == 0
    assert [each.split("\n")[0] for each in runner.comments] == [
        "<!-- onnx-upscale: pruned.onnx -->",
        "<!-- onnx-upscale: other____ -->",
    ]


@with_jq
@pytest.mark.slow
def test_the_comment_of_somebody_else_stays(runner: Runner) -> None:
    theirs = {"id": 1, "user": {"login": "them"}, "body": "<!-- onnx-upscale: pruned.onnx -->"}
    ours = {"id": 2, "user": {"login": BOT}, "body": None}
    (runner.folder / "comments.json").write_text(json.dumps([theirs, ours]))
    assert runner.use(model="in.onnx", masks="masks.json") == 0
    assert runner.comments[:2] == [theirs["body"], None]
    assert len(runner.comments) == 3


@with_jq
@pytest.mark.slow
@pytest.mark.parametrize("token", ["none", "read"])
def test_who_may_not_comment_has_the_summary(runner: Runner, token: str) -> None:
    assert runner.use(model="in.onnx", masks="masks.json", token=token) == 0
    assert runner.statuses["Tell what came of it"] == 0
    assert runner.comments == []
    assert "| weights | 256 | 128 | -50.0% |" in runner.summary
    assert runner.said.startswith("::notice::onnx-upscale could not comment")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "comment"), [("", "true"), ("7", "false")])
def test_nobody_is_asked_without_a_pull_request(runner: Runner, number: str, comment: str) -> None:
    (runner.folder / "bin" / "gh").unlink()
    assert runner.use(number, model="in.onnx", masks="masks.json", comment=comment) == 0
    assert (runner.said, runner.comments) == ("", [])
    assert "| weights | 256 | 128 | -50.0% |" in runner.summary


def test_prune_takes_no_masks(runner: Runner) -> None:
    runner.program("temp/onnx-upscale/bin/onnx-upscale", "echo")
    assert runner.use(model="-m", command="prune", config="s.toml", comment="false") == 0
    report = runner.folder / "temp" / "onnx-upscale-[^/]+" / "report.json"
    words = f"prune --markdown --report {report} --config s.toml -- -m pruned.onnx"
    assert re.fullmatch(words, runner.summary.splitlines()[3])


@pytest.mark.parametrize(
    ("inputs", "saying"),
    [
        ({"model": ""}, "inputs model and out: must name files"),
        ({"model": "in.onnx", "out": ""}, "inputs model and out: must name files"),
        ({"model": "in.onnx", "command": "export"}, "input command: must be optimize or prune"),
        ({"model": "in.onnx", "command": "prune", "masks": "m"}, "input masks: prune takes none"),
    ],
)
def test_inputs_that_cannot_be_meant(runner: Runner, inputs: dict[str, str], saying: str) -> None:
    assert runner.use(**inputs, comment="false") == 2
    assert runner.errors.startswith(f"onnx-upscale: error: {saying}")
    assert runner.errors.count("\n") == 1
    assert f"    onnx-upscale: error: {saying}" in runner.summary


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["$(touch hacked).onnx", "`touch hacked`", '"; touch hacked; "', "--help", "a b\nc"]
)
def test_names_are_never_code(runner: Runner, name: str) -> None:
    assert runner.use(model=name, masks=name, out=name, key=name, comment="false") == 2
    assert not (runner.folder / "hacked").exists()
    assert runner.summary.startswith("<!-- onnx-upscale: ")
    assert "It ended with status 2." in runner.summary


class TestInstall:
    def installed(self, runner: Runner, python: str) -> subprocess.CompletedProcess[str]:
        environment = {"RUNNER_TEMP": str(runner.folder / "new"), "PYTHON": python}
        return subprocess.run(
            [ROOT / "action" / "install"],
            capture_output=True,
            text=True,
            env={**os.environ, **environment, "GITHUB_ACTION_PATH": "/of/the/action"},
        )

    def test_a_python_that_will_not_do(self, runner: Runner) -> None:
        for python in ("/no/python", str(runner.program("bin/old", "exit 1;"))):
            done = self.installed(runner, python)
            assert done.returncode == 2
            line = done.stderr.splitlines()[-1]
            assert line.endswith(f"input python: '{python}' is no Python 3.10 to 3.13")

    def test_the_package_comes_from_the_checkout_of_the_action(self, runner: Runner) -> None:
        made = runner.folder / "new" / "onnx-upscale" / "bin"
        inner = runner.program("bin/inner", "echo")
        python = runner.program(
            "bin/python",
            f'[ "$1" = -c ] || {{ mkdir -p {made}; cp {inner} {made}/python; }}; true',
        )
        done = self.installed(runner, str(python))
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "-m pip install --quiet /of/the/action[images]\n"
