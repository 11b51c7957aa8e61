"""`--config` and `--dry-run`: options from a file, and what they would do."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import onnx_upscale
from command import refused, run
from onnx_upscale.cli import main
from onnx_upscale.cli.settings import in_force, options_of, read_settings, toml
from onnx_upscale.foreseen import foresee
from onnx_upscale.optimizer.plan import as_it_is, plan
from onnx_upscale.options import Options
from onnx_upscale.prices import load_prices

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

JOB = ["in.onnx", "masks.json", "out.onnx"]
SAMPLE = Path(__file__).parents[2] / "models"
MODEL, MASKS = str(SAMPLE / "digits.onnx"), str(SAMPLE / "digits.masks.json")
COMMANDS = main.list_commands(click.Context(main))


def saved(text: str, name: str = "s.toml") -> list[str]:
    Path(name).write_text(text)
    return ["--config", name]


def forced(*arguments: str) -> dict[str, Any]:
    """What options of the main job are set to."""
    result = run(*JOB, *arguments, "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    settings: dict[str, Any] = json.loads(result.stdout)["settings"]
    return settings


def context_of(*arguments: str) -> click.Context:
    """The context of a command, as if it ran."""
    root = main.make_context("onnx-upscale", list(arguments))
    name, command, rest = main.resolve_command(root, root._protected_args + root.args)
    assert command is not None
    return command.make_context(name, rest, root)


@pytest.mark.usefixtures("here")
class TestSettings:
    def test_they_stand_in_for_options(self) -> None:
        text = """
            [optimize]
            strategy = "gather"
            target = "cuda"
            samples = 3
            rtol = 1
            verify-at = ["second.0"]
            input = ["x=2x3x6x6"]
            report = "r.json"
            verify = true
            quiet = true
            [prune]
            latency = [0.9, 0.7]
        """
        assert run(*JOB, *saved(text)).output == ""
        report = json.loads(Path("r.json").read_text())
        assert (report["strategy"], report["target"]) == ("gather", "cuda")
        assert report["verify"]["samples"] == 3
        assert report["input"]["macs"] == 2 * (4 * 4 * 8 * 27 + 4 * 4 * 5 * 8)

    def test_what_is_typed_wins(self) -> None:
        text = "[optimize]\nstrategy = 'gather'\nseed = 4\nverify = false\ninput = ['x=2x3x6x6']"
        config = saved(text)
        assert forced(*config)["strategy"] == "gather"
        given = ["--strategy", "upscale", "--verify", "--input", "x=1x3x6x6"]
        found = forced(*config, *given)
        assert (found["strategy"], found["seed"], found["verify"]) == ("upscale", 4, True)
        assert found["input"] == ["x=1x3x6x6"]

    def test_a_file_without_the_command_changes_nothing(self) -> None:
        assert forced(*saved("[bench]\nruns = 3")) == forced()
        assert forced(*saved("")) == forced()

    @pytest.mark.parametrize(
        ("command", "text", "typed", "expected"),
        [
            ("prune in.onnx o.onnx", "latency = 0.7", "--macs 0.5", {"macs": "0.5"}),
            ("prune in.onnx o.onnx", "latency = [0.9, '0.7']", "", {"latency": "0.9,0.7"}),
            ("prune in.onnx o.onnx", "latency = '5ms'", "--latency 0.7", {"latency": "0.7"}),
            ("mask in.onnx m.json", "amount = 0.5", "--budget 0.7", {"budget": 0.7}),
            ("mask in.onnx m.json", "amount = 1", "", {"amount": 1.0}),
            (
                "mask in.onnx m.json",
                "criterion = 'l1'\namount = 0.5",
                "--from torch f.pt",
                {"from": ["torch", "f.pt"]},
            ),
            (
                "mask in.onnx m.json",
                "from = ['torch', 'f.pt']\nseed = 3",
                "--criterion l1",
                {"criterion": "l1"},
            ),
        ],
    )
    def test_what_is_typed_leaves_no_room_for_its_rivals(
        self, command: str, text: str, typed: str, expected: dict[str, Any]
    ) -> None:
        name, *arguments = command.split()
        data = ["--data", "d.npy"] if name == "prune" else []
        config = saved(f"[{name}]\n{text}")
        found = in_force(context_of(name, *arguments, *data, *config, *typed.split()))
        rivals = {"latency", "macs", "amount", "budget", "criterion", "from"}
        assert {key: found[key] for key in rivals & set(found)} == expected

    def test_numbers_of_images_are_a_list(self) -> None:
        config = saved("[recover]\nmean = [0.5, 0.25, 1]\nstd = 2\ndata = 'images'")
        context = context_of("recover", *JOB, *config)
        assert (context.params["mean"], context.params["std"]) == ((0.5, 0.25, 1.0), (2.0,))

    @pytest.mark.parametrize(
        ("text", "saying"),
        [
            ("[optimise]", "[optimise]: is no command; closest: optimize"),
            (
                "strategy = 'auto'",
                "'strategy': stands in no table: settings stand below",
            ),
            (
                "optimize = 3",
                "'optimize': stands in no table: settings stand below",
            ),
            (
                "[optimize]\nstratgy = 'auto'",
                "[optimize] 'stratgy': no such setting; closest: strategy",
            ),
            (
                "[optimize]\nverify_at = []",
                "[optimize] 'verify_at': no such setting; closest: verify-at",
            ),
            ("[optimize]\nno-verify = true", "no such setting; closest: verify"),
            ("[optimize]\nconfig = 'a'", "[optimize] 'config': no such setting"),
            ("[optimize]\ndry-run = true", "[optimize] 'dry-run': no such setting"),
            ("[optimize]\nstrategy = 'best'", "[optimize] 'strategy': 'best' is not one of 'auto'"),
            ("[optimize]\nstrategy = 3", "[optimize] 'strategy': must be a text"),
            ("[optimize]\nsamples = 0", "[optimize] 'samples': 0 is not in the range x>=1"),
            ("[optimize]\nsamples = 2.0", "[optimize] 'samples': must be a whole number"),
            ("[optimize]\nsamples = true", "[optimize] 'samples': must be a whole number"),
            ("[optimize]\nrtol = '1'", "[optimize] 'rtol': must be a number"),
            ("[optimize]\ntune = 'yes'", "[optimize] 'tune': must be true or false"),
            ("[optimize]\nverify = 1", "[optimize] 'verify': must be true or false"),
            ("[optimize]\ninput = 'x=1'", "[optimize] 'input': must be a list of texts"),
            ("[optimize]\ninput = ['x=']\ninput = []", "bad TOML"),
            ("[optimize]\ninput = ['x=1xx']", "[optimize] 'input': 'x=1xx' is not of the form"),
            ("[optimize]\ninput = [['x']]", "[optimize] 'input': must be a list of texts"),
            ("[optimize]\nmean = 'a'", "[optimize] 'mean': 'a' is not of the form 0.5"),
            ("[optimize]\nmean = true", "[optimize] 'mean': must be a text, a number, or a list"),
            ("[optimize]\nmean = []", "[optimize] 'mean': must be a text, a number, or a list"),
            ("[optimize]\nreport = 1979-05-27", "[optimize] 'report': must be a text"),
            ("[optimize.deep]\na = 1", "[optimize] 'deep': no such setting"),
            ('[optimize]\nreport = "a\\u0000b"', "[optimize] 'report': must be a text that can be"),
            ('[optimize]\nverify-at = ["\\u0000"]', "[optimize] 'verify-at': must be a text that"),
            ("[mask]\nfrom = ['torch']", "[mask] 'from': must be a list of 2 texts"),
            ("[bench]\nruns = 0", "[bench] 'runs': 0 is not in the range x>=1"),
            ("[optimize", "bad TOML: "),
            ("\x00", "bad TOML: "),
            ("x = " + "[" * 5000, "bad TOML"),
        ],
    )
    def test_what_is_none(self, text: str, saying: str) -> None:
        refused(*JOB, *saved(text), saying=["s.toml: ", saying])

    def test_files_that_are_none(self) -> None:
        refused(*JOB, "--config", "none.toml", saying="none.toml: no such file")
        refused(*JOB, "--config", ".", saying=".: cannot be read: Is a directory")
        Path("s.toml").write_bytes(b"a = '\xff'")
        refused(*JOB, "--config", "s.toml", saying="s.toml: is no text in UTF-8")
        refused(*JOB, "--config", saying="--config")

    def test_no_result_replaces_the_file(self) -> None:
        refused(*JOB, *saved("[optimize]\nreport = 's.toml'"), saying="is the file of settings")
        refused("bench", "in.onnx", *saved(""), "--report", "s.toml", saying="is the file of sett")

    def test_help_needs_no_file(self) -> None:
        for option in ("--help", "--version"):
            assert run("optimize", "--config", "none.toml", option).exit_code == 0


def test_every_option_has_a_name_of_its_own() -> None:
    root = click.Context(main)
    for name in COMMANDS:
        command = main.get_command(root, name)
        assert command is not None
        known = options_of(command)
        assert {"json", "quiet"} <= known.keys()
        for key, option in known.items():
            assert f"--{key}" in option.opts


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
TYPED = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
ONE = st.one_of(
    st.booleans(), st.integers(-(2**62), 2**62), st.floats(allow_nan=False), TEXT, st.just("\x7f")
)


@given(st.dictionaries(st.from_regex("[a-z-]+", fullmatch=True), ONE | st.lists(TEXT)))
def test_what_is_written_is_read(settings: dict[str, Any]) -> None:
    lines = toml("optimize", settings)
    assert all(line.isprintable() for line in lines)
    assert tomllib.loads("\n".join(lines)) == {"optimize": settings}


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "strategy": st.sampled_from(["auto", "upscale", "gather", "constrained"]),
            "target": st.sampled_from(["cpu", "cuda", "p.json"]),
            "tune": st.booleans(),
            "verify": st.booleans(),
            "samples": st.integers(1, 9),
            "seed": st.integers(0, 9),
            "rtol": st.floats(0, 1),
            "verify-at": st.lists(TYPED, min_size=1),
            "input": st.just(["x=1x3", "y="]),
            "recover": st.booleans(),
            "data": TYPED,
            "mean": st.lists(st.floats(0, 1), min_size=1),
            "size": st.integers(1, 9),
            "report": TYPED,
        },
    )
)
def test_settings_in_force_can_be_fed_back(
    tmp_path_factory: pytest.TempPathFactory, settings: dict[str, Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "s.toml"
    path.write_text("\n".join(toml("optimize", settings)), encoding="utf-8")
    found = in_force(context_of(*JOB, "--config", str(path)))
    assert {key: found[key] for key in settings} == settings
    path.write_text("\n".join(toml("optimize", found)), encoding="utf-8")
    context = context_of(*JOB, "--config", str(path))
    assert in_force(context) == found
    assert set(read_settings(str(path), context)) == {"optimize"}


@pytest.mark.usefixtures("here")
class TestDryRun:
    def test_it_writes_nothing_and_says_what_would_be(self) -> None:
        before = sorted(Path().iterdir())
        result = run(*JOB, "--dry-run", "--report", "r.json", "--html", "p.html", "--samples", "3")
        assert (result.exit_code, result.stderr) == (0, "")
        assert sorted(Path().iterdir()) == before
        lines = result.stdout.splitlines()
        assert lines[0].startswith("# nothing is written: strategy auto for cpu-")
        assert any(
            line.split() == ["#", "second", "4", "of", "8", "5", "of", "5"] for line in lines
        )
        assert any(line.startswith("# predicted latency  ") for line in lines)
        settings = tomllib.loads(result.stdout)["optimize"]
        assert (settings["samples"], settings["report"]) == (3, "r.json")

    def test_what_it_prints_is_a_file_of_settings(self) -> None:
        options = ["--strategy", "gather", "--input", "x=2x3x6x6", "--no-verify"]
        Path("s.toml").write_text(run(*JOB, *options, "--dry-run").stdout)
        assert run(*JOB, "--config", "s.toml", "--dry-run").stdout == Path("s.toml").read_text()
        assert run(*JOB, "--config", "s.toml").exit_code == 0
        expected = onnx_upscale.optimize("in.onnx", "masks.json", strategy="gather", verify=False)
        assert Path("out.onnx").read_bytes() == expected.content

    def test_nothing_to_remove(self) -> None:
        result = run("in.onnx", "-", "out.onnx", "--dry-run")
        assert "# no layer would lose a channel" in result.stdout

    def test_quiet(self) -> None:
        assert run(*JOB, "--dry-run", "-q").output == ""

    def test_it_refuses_what_the_job_refuses(self) -> None:
        refused("none.onnx", "-", "out.onnx", "--dry-run", saying="none.onnx: no such file")
        refused("in.onnx", "-", "in.onnx", "--dry-run", saying="is the input model", out="o")
        refused(*JOB, "--dry-run", "--data", "x", saying="--recover and --data")

    def test_with_recovery(self) -> None:
        np.save("d.npy", np.zeros((4, 3, 6, 6), np.float32))
        result = run(*JOB, "--dry-run", "--recover", "--data", "d.npy", "--json")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["settings"]["data"] == "d.npy"

    def test_prune_has_none(self) -> None:
        saying = "--dry-run: what prune would remove is what it finds out by doing it"
        refused("prune", "in.onnx", "out.onnx", "--dry-run", saying=saying)


class TestForeseen:
    @pytest.mark.parametrize("strategy", ["auto", "upscale", "gather", "constrained"])
    def test_it_is_what_is_done(self, strategy: str) -> None:
        options = Options(strategy=strategy, target="cpu-avx2", verify=False)
        found = foresee(MODEL, MASKS, options)
        done = onnx_upscale.optimize(
            MODEL, MASKS, strategy=strategy, target="cpu-avx2", verify=False
        ).report
        assert found.predicted_seconds.after == done.predicted_seconds
        for name in ("input", "masks", "segments", "layers", "copies", "warnings", "profile"):
            assert getattr(found, name) == getattr(done, name)

    @pytest.mark.parametrize("masks", [MASKS, None])
    def test_before_is_the_model_as_it_is(self, masks: str | None) -> None:
        prices = load_prices("cpu-avx512")
        whole = onnx_upscale.analyze(MODEL)
        expected = plan(whole.analysis, "gather", prices).seconds
        assert as_it_is(onnx_upscale.analyze(MODEL, masks).analysis, prices).seconds == expected

    def test_before_counts_what_zeros_remove(self, tmp_path: Path) -> None:
        model = onnx.load(MODEL)
        path = str(tmp_path / "zeros.onnx")
        expected = foresee(model, None, Options(verify=False)).predicted_seconds.before
        weight = next(each for each in model.graph.initializer if len(each.dims) == 4)
        values = onnx.numpy_helper.to_array(weight).copy()
        values[: len(values) // 2] = 0
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        onnx.save(model, path)
        found = foresee(path, None, Options(verify=False)).predicted_seconds
        assert found.before == expected
        assert found.after < found.before
