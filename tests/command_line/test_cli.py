"""The command line: what it prints where, what it leaves behind, and how it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import json
import os
import signal
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper

import onnx_upscale
from build import Net
from onnx_upscale import api
from onnx_upscale.cli import main
from onnx_upscale.optimizer.apply import apply

BEFORE = b"what was there before"
SMALL = {"version": 1, "masks": {"second": {"input": [0, 3, 5, 6]}}}


def small() -> Net:
    net = Net(17, x=["batch", 3, 6, 6])
    first = net("Conv", "x", net.constant(net.random(8, 3, 3, 3), "first.weight"), name="first")
    active = net("Relu", first, name="active")
    net("Conv", active, net.constant(net.random(5, 8, 1, 1), "second.weight"), name="second")
    return net


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with in.onnx and masks.json, in which no temporary file may be left."""
    monkeypatch.chdir(tmp_path)
    onnx.save(small().model("second.0"), "in.onnx")
    Path("masks.json").write_text(json.dumps(SMALL))
    yield tmp_path
    assert not list(tmp_path.rglob("*.tmp"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def shell(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "onnx_upscale", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


@contextlib.contextmanager
def started_writing(
    also: str = "", ignoring: signal.Signals | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process of the command line that waits for a line of input while it writes OUT."""
    script = f"""
import os, sys
from pathlib import Path
from onnx_upscale.cli import main
def fsync(_):
    print("writing", flush=True)
    sys.stdin.readline()
os.fsync = fsync
{also}
main(["in.onnx", "masks.json", "out.onnx", "--no-verify"])
"""

    def prepare() -> None:  # Whatever ran these tests may ignore some.
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN if each is ignoring else signal.SIG_DFL)

    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "writing\n"
            assert list(Path().glob("*.tmp"))
            yield process
        finally:
            process.kill()


def refused(
    *arguments: str, saying: str | list[str], status: int = 2, out: str = "out.onnx"
) -> str:
    """Runs what must fail in one clear line, without OUT and with one that must stay."""
    line = ""
    for before in (None, BEFORE):
        Path(out).unlink(missing_ok=True)
        if before is not None:
            Path(out).write_bytes(before)
        result = run(*arguments)
        assert result.exit_code == status, result.output
        assert result.stdout == ""
        line = result.stderr
        assert line.startswith("onnx-upscale: error: ")
        assert line.count("\n") == 1, line
        for part in [saying] if isinstance(saying, str) else saying:
            assert part in line
        assert (Path(out).read_bytes() if Path(out).exists() else None) == before
    return line


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
class TestBadModels:
    @pytest.mark.parametrize(
        ("content", "saying"),
        [
            (b"", "not an ONNX model"),
            (np.random.default_rng(0).bytes(5000), "not an ONNX model"),
            (b"\x08\x0a", "not an ONNX model"),  # an IR version and nothing else
            (b'{"irVersion": 8}', "not an ONNX model"),
        ],
    )
    def test_no_model(self, content: bytes, saying: str) -> None:
        Path("bad.onnx").write_bytes(content)
        refused("bad.onnx", "-", "out.onnx", saying=["bad.onnx", saying])
        Path("bad.json").write_bytes(content)
        refused("bad.json", "-", "out.onnx", saying=["bad.json", saying])

    def test_truncated(self) -> None:
        whole = Path("in.onnx").read_bytes()
        for end in range(1, len(whole), 97):
            Path("bad.onnx").write_bytes(whole[:end])
            result = run("bad.onnx", "masks.json", "out.onnx")
            assert result.exit_code == 2, end
            assert result.stderr.count("\n") == 1
        assert not Path("out.onnx").exists()

    def test_no_file(self) -> None:
        refused("none.onnx", "masks.json", "out.onnx", saying="none.onnx: no such file")
        refused("in.onnx/x.onnx", "masks.json", "out.onnx", saying="cannot be read")
        refused("n" * 300, "masks.json", "out.onnx", saying="name too long")
        refused("../" + "x/" * 3, "masks.json", "out.onnx", saying="no such file")

    def test_directory(self) -> None:
        refused(".", "masks.json", "out.onnx", saying="is a directory, not an ONNX file")

    def test_arguments_swapped(self) -> None:
        refused("masks.json", "in.onnx", "out.onnx", saying="masks.json: not an ONNX model")

    def test_external_weights(self) -> None:
        model = onnx.load("in.onnx")
        onnx.save(model, "big.onnx", save_as_external_data=True, location="w", size_threshold=0)
        assert run("big.onnx", "masks.json", "out.onnx").exit_code == 0
        weights = Path("w").read_bytes()
        Path("w").write_bytes(weights[:-4])
        refused("big.onnx", "masks.json", "out.onnx", saying=["big.onnx", "weight", "bytes"])
        Path("w").unlink()
        refused("big.onnx", "masks.json", "out.onnx", saying="external weights cannot be read")

    def test_broken_graph(self) -> None:
        model = onnx.load("in.onnx")
        model.graph.node[1].input[0] = "lost"
        onnx.save(model, "bad.onnx")
        refused("bad.onnx", "masks.json", "out.onnx", saying=["'active'", "'lost'"])

    def test_names_that_are_no_text(self) -> None:
        broken = Path("in.onnx").read_bytes().replace(b"active", b"\xff" * 6)
        Path("bad.onnx").write_bytes(broken)
        refused("bad.onnx", "-", "out.onnx", saying=["bad.onnx: is not valid ONNX", "utf-8"])

    def test_what_fails_on_an_invalid_model(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fails(*_: Any) -> None:
            raise KeyError("axis")

        monkeypatch.setattr(api, "analyze_graph", fails)
        model = onnx.load("in.onnx")
        assert run("in.onnx", "masks.json", "out.onnx").exit_code == 1
        model.graph.node.add(op_type="Concat", name="c", input=["x"], output=["c"])
        onnx.save(model, "bad.onnx")
        refused("bad.onnx", "-", "out.onnx", saying=["bad.onnx: is not valid ONNX", "'axis'"])

    def test_a_model_that_onnxruntime_cannot_load(self) -> None:
        model = onnx.load("in.onnx")
        model.graph.node.add(
            op_type="Mystery", domain="example", name="m", input=["second.0"], output=["y"]
        )
        model.opset_import.add(domain="example", version=1)
        del model.graph.output[:]
        model.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))
        onnx.save(model, "custom.onnx")
        arguments = ["custom.onnx", "masks.json", "out.onnx"]
        refused(*arguments, saying=["onnxruntime cannot load it", "example", "--no-verify"])
        result = run(*arguments, "--no-verify")
        assert result.exit_code == 0, result.output
        assert [n.op_type for n in onnx.load("out.onnx").graph.node][-1] == "Mystery"


IN, OUT = "'input'", "'output'"


def masks_of(layer: Any, **more: Any) -> str:
    return json.dumps({"version": 1, "masks": {"second": layer}, **more})


@pytest.mark.usefixtures("here")
class TestBadMasks:
    @pytest.mark.parametrize(
        ("content", "saying"),
        [
            (masks_of({"input": [8]}), ["'second'", IN, "channel 8 is out of range", "0 to 7"]),
            (masks_of({"input": {"keep": [17]}}), ["'second'", IN, "channel 17 is out of"]),
            (masks_of({"output": [0, -1]}), ["'second'", OUT, "channel -1 is negative"]),
            (masks_of({"output": [2**70]}), ["'second'", OUT, "out of range"]),
            (masks_of({"input": {"mask": [1, 0, 1]}}), ["'second'", IN, "has 3", "8 channels"]),
            (masks_of({"input": {"mask": [0, 1, 2]}}), ["'second'", IN, "0 or 1", "found 2"]),
            (masks_of({"input": ["0"]}), ["'second'", IN, "whole numbers, found '0'"]),
            (masks_of({"input": [1.0]}), ["'second'", IN, "whole numbers, found 1.0"]),
            (masks_of({"input": [True]}), ["'second'", IN, "whole numbers, found True"]),
            (masks_of({"input": [None]}), ["'second'", IN, "whole numbers, found None"]),
            (masks_of({"input": "0"}), ["'second'", IN, "a list of whole numbers, found '0'"]),
            (masks_of({"input": 0}), ["'second'", IN, "a list of whole numbers, found 0"]),
            (masks_of({"input": {}}), ["'second'", IN, "exactly one of prune, keep, mask"]),
            (
                masks_of({"input": {"keep": [0], "prune": [1]}}),
                ["'second'", IN, "exactly one", "found keep, prune"],
            ),
            (masks_of({"input": {"drop": [0]}}), ["'second'", IN, "unknown field 'drop'"]),
            (masks_of({"inputs": [0]}), ["'second'", "unknown field 'inputs'", "input, output"]),
            (masks_of([0]), ["'second'", "expected an object with 'input' and/or 'output'"]),
            (masks_of({}, extra=1), ["masks.json", "unknown field 'extra'"]),
            ('{"version": 2, "masks": {}}', ["masks.json", "unknown version 2", "version 1"]),
            ('{"version": "1", "masks": {}}', ["masks.json", "unknown version '1'"]),
            ('{"version": true, "masks": {}}', ["masks.json", "unknown version True"]),
            ('{"masks": {}}', ["masks.json", "unknown version none"]),
            ('{"version": 1}', ["masks.json", "'masks'", "expected an object"]),
            ("[]", ["masks.json", "expected an object with 'version' and/or 'masks'"]),
            ('{"version": 1,\n "masks": {,}}', ["masks.json", "bad JSON at line 2, column 12"]),
            ("", ["masks.json", "bad JSON at line 1, column 1"]),
            ("[" * 200_000, ["masks.json", "bad JSON"]),
            ('{"version": ' + "1" * 5000 + "}", ["masks.json", "bad JSON"]),
            ('{"version": 1, "version": 1, "masks": {}}', ["masks.json", "duplicate"]),
            (
                '{"version": 1, "masks": {"a": {}, "second": {}, "a": {}}}',
                ["masks.json", "duplicate key 'a'"],
            ),
            (
                '{"version": 1, "masks": {"second": {"input": [], "input": []}}}',
                ["'second'", "duplicate key 'input'"],
            ),
            (
                '{"version": 1, "masks": {"second": {"input": {"keep": [], "keep": []}}}}',
                ["'second'", IN, "duplicate key 'keep'"],
            ),
        ],
    )  # fmt: skip
    def test_json(self, content: str, saying: list[str]) -> None:
        Path("masks.json").write_text(content)
        refused("in.onnx", "masks.json", "out.onnx", saying=saying)

    def test_not_text(self) -> None:
        Path("masks.json").write_bytes(b"\xff\xfe{}")
        refused("in.onnx", "masks.json", "out.onnx", saying=["masks.json", "not UTF-8 text"])

    def test_a_byte_order_mark_is_fine(self) -> None:
        Path("masks.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(SMALL).encode())
        assert run("in.onnx", "masks.json", "out.onnx").exit_code == 0

    def test_no_file(self) -> None:
        refused("in.onnx", "none.json", "out.onnx", saying="none.json: no such mask file (use '-'")
        refused("in.onnx", ".", "out.onnx", saying="is a directory, not a mask file")
        refused("in.onnx", "m" * 300, "out.onnx", saying="name too long")

    def test_unknown_layer(self) -> None:
        for key in ("secnd", "second.wieght"):
            Path("masks.json").write_text(json.dumps({"version": 1, "masks": {key: {"input": []}}}))
            arguments = ["in.onnx", "masks.json", "out.onnx"]
            refused(*arguments, saying=[f"mask '{key}'", "no such layer", "closest: second"])

    def test_no_such_side(self) -> None:
        for key in ("active", "active.0"):
            Path("masks.json").write_text(json.dumps({"version": 1, "masks": {key: {"input": []}}}))
            arguments = ["in.onnx", "masks.json", "out.onnx"]
            refused(*arguments, saying=[f"mask '{key}', side 'input'", "Relu", "no channels"])

    def test_matmul_with_a_vector_has_no_output_side(self) -> None:
        net = Net(17, x=[2, 4])
        onnx.save(net.model(net("MatMul", "x", net.random(4), name="second")), "in.onnx")
        Path("masks.json").write_text(masks_of({"output": [0]}))
        saying = ["'second'", "'output'", "no output channels"]
        refused("in.onnx", "masks.json", "out.onnx", saying=saying)

    def test_weight_that_is_not_constant(self) -> None:
        net = Net(17, x=[1, 3, 6, 6], w=[5, 3, 1, 1])
        onnx.save(net.model(net("Conv", "x", "w", name="second")), "in.onnx")
        Path("masks.json").write_text(masks_of({"input": [0]}))
        saying = ["'second'", "'input'", "not constant"]
        refused("in.onnx", "masks.json", "out.onnx", saying=saying)

    @pytest.mark.parametrize(
        ("arrays", "saying"),
        [
            ({"second": np.ones(4, bool)}, ["masks.npz", "'second'", "KEY.input or KEY.output"]),
            ({".input": np.ones(4, bool)}, ["masks.npz", "'.input'", "KEY.input or KEY.output"]),
            ({"second.inputs": np.ones(4, bool)}, ["masks.npz", "'second.inputs'"]),
            ({"second.input": np.ones(3, bool)}, ["'second'", IN, "3 entries", "8 channels"]),
            ({"second.input": np.ones(4, np.float32)}, ["'second'", "'input'", "float32"]),
            ({"second.input": np.ones((4, 1), bool)}, ["'second'", "'input'", "(4, 1)"]),
            ({"second.input": np.array([0, 1, 2, 1])}, ["'second'", "'input'", "0/1"]),
            ({"second.input": np.array([None])}, ["masks.npz", "not a readable .npz"]),
            ({"third.input": np.ones(4, bool)}, ["'third'", "no such layer"]),
        ],
    )  # fmt: skip
    def test_npz(self, arrays: dict[str, Any], saying: list[str]) -> None:
        np.savez("masks.npz", **arrays)
        refused("in.onnx", "masks.npz", "out.onnx", saying=saying)

    def test_broken_npz(self) -> None:
        arrays: Any = {"second.input": np.ones(4, bool)}
        np.savez_compressed("good.npz", **arrays)
        good = Path("good.npz").read_bytes()
        flipped = bytearray(good)
        flipped[70:90] = bytes(20)
        array = io.BytesIO()
        np.save(array, np.ones(4, bool))
        for bad in (b"", b"PK", good[:-30], bytes(flipped), array.getvalue()):
            Path("masks.npz").write_bytes(bad)
            refused("in.onnx", "masks.npz", "out.onnx", saying="masks.npz: not a")

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_odd_archives(self) -> None:
        array = io.BytesIO()
        np.save(array, np.ones(4, bool))
        with zipfile.ZipFile("masks.npz", "w") as archive:
            archive.writestr("second.input.npy", array.getvalue())
            archive.writestr("second.input.npy", array.getvalue())
        refused("in.onnx", "masks.npz", "out.onnx", saying="duplicate key 'second.input'")
        with zipfile.ZipFile("masks.npz", "w") as archive:
            archive.writestr("second.input", "hello")
        refused("in.onnx", "masks.npz", "out.onnx", saying=["'second'", "0/1 vector"])


@pytest.mark.usefixtures("here")
class TestResults:
    """Files that must not be lost, and files that cannot be written."""

    @pytest.mark.parametrize(
        "out", ["in.onnx", "./in.onnx", "link.onnx", "hard.onnx", "sub/../in.onnx"]
    )
    def test_out_is_in(self, out: str) -> None:
        Path("link.onnx").symlink_to("in.onnx")
        Path("hard.onnx").hardlink_to("in.onnx")
        Path("sub").mkdir()
        before = Path("in.onnx").read_bytes()
        for arguments in ([out], [str(Path(out).absolute())], ["out.onnx", "--report", out]):
            result = run("in.onnx", "masks.json", *arguments)
            assert result.exit_code == 2
            assert "is the input model, which would be lost" in result.stderr
        assert Path("in.onnx").read_bytes() == before
        assert not Path("out.onnx").exists()

    def test_other_sources_and_results(self) -> None:
        before = Path("masks.json").read_bytes()
        for arguments, saying in (
            (["masks.json"], "OUT masks.json: is the mask file"),
            (["out.onnx", "--report", "masks.json"], "--report masks.json: is the mask file"),
            (["out.onnx", "--report", "./out.onnx"], "--report ./out.onnx: is OUT as well"),
            (["p.json", "--target", "p.json"], "OUT p.json: is the profile"),
        ):
            result = run("in.onnx", "masks.json", *arguments)
            assert result.exit_code == 2
            assert saying in result.stderr
        assert Path("masks.json").read_bytes() == before
        assert not Path("out.onnx").exists()

    @pytest.mark.parametrize(
        ("out", "saying"),
        [
            ("none/out.onnx", "there is no directory"),
            ("sub", "is a directory, give the name of a file"),
            ("masks.json/out.onnx", "there is no directory"),
            ("/dev/null", "not a regular file"),
            ("/proc/out.onnx", "cannot be written"),
            ("o" * 300, "name too long"),
        ],
    )
    def test_unwritable(self, out: str, saying: str) -> None:
        Path("sub").mkdir()
        for arguments in ([out], ["out.onnx", "--report", out]):
            result = run("in.onnx", "masks.json", *arguments)
            assert result.exit_code == 2, result.output
            assert result.stderr.startswith(f"onnx-upscale: error: {out}: ")
            assert saying in result.stderr
            assert result.stderr.count("\n") == 1
            assert not Path("out.onnx").exists()

    def test_no_permission(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda *_: False)
        refused("in.onnx", "masks.json", "out.onnx", saying="out.onnx: no permission to write in")

    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_full_disk(self, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, call, full)
        arguments = ["in.onnx", "masks.json", "out.onnx", "--report", "r.json"]
        refused(*arguments, saying="No space left on device")
        assert not Path("r.json").exists()

    def test_a_disk_that_is_really_full(self, here: Path) -> None:
        disk = here / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=4k,mode=777", "tmpfs", str(disk)]
        if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("mounting is not allowed here")
        try:
            (disk / "out.onnx").write_bytes(BEFORE)
            result = run("in.onnx", "masks.json", str(disk / "out.onnx"))
            assert result.exit_code == 2
            assert "No space left on device" in result.stderr
            assert [path.name for path in disk.iterdir()] == ["out.onnx"]
            assert (disk / "out.onnx").read_bytes() == BEFORE
        finally:
            subprocess.run(["umount", str(disk)], check=True)

    def test_out_is_replaced_last(self, monkeypatch: pytest.MonkeyPatch) -> None:
        replaced: list[str] = []
        monkeypatch.setattr(os, "replace", lambda _, target: replaced.append(target.name))
        assert run("in.onnx", "masks.json", "out.onnx", "--report", "r.json").exit_code == 0
        assert replaced == ["r.json", "out.onnx"]

    @pytest.mark.parametrize("where", [(api, "apply"), (os, "fsync")])
    def test_interrupted(self, where: tuple[Any, str], monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(*where, interrupt)
        refused("in.onnx", "masks.json", "out.onnx", saying="interrupted", status=1)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_ended_by_a_signal(self, number: signal.Signals) -> None:
        Path("out.onnx").write_bytes(BEFORE)
        with started_writing() as process:
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert errors == "onnx-upscale: error: interrupted\n"
        assert Path("out.onnx").read_bytes() == BEFORE
        # And no temporary file, which the fixture looks for.

    def test_a_second_signal_does_not_cut_the_cleaning_short(self) -> None:
        second = f"""
def unlink(path, missing_ok=False, remove=Path.unlink):
    os.kill(os.getpid(), {signal.SIGHUP:d})
    remove(path, missing_ok)
Path.unlink = unlink
"""
        with started_writing(second) as process:
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert errors == "onnx-upscale: error: interrupted\n"

    def test_what_ignores_a_signal_goes_on(self) -> None:
        with started_writing(ignoring=signal.SIGHUP) as process:  # As nohup does.
            process.send_signal(signal.SIGHUP)
            _, errors = process.communicate("go on\n", timeout=60)
        assert process.returncode == 0, errors
        onnx.load("out.onnx")

    def test_only_the_command_line_handles_signals(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[Any] = []

        def look(*_: Any) -> None:
            seen.append(signal.getsignal(signal.SIGTERM))
            raise MemoryError

        monkeypatch.setattr(api, "apply", look)
        before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
        try:
            run("in.onnx", "masks.json", "out.onnx")
            with pytest.raises(MemoryError):
                onnx_upscale.optimize("in.onnx", "masks.json")
        finally:
            signal.signal(signal.SIGTERM, before)
        assert callable(seen[0])
        assert seen[1] is signal.SIG_DFL

    @pytest.mark.parametrize(
        ("error", "saying"), [(MemoryError, "out of memory"), (KeyError, "report")]
    )
    def test_anything_else(
        self, error: type[Exception], saying: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any) -> None:
            raise error("oops")

        monkeypatch.setattr(api, "apply", fail)
        refused("in.onnx", "masks.json", "out.onnx", saying=saying, status=1)

    def test_different(self, monkeypatch: pytest.MonkeyPatch) -> None:
        emit = apply

        def broken(*arguments: Any) -> Any:
            emitted = emit(*arguments)
            weight = emitted.model.graph.initializer[0]
            weight.raw_data = b"\0\0\0\0" + weight.raw_data[4:]
            return dataclasses.replace(emitted)

        monkeypatch.setattr(api, "apply", broken)
        refused("in.onnx", "masks.json", "out.onnx", saying="verification failed", status=3)
        result = run("in.onnx", "masks.json", "new.onnx", "--report", "r.json")
        assert result.exit_code == 3
        assert not Path("new.onnx").exists()
        verified = json.loads(Path("r.json").read_text())["verify"]
        assert verified["ran"] and not verified["ok"]
        assert run("in.onnx", "masks.json", "new.onnx", "--no-verify").exit_code == 0


@pytest.mark.usefixtures("here")
class TestStreams:
    """Results that nobody reads."""

    @pytest.mark.parametrize(
        "arguments",
        [
            ["in.onnx", "masks.json", "out.onnx", "-v"],
            ["analyze", "in.onnx"],
            ["verify", "in.onnx", "-", "in.onnx"],
        ],
    )
    @pytest.mark.parametrize("both", [False, True])
    def test_closed_pipe(self, arguments: list[str], both: bool) -> None:
        read, write = os.pipe()
        os.close(read)
        with os.fdopen(write, "w") as closed:
            command = [sys.executable, "-m", "onnx_upscale", *arguments]
            errors = subprocess.STDOUT if both else subprocess.PIPE
            done = subprocess.run(command, stdout=closed, stderr=errors, text=True, timeout=60)
        assert done.returncode == 0
        assert "Traceback" not in (done.stderr or "")
        assert "BrokenPipe" not in (done.stderr or "")

    def test_full_device(self) -> None:
        command = [sys.executable, "-m", "onnx_upscale", "in.onnx", "masks.json", "out.onnx"]
        with open("/dev/full", "w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
        # The model is there, so this is no failure.
        assert done.returncode == 0
        assert "warning: standard output cannot be written: No space left" in done.stderr
        assert done.stderr.count("\n") == 1
        onnx.load("out.onnx")

    def test_a_name_that_is_no_text(self) -> None:
        name = os.fsdecode(b"o\xff\xc3\xa9.onnx")
        environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
        done = shell("in.onnx", "masks.json", name, "--report", "r.json", env=environment)
        assert done.returncode == 0, done.stderr
        assert Path(name).exists()


# Sets the window's title, clears the screen, forges a line, and more that is not seen.
SHOWN = r"\x1b]0;owned\x07\x1b[2J\nonnx-upscale: all is well\r\x7f\x9b1m\u202egnp\u2066\u2028"
HOSTILE = SHOWN.encode().decode("unicode_escape")


@pytest.mark.usefixtures("here")
class TestNamesThatSteerTheTerminal:
    @pytest.fixture(autouse=True)
    def hostile(self, here: Path) -> None:
        model = small().model("second.0")
        for node in model.graph.node:
            node.name += HOSTILE
            node.output[0] += HOSTILE
            node.input[:] = [n if n == "x" or "weight" in n else n + HOSTILE for n in node.input]
        model.graph.output[0].name += HOSTILE
        onnx.save(model, "in.onnx")
        named = {"version": 1, "masks": {"second.weight": {"input": [0, 3, 5, 6]}}}
        Path("masks.json").write_text(json.dumps(named))

    @pytest.mark.parametrize(
        "arguments",
        [
            ["analyze", "in.onnx"],
            ["analyze", "in.onnx", "--json"],
            ["in.onnx", "masks.json", "out.onnx", "-v"],
            ["in.onnx", "masks.json", f"{HOSTILE[:4]}.onnx", "--strategy", f"{HOSTILE}"],
            ["in.onnx", "masks.json", f"{HOSTILE}"],
            ["verify", "in.onnx", "masks.json", "in.onnx"],
            ["mask", "in.onnx", "m.json", "--criterion", "l1", "--amount", "0.5", "--skip", "no"],
            ["mask", "in.onnx", "m.json", "--criterion", "l1", "--amount", "0.5"],
            ["bench", "in.onnx", "--runs", "1", "--no-memory", "--profile"],
            ["bench", "in.onnx", "--runs", "1", "--no-memory", "--input", f"{HOSTILE}=1x2"],
            ["export", f"{HOSTILE}:none", "out.onnx"],
        ],
        ids=lambda arguments: ascii(" ".join(arguments))[:40],
    )
    def test_names_are_escaped(self, arguments: list[str]) -> None:
        result = run(*arguments)
        for line in (result.stdout + result.stderr).split("\n"):
            assert line.isprintable(), ascii(line)
            assert not line.startswith("onnx-upscale: all is well")

    def test_what_is_shown_instead(self) -> None:
        assert f"first{SHOWN}" in run("analyze", "in.onnx").stdout
        assert f"'second.0{SHOWN}'" in run("verify", "in.onnx", "masks.json", "in.onnx").stderr
        rows = json.loads(run("analyze", "in.onnx", "--json").stdout)
        assert f"first{HOSTILE}" in [name for row in rows for name in row["writers"]]

    def test_an_internal_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: Any) -> None:
            raise ValueError(HOSTILE)

        monkeypatch.setattr(api, "apply", fail)
        for verbose in ([], ["-v"]):
            result = run("in.onnx", "masks.json", "out.onnx", *verbose)
            assert result.exit_code == 1
            assert ("Traceback" in result.stderr) == bool(verbose)
            assert "internal error" in result.stderr
            assert all(line.isprintable() for line in result.stderr.split("\n"))


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
        rows = json.loads(run("analyze", "in.onnx", "--json").stdout)
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
