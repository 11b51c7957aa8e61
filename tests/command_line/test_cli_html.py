"""`--html`: pages that commands write, and what they refuse to write over."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import pytest

from benchmarks import small as to_bench
from build import Net
from command import BEFORE, refused, run
from html_page import headings, read_page
from onnx_upscale import main_job
from onnx_upscale.cli.again import command_line
from onnx_upscale.cli.prune import prune
from onnx_upscale.optimizer.apply import apply


@pytest.mark.usefixtures("here")
class TestCommands:
    def test_the_main_job(self) -> None:
        result = run("in.onnx", "masks.json", "out.onnx", "--html", "page.html", "-q")
        assert result.exit_code == 0, result.output
        assert result.output == ""
        root = read_page(Path("page.html").read_bytes())
        assert "Written to out.onnx" in root.text
        assert headings(root)[-1] == "Layer by layer"

    def test_analyze(self) -> None:
        plain = run("analyze", "in.onnx", "masks.json")
        result = run("analyze", "in.onnx", "masks.json", "--html", "page.html")
        assert (result.exit_code, result.output) == (0, plain.output)
        assert headings(read_page(Path("page.html").read_bytes()))[0] == "Strategies"

    def test_bench(self) -> None:
        onnx.save(to_bench(), "a.onnx")
        options = ["--runs", "2", "--no-memory", "--html", "page.html", "--report", "r.json"]
        result = run("bench", "a.onnx", *options)
        assert result.exit_code == 0, result.output
        root = read_page(Path("page.html").read_bytes())
        assert "2 runs are too few for a 95% interval" in root.text
        assert "--runs 6 or more gives one" in root.text  # As messages of commands say it.
        assert Path("r.json").exists()

    def test_a_model_that_differs_has_a_page_as_well(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*arguments: Any) -> Any:
            emitted = apply(*arguments)
            weight = emitted.model.graph.initializer[0]
            weight.raw_data = b"\0\0\0\0" + weight.raw_data[4:]
            return emitted

        monkeypatch.setattr(main_job, "apply", broken)
        result = run("in.onnx", "masks.json", "out.onnx", "--html", "page.html")
        assert result.exit_code == 3, result.output
        assert not Path("out.onnx").exists()
        assert "Verification failed: it differs" in read_page(Path("page.html").read_bytes()).text

    @pytest.mark.parametrize(
        ("path", "saying"),
        [
            ("in.onnx", "--html in.onnx: is the input model, which would be lost"),
            ("masks.json", "--html masks.json: is the mask file"),
            ("./out.onnx", "--html ./out.onnx: is OUT as well"),
            ("r.json", "--html r.json: is --report as well"),
            ("nowhere/page.html", "nowhere/page.html: there is no directory"),
            (".", ".: is a directory"),
        ],
    )
    def test_what_it_would_replace(self, path: str, saying: str) -> None:
        options = ["--report", "r.json", "--html", path]
        before = {each.name: each.read_bytes() for each in Path().iterdir()}
        refused("in.onnx", "masks.json", "out.onnx", *options, saying=saying)
        Path("out.onnx").unlink()
        assert {each.name: each.read_bytes() for each in Path().iterdir()} == before

    @pytest.mark.parametrize(
        ("arguments", "saying"),
        [
            (["analyze", "in.onnx", "masks.json", "--html", "masks.json"], "is the mask file"),
            (["analyze", "in.onnx", "--html", "nowhere/p"], "there is no directory"),
            (["analyze", "none.onnx", "--html", "nowhere/p"], "none.onnx: no such file"),
            (["bench", "in.onnx", "--html", "in.onnx"], "--html in.onnx: is model 1"),
            (["bench", "in.onnx", "--report", "p", "--html", "p"], "--html p: is --report as well"),
            (["bench", "in.onnx", "--html", "."], "is a directory"),
        ],
    )
    def test_other_commands_refuse_the_same(self, arguments: list[str], saying: str) -> None:
        before = {each.name: each.read_bytes() for each in Path().iterdir()}
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        assert saying in result.stderr
        assert result.stderr.count("\n") == 1
        assert {each.name: each.read_bytes() for each in Path().iterdir()} == before

    def test_prune_refuses_the_same(self) -> None:
        np.save("data.npy", np.zeros((4, 3, 6, 6), np.float32))
        for path in ("in.onnx", "data.npy", "out.onnx", "nowhere/page.html"):
            options = ["--data", "data.npy", "--macs", "0.5", "--html", path]
            refused("prune", "in.onnx", "out.onnx", *options, saying=path)

    def test_nothing_is_half_written(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> bytes:
            raise OSError("no template")

        monkeypatch.setattr("onnx_upscale.cli.pages.render", fail)
        Path("page.html").write_bytes(BEFORE)
        options = ["--report", "r.json", "--html", "page.html"]
        refused("in.onnx", "masks.json", "out.onnx", *options, saying="no template", status=1)
        assert Path("page.html").read_bytes() == BEFORE
        assert not Path("r.json").exists()


def test_help_and_what_needs_no_page_load_no_templates() -> None:
    script = (
        "import sys; from onnx_upscale.cli import main\n"
        "try: main(['prune', '--help'])\n"
        "finally: print('jinja2' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--html FILE" in done.stdout
    assert done.stdout.endswith("\nFalse\n")


class TestCommandLine:
    """A command as a line for a shell, which must mean the same."""

    ARGUMENTS = (
        *("prune", "in model.onnx", "out", "--latency", "0.9,0.7", "--data", "it's data/"),
        *("--layers", "*mlp*", "--layers", "-x", "--input", "x=1x3x8", "--input", "scalar="),
        *("--mean", "0.5,0.25", "--samples", "40", "-q", "--html", "page.html"),
    )

    def context(self, arguments: list[str]) -> click.Context:
        name, *rest = arguments
        assert name == "prune"
        return prune.make_context("onnx-upscale prune", rest)

    def test_the_same_again(self) -> None:
        given = self.context(list(self.ARGUMENTS))
        line = command_line(given, {})
        program, *arguments = shlex.split(line)
        assert program == "onnx-upscale"
        assert self.context(arguments).params == given.params

    def test_one_of_several_goals(self) -> None:
        given = self.context(list(self.ARGUMENTS))
        line = command_line(given, {"out": "out/0.7.onnx", "latency": "0.7", "html": None})
        again = self.context(shlex.split(line)[1:])
        changed = {"out": "out/0.7.onnx", "latency": "0.7", "html": None}
        assert again.params == {**given.params, **changed}
        assert "--seed" not in line  # Nobody gave one.
        assert "'it'\"'\"'s data/'" in line

    def test_flags_with_two_names(self) -> None:
        @click.command()
        @click.option("--keep/--no-keep", default=True)
        @click.argument("rest", nargs=-1)
        def made(keep: bool, rest: tuple[str, ...]) -> None: ...

        for arguments in (["a", "b", "--no-keep"], ["a", "--keep"], ["a"]):
            assert command_line(made.make_context("x", arguments[:]), {}) == shlex.join(
                ["x", *arguments]
            )


@pytest.mark.slow
def test_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net = Net(17, x=["batch", 8])
    hidden = net("Relu", net("MatMul", "x", net.constant(net.random(8, 512), "a")))
    wide = net("Relu", net("MatMul", hidden, net.constant(net.random(512, 512), "b")))
    onnx.save(net.model(net("MatMul", wide, net.constant(net.random(512, 4), "c"))), "in.onnx")
    np.save("data.npy", np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32))
    command = ["prune", "in.onnx", "out", "--data", "data.npy", "--seed", "3"]
    monkeypatch.setattr(
        "onnx_upscale.pruning.pruner.Pruner._measured_choice",
        lambda self, goal: self.chosen(goal.value),  # However fast they are here.
    )
    result = run(*command, "--latency", "0.9,0.6", "--html", "page.html")
    assert result.exit_code == 0, result.output
    root = read_page(Path("page.html").read_bytes())
    assert headings(root)[:4] == [
        *("Fidelity against latency", "Models", "out/0.9.onnx", "out/0.6.onnx"),
    ]
    lines = [each.text for each in root.all("pre")]
    assert lines == [
        f"onnx-upscale prune in.onnx out/{goal}.onnx --data data.npy --seed 3 --latency {goal}"
        for goal in ("0.9", "0.6")
    ]
    # What the line says makes the model of that point.
    wanted = Path("out/0.6.onnx").read_bytes()
    again = run(*shlex.split(lines[1])[1:])
    assert again.exit_code == 0, again.output
    assert Path("out/0.6.onnx").read_bytes() == wanted
