"""What the command line says of itself comes without what takes long to import."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

import onnx_upscale
from onnx_upscale import choices
from onnx_upscale.cli import main
from onnx_upscale.criteria.table import CRITERIA
from onnx_upscale.importers import FORMATS
from onnx_upscale.making.make import RECONSTRUCTION
from onnx_upscale.optimizer.load.sides import Side
from onnx_upscale.optimizer.plan import Strategy
from onnx_upscale.storage import ExternalData

HEAVY = ("numpy", "onnx", "onnxruntime", "ml_dtypes", "google", "jinja2", "torch", "rich")
COMMANDS = main.list_commands(click.Context(main))
TELLING = f"""
import json, sys
from click.testing import CliRunner
from onnx_upscale.cli import main
for arguments, environment in json.loads(sys.stdin.read()):
    done = CliRunner().invoke(main, arguments, env=environment)
    imported = [name for name in {HEAVY!r} if name in sys.modules]
    print(json.dumps([done.exit_code, done.stdout, imported]))
"""

Told = tuple[int, str, list[str]]


def told(*lines: tuple[list[str], dict[str, str]]) -> list[Told]:
    """The status and output of command lines, one after the other in a process of its own.

    And what of `HEAVY` has been imported by then.
    """
    done = subprocess.run(
        [sys.executable, "-c", TELLING],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not done.stderr
    return [(*json.loads(line),) for line in done.stdout.splitlines()]


def test_help_and_bad_usage() -> None:
    wrong = ["in.onnx", "-", "out.onnx"]
    expected = [
        ([], 2),
        (["--help"], 0),
        (["--version"], 0),
        ([*wrong, "--fast"], 2),
        ([*wrong, "--strategy", "best"], 2),
        ([*wrong, "--input", "x=1xx"], 2),
        *(([name, "--help"], 0) for name in COMMANDS),
        *(([name, "--none"], 2) for name in COMMANDS),
    ]
    found = told(*((arguments, {}) for arguments, _ in expected))
    for (arguments, status), (ended, _, imported) in zip(expected, found, strict=True):
        assert (arguments, ended, imported) == (arguments, status, [])


def test_a_command_that_runs_imports_what_it_needs() -> None:
    ((status, _, imported),) = told((["analyze", "none.onnx"], {}))
    assert (status, imported[:2]) == (2, ["numpy", "onnx"])


# What other jobs need, and what no model of the sample's kind does; of the package its own parts.
SPARED = (
    *("api", "benchmark", "criteria", "exporter", "foreseen", "importers", "making", "page"),
    *("pricing", "pruning", "recovery", "samples", "tuning", "workers"),
)
SPARED_OF_OTHERS = ("jinja2", "numpy.ma", "onnx.reference", "rich", "torch")


@pytest.mark.parametrize("options", [[], ["--no-verify"], ["--strategy", "gather"]])
def test_the_main_job_imports_no_other_job(tmp_path: Path, options: list[str]) -> None:
    sample = Path(__file__).parents[2] / "models/digits.onnx"
    masks, out = sample.with_suffix(".masks.json"), tmp_path / "out.onnx"
    report = ["--report", str(tmp_path / "report.json")]
    code = f"""
import sys
from click.testing import CliRunner
from onnx_upscale.cli import main
arguments = {[str(sample), str(masks), str(out), *options, *report]!r}
assert CliRunner().invoke(main, arguments).exit_code == 0
print([name for name in {[*(f"onnx_upscale.{each}" for each in SPARED), *SPARED_OF_OTHERS]!r}
       if name in sys.modules], "onnxruntime" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == f"[] {options != ['--no-verify']}\n", done.stderr


def test_a_list_of_commands_imports_none_of_them() -> None:
    modules = [f"onnx_upscale.cli.{name}" for name in COMMANDS]
    code = f"""
import sys
from click.testing import CliRunner
from onnx_upscale.cli import main
print(CliRunner().invoke(main, ["--help"]).stdout)
print(sorted({{*{modules!r}}} & {{*sys.modules}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    *text, imported = done.stdout.splitlines()
    assert imported == "[]"
    assert [name for name in COMMANDS for line in text if line.startswith(f"  {name} ")] == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_what_lists_say_of_a_command_is_what_it_says(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    assert command.get_short_help_str(limit=1000) == main.helps[name]


def test_to_import_the_package_is_to_import_little() -> None:
    code = f"import onnx_upscale, sys; print(sorted({{*{HEAVY!r}}} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n"


COMPLETED = {
    "": [f"plain,{name}" for name in COMMANDS],
    "pr": ["plain,prune", "plain,price"],
    "--vers": ["plain,--version"],
    "--strat": ["plain,--strategy"],
    "model": ["file,model"],
    "in.onnx mas": ["file,mas"],
    "in.onnx masks.json out.onnx --strategy g": ["plain,gather"],
    "--strategy g": ["plain,gather"],
    "in.onnx - out.onnx --target cpu-av": ["plain,cpu-avx512", "plain,cpu-avx2"],
    "in.onnx - out.onnx --target pro": ["file,pro"],
    "in.onnx - out.onnx --report r": ["file,r"],
    "mask in.onnx m.json --criterion l": ["plain,l1", "plain,l2", "plain,lamp"],
    "mask in.onnx m.json --crit": ["plain,--criterion"],
    "bench a.onnx b": ["file,b"],
}


def test_completion() -> None:
    environments = [
        {
            "_ONNX_UPSCALE_COMPLETE": "bash_complete",
            "COMP_WORDS": f"onnx-upscale {words}",
            "COMP_CWORD": str(len(words.split(" "))),
        }
        for words in COMPLETED
    ]
    found = told(*(([], environment) for environment in environments))
    for (words, expected), (status, text, imported) in zip(COMPLETED.items(), found, strict=True):
        assert (words, text.splitlines(), status, imported) == (words, expected, 0, [])


def test_scripts_for_shells() -> None:
    shells = ("bash", "zsh", "fish")
    found = told(*(([], {"_ONNX_UPSCALE_COMPLETE": f"{shell}_source"}) for shell in shells))
    for shell, (status, script, imported) in zip(shells, found, strict=True):
        assert (status, imported) == (0, [])
        assert f"_ONNX_UPSCALE_COMPLETE={shell}_complete" in script


def test_choices_are_those_of_who_chooses() -> None:
    assert tuple(each.value for each in Strategy) == choices.STRATEGIES
    assert tuple(each.value for each in Side) == choices.SIDES
    assert (*CRITERIA, RECONSTRUCTION) == choices.CRITERIA
    assert tuple(FORMATS) == choices.FORMATS
    assert ExternalData.__args__ == choices.EXTERNAL_DATA  # type: ignore[attr-defined]
    for target in choices.TARGETS[1:]:
        profiles = Path(onnx_upscale.__file__).parent / "prices/profiles"
        assert (profiles / f"{target}.json").exists()


class TestThePackage:
    """Names are imported when somebody asks for one."""

    def test_every_name_is_there(self) -> None:
        for name in onnx_upscale.__all__:
            assert getattr(onnx_upscale, name) is not None
        assert set(onnx_upscale.__all__) <= set(dir(onnx_upscale))
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            onnx_upscale.nothing  # noqa: B018

    def test_what_types_are_told_is_what_is_imported(self) -> None:
        tree = ast.parse(Path(onnx_upscale.__file__).read_text())
        imported = {
            alias.name: node.module
            for block in tree.body
            if isinstance(block, ast.If)
            for node in block.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        # Not for `import *`, which would put it in the place of torch itself.
        assert imported.pop("torch") == "onnx_upscale"
        assert set(imported) == set(onnx_upscale.__all__) - {"__version__"}
        for name, module in imported.items():
            assert module is not None
            home = importlib.import_module(module)
            assert getattr(onnx_upscale, name) is getattr(home, name)

    def test_the_earlier_name(self) -> None:
        with pytest.warns(DeprecationWarning, match="called mask now"):
            assert onnx_upscale.make_masks is onnx_upscale.mask
