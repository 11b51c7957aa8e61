"""The command line: what its main job prints where, its usage, and its other commands."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import onnx
import pytest

import onnx_upscale
from build import Net
from command import BEFORE, refused, run, shell


@pytest.mark.usefixtures("here")
class TestMainJob:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["in.onnx", "masks.json", "out.onnx"],
            ["optimize", "in.onnx", "masks.json", "out.onnx"],
            ["--strategy", "auto", "in.onnx", "masks.json", "out.onnx"],
            ["in.onnx", "masks.json", "out.onnx", "--strategy", "auto"],
            ["in.onnx", "--samples", "3", "masks.json", "--seed=4", "out.onnx", "--rtol", "1e-3"],
            ["--no-verify", "in.onnx", "masks.json", "out.onnx"],
            [
                "in.onnx",
                "masks.json",
                "out.onnx",
                "--strategy=gather",
                "--target",
                "cuda",
                "--atol",
                "0.5",
            ],
        ],
    )
    def test_forms(self, arguments: list[str]) -> None:
        result = run(*arguments)
        assert result.exit_code == 0, result.output
        assert "out.onnx" in result.stdout
        assert result.stderr == ""
        onnx.checker.check_model("out.onnx", full_check=True)
        shapes = {t.name: tuple(t.dims) for t in onnx.load("out.onnx").graph.initializer}
        assert shapes["first.weight"] == (4, 3, 3, 3)

    def test_no_masks(self) -> None:
        assert run("in.onnx", "-", "out.onnx").exit_code == 0
        before, after = onnx.load("in.onnx"), onnx.load("out.onnx")
        assert [node.name for node in before.graph.node] == [n.name for n in after.graph.node]

    @pytest.mark.parametrize("strategy", ["auto", "upscale", "gather", "constrained"])
    def test_the_same_call_gives_the_same_bytes(self, strategy: str) -> None:
        for out in ("one.onnx", "two.onnx"):
            done = shell("in.onnx", "masks.json", out, "--strategy", strategy)
            assert done.returncode == 0, done.stderr
        assert Path("one.onnx").read_bytes() == Path("two.onnx").read_bytes()

    def test_summary_says_what_was_gained(self) -> None:
        text = run("in.onnx", "masks.json", "out.onnx").stdout
        assert "-50.0%" in text  # half of the channels between the two layers go
        assert "equal to the masked model on 2 random inputs" in text
        assert "not verified" in run("in.onnx", "masks.json", "out.onnx", "--no-verify").stdout

    def test_quiet_and_verbose(self) -> None:
        result = run("in.onnx", "masks.json", "out.onnx", "-q")
        assert result.output == ""
        result = run("in.onnx", "masks.json", "out.onnx", "-v")
        assert "load" in result.stderr
        assert "graph output" in result.stderr
        assert "load" not in result.stdout

    def test_warnings_go_to_stderr(self) -> None:
        Path("none.json").write_text('{"version": 1, "masks": {"second": {"input": []}}}')
        result = run("in.onnx", "none.json", "out.onnx")
        assert "warning: the masks do not change the outputs" in result.stderr
        assert "warning" not in result.stdout
        assert run("in.onnx", "none.json", "out.onnx", "-q").output == ""

    def test_masks_that_name_zeros_need_no_warning(self) -> None:
        model = onnx.load("in.onnx")
        weight = next(each for each in model.graph.initializer if each.name == "second.weight")
        values = onnx.numpy_helper.to_array(weight).copy()
        values[:, [0, 3, 5, 6]] = 0
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        onnx.save(model, "zeros.onnx")
        assert "warning" not in run("zeros.onnx", "masks.json", "out.onnx").stderr

    def test_report_file(self) -> None:
        assert run("in.onnx", "masks.json", "out.onnx", "--report", "r.json").exit_code == 0
        report = json.loads(Path("r.json").read_text())
        assert report["input"]["path"] == "in.onnx"
        assert report["output"]["path"] == "out.onnx"
        assert report["output"]["bytes"] == Path("out.onnx").stat().st_size

    def test_replaces_out_through_a_link_and_keeps_its_mode(self) -> None:
        Path("old.onnx").write_bytes(BEFORE)
        Path("old.onnx").chmod(0o640)
        Path("out.onnx").symlink_to("old.onnx")
        assert run("in.onnx", "masks.json", "out.onnx").exit_code == 0
        assert Path("out.onnx").is_symlink()
        assert stat.S_IMODE(Path("old.onnx").stat().st_mode) == 0o640
        onnx.load("old.onnx")

    def test_a_long_name(self) -> None:
        name = "o" * 250 + ".onnx"
        assert run("in.onnx", "masks.json", name).exit_code == 0
        onnx.load(name)

    def test_profile_file(self) -> None:
        profile = Path(onnx_upscale.__file__).parent / "prices/profiles/cpu-avx2.json"
        assert run("in.onnx", "masks.json", "out.onnx", "--target", str(profile)).exit_code == 0

    def test_input_sizes(self) -> None:
        result = run("in.onnx", "-", "out.onnx", "--input", "x=2x3x6x6", "--report", "r.json")
        assert result.exit_code == 0
        macs = json.loads(Path("r.json").read_text())["input"]["macs"]
        assert macs == 2 * (4 * 4 * 8 * 27 + 4 * 4 * 5 * 8)


@pytest.mark.usefixtures("here")
class TestUsage:
    def test_version(self) -> None:
        for arguments in (["--version"], ["optimize", "--version"], ["in.onnx", "-", "--version"]):
            result = run(*arguments)
            assert result.exit_code == 0
            assert result.stdout == f"onnx-upscale, version {onnx_upscale.__version__}\n"

    @pytest.mark.parametrize("command", ["", "optimize", "analyze", "verify"])
    @pytest.mark.parametrize("option", ["--help", "-h"])
    def test_help(self, command: str, option: str) -> None:
        result = run(*filter(None, [command, option]))
        assert result.exit_code == 0
        assert result.stdout.startswith(f"Usage: onnx-upscale {command}".strip())
        assert "IN.onnx" in result.stdout
        assert result.stderr == ""

    @pytest.mark.parametrize(
        ("arguments", "saying"),
        [
            ("", "Missing argument 'IN.onnx'"),
            ("in.onnx masks.json", "Missing argument 'OUT.onnx'"),
            ("in.onnx masks.json out.onnx more", "unexpected extra argument"),
            ("in.onnx masks.json out.onnx --fast", "--fast"),
            ("in.onnx masks.json out.onnx --strategy best", "'best' is not one of 'auto'"),
            ("in.onnx masks.json out.onnx --tune --tune-seconds 0", "--tune-seconds 0: must be"),
            ("in.onnx masks.json out.onnx --tune-seconds 9", "has no meaning without --tune"),
            (
                "in.onnx masks.json out.onnx --tune --strategy gather",
                "--tune: is for strategy",
            ),
            ("in.onnx masks.json -", "OUT -: results go to files"),
            ("in.onnx masks.json out.onnx --report -", "--report -: results go to files"),
            ("in.onnx masks.json out.onnx --samples 0", "--samples"),
            ("in.onnx masks.json out.onnx --samples many", "'many'"),
            ("in.onnx masks.json out.onnx --rtol nan", "--rtol nan: must be a number from 0 on"),
            ("in.onnx masks.json out.onnx --atol inf", "--atol inf: must be a number from 0 on"),
            ("in.onnx masks.json out.onnx --rtol -1", "--rtol -1.0: must be a number from 0 on"),
            ("in.onnx masks.json out.onnx --seed -1", "--seed"),
            ("in.onnx masks.json out.onnx --report", "--report"),
            ("in.onnx masks.json out.onnx --input x", "not of the form NAME=1x3x224x224"),
            ("in.onnx masks.json out.onnx --input x=1xx", "not of the form NAME=1x3x224x224"),
            ("in.onnx masks.json out.onnx --input =1x3", "not of the form NAME=1x3x224x224"),
            ("in.onnx masks.json out.onnx --input x=1 --input x=1", "'x' is given twice"),
            ("in.onnx masks.json out.onnx --input y=1x3", "no such input (it has: x)"),
            ("in.onnx masks.json out.onnx --input x=1x4x6x6", "does not fit its shape batchx3x6x6"),
            ("in.onnx masks.json out.onnx --input x=1", "does not fit its shape batchx3x6x6"),
            (
                "in.onnx masks.json out.onnx --target tpu",
                "(built in: cpu, cpu-avx512, cpu-avx2, cpu-arm64, cuda)",
            ),
            ("analyze", "Missing argument 'IN.onnx'"),
            ("verify in.onnx", "Missing argument 'MASKS'"),
        ],
    )
    def test_bad_usage(self, arguments: str, saying: str) -> None:
        refused(*arguments.split(), saying=saying)

    @pytest.mark.parametrize(
        ("content", "saying"),
        [
            ("[]", "expected a JSON object"),
            ("{", "bad JSON at line 1, column 2"),
            ("{}", "field 'version' is missing, this program reads 1"),
            ('{"version": 2}', "unknown version 2, this program reads 1"),
            ('{"version": 1}', "field 'kind' is missing"),
            ('{"version": 1, "kind": "magic"}', "unknown kind 'magic' (known: analytic, table)"),
            ('{"version": 1, "kind": "analytic"}', "missing field"),
            ('{"version": 1, "kind": "analytic", "tax": 1}', "field"),
        ],
    )
    def test_broken_profile(self, content: str, saying: str) -> None:
        Path("p.json").write_text(content)
        arguments = ["in.onnx", "masks.json", "out.onnx", "--target", "p.json"]
        refused(*arguments, saying=["target 'p.json'", saying])


@pytest.mark.usefixtures("here")
class TestOtherCommands:
    def test_analyze(self) -> None:
        result = run("analyze", "in.onnx", "masks.json")
        assert result.exit_code == 0
        assert result.stderr == ""
        assert "first" in result.stdout
        assert "second (4)" in result.stdout
        assert "graph output" in result.stdout

    def test_analyze_as_json(self) -> None:
        rows = json.loads(run("analyze", "in.onnx", "--json").stdout)["segments"]
        inner = next(row for row in rows if row["channels"] == 8)
        assert inner["writers"] == ["first"]
        assert inner["readers"] == {"second": 8}
        assert set(inner["bytes_copied"]) == {"auto", "upscale", "gather", "constrained"}

    def test_analyze_refuses(self) -> None:
        refused("analyze", "none.onnx", saying="none.onnx: no such file")
        refused("analyze", "in.onnx", "none.json", saying="none.json: no such mask file")
        refused(
            "analyze",
            "in.onnx",
            "--target",
            "tpu",
            saying="(built in: cpu, cpu-avx512, cpu-avx2, cpu-arm64, cuda)",
        )

    @pytest.mark.parametrize("strategy", ["auto", "constrained"])
    def test_verify(self, strategy: str) -> None:
        run("in.onnx", "masks.json", "out.onnx", "--strategy", strategy)
        options = ["--strategy", strategy]
        result = run("verify", "in.onnx", "masks.json", "out.onnx", *options)
        assert result.exit_code == 0
        assert "equal to the masked model" in result.stdout
        assert run("verify", "in.onnx", "masks.json", "out.onnx", *options, "-q").output == ""

    def test_verify_finds_the_wrong_model(self) -> None:
        refused("verify", "in.onnx", "masks.json", "in.onnx", saying="output 'second.0'", status=3)
        other = Net(17, x=[1, 3, 6, 6])
        onnx.save(other.model(other("Relu", "x", name="other")), "other.onnx")
        saying = "output 'second.0' is missing"
        refused("verify", "in.onnx", "-", "other.onnx", saying=saying, status=3)
        other = Net(17, y=[1, 3, 6, 6])
        onnx.save(other.model(other("Relu", "y", name="second")), "other.onnx")
        saying = "emitted model: onnxruntime cannot run it"
        refused("verify", "in.onnx", "-", "other.onnx", saying=saying, status=3)
