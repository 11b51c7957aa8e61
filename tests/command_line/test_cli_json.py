"""`--json`: every command prints its report, and nothing else, on standard output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import Result

import onnx_upscale
from command import run
from onnx_upscale import main_job
from onnx_upscale.cli import main
from onnx_upscale.optimizer.verify import Verification
from onnx_upscale.prices import AnalyticPrices, load_prices
from onnx_upscale.prices.table import TablePrices
from onnx_upscale.pricing.report import Errors

pytestmark = pytest.mark.usefixtures("here")

COMMANDS = main.list_commands(click.Context(main))


def told(*arguments: str, status: int = 0) -> dict[str, Any]:
    """The report that a command prints, also where it is quiet."""
    results: list[Result] = [run(*arguments, "--json", *more) for more in ([], ["-q"])]
    for result in results:
        assert result.exit_code == status, result.output
        report: dict[str, Any] = json.loads(result.stdout)
        assert report["version"] == 1
    if status == 0:
        assert "onnx-upscale:" not in results[1].stderr
    return report


@pytest.fixture(autouse=True)
def data(here: Path) -> None:
    values = np.random.default_rng(0).standard_normal((10, 3, 6, 6)).astype(np.float32)
    np.save("data.npy", values)
    Path("loud.py").write_text(
        "import numpy as np\n"
        "def batches():\n"
        "    print('chatter')\n"
        "    yield {'x': np.load('data.npy')}\n"
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_same_options(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    known = {option for each in command.params for option in each.opts}
    assert {"--json", "--markdown", "--quiet", "-q", "--version"} <= known
    assert run(name, "--version").stdout.startswith("onnx-upscale, version ")


def test_the_main_job() -> None:
    report = told("in.onnx", "masks.json", "out.onnx", "--report", "r.json")
    written = json.loads(Path("r.json").read_text())
    assert report == written
    assert list(report) == list(onnx_upscale.optimize("in.onnx", "masks.json").report)
    assert report["verify"]["ok"]


def test_the_main_job_that_recovers_with_code_that_prints() -> None:
    options = ["--recover", "--data", "loud.py:batches", "--json"]
    result = run("in.onnx", "masks.json", "out.onnx", *options)
    assert json.loads(result.stdout)["recovered"]["samples"]["held_out"] == 2
    assert "chatter" in result.stderr


def test_the_main_job_that_fails_verification(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Verification(2, 1.0, 0.5, False, (), "output 'y' differs")
    monkeypatch.setattr(main_job, "prove", lambda *_: wrong)
    report = told("in.onnx", "masks.json", "out.onnx", status=3)
    assert report["verify"] == {
        **{"ran": True, "samples": 2, "max_abs": 1.0, "max_rel": 0.5, "ok": False},
        **{"warnings": [], "noise": None, "pieces": 0},
    }
    assert not Path("out.onnx").exists()


def test_bad_input_prints_nothing() -> None:
    for arguments in (["none.onnx", "-", "out.onnx"], ["analyze", "none.onnx"], ["in.onnx"]):
        result = run(*arguments, "--json")
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith("onnx-upscale: error: ")


def test_analyze() -> None:
    report = told("analyze", "in.onnx", "masks.json", "--target", "cpu-avx2")
    assert report["path"] == "in.onnx"
    assert (report["target"], report["profile"]) == ("cpu-avx2", load_prices("cpu-avx2").name)
    assert report["masks"] == {"targets": 1, "pruned_inputs": 4, "pruned_outputs": 0}
    assert set(report["predicted_seconds"]) == {"auto", "upscale", "gather", "constrained"}
    assert all(seconds > 0 for seconds in report["predicted_seconds"].values())
    inner = next(each for each in report["segments"] if each["channels"] == 8)
    assert (inner["writers"], inner["readers"]) == (["first"], {"second": 4})


def test_verify() -> None:
    run("in.onnx", "masks.json", "out.onnx")
    report = told("verify", "in.onnx", "masks.json", "out.onnx")
    assert report["verify"]["ok"]
    report = told("verify", "in.onnx", "masks.json", "in.onnx", status=3)
    assert (report["verify"]["ran"], report["verify"]["ok"]) == (True, False)


def test_mask() -> None:
    options = ["--criterion", "l1", "--amount", "0.5", "--layers", "*"]
    report = told("mask", "in.onnx", "m.json", *options, "--data", "loud.py:batches")
    made = onnx_upscale.mask("in.onnx", "l1", 0.5, layers=["*"], data="data.npy")
    assert (report["path"], report["layers"]) == ("m.json", 1)
    assert report["channels"] == {"input": {"pruned": 4, "of": 8}}
    assert report["predicted_share"] == made.share
    (output,) = report["outputs"]
    assert output == {
        "name": "second.0",
        "error": pytest.approx(made.fidelity["second.0"].error),
        "agreement": None,
    }
    assert report["warnings"] == list(made.warnings)
    assert "second.weight" not in [key for keys in report["left"].values() for key in keys]


def test_mask_that_is_taken_over() -> None:
    Path("theirs.json").write_text('[["second.weight", 0], ["second.weight", 3]]')
    report = told("mask", "in.onnx", "m.json", "--from", "upscale", "theirs.json")
    assert report["predicted_share"] is None
    assert report["channels"] == {"input": {"pruned": 2, "of": 8}}


def test_bench() -> None:
    report = told("bench", "in.onnx", "--runs", "2", "--no-memory")
    assert (report["runs"], report["models"][0]["path"]) == (2, "in.onnx")


def test_bench_says_where_its_file_went() -> None:
    result = run("bench", "in.onnx", "--json", "r.json")
    assert result.exit_code == 2
    assert "r.json: is no model; to write the report there, give --report" in result.stderr


def test_recover() -> None:
    arguments = ["recover", "in.onnx", "masks.json", "out.onnx", "--data", "loud.py:batches"]
    report = told(*arguments, "--report", "r.json")
    assert report == json.loads(Path("r.json").read_text())


def test_price(monkeypatch: pytest.MonkeyPatch) -> None:
    fallback = load_prices("cuda")
    assert isinstance(fallback, AnalyticPrices)
    priced = onnx_upscale.Priced(
        TablePrices("mine", fallback, {}), {"all": Errors(0.1, 0.2, 3)}, {"threads": 1}
    )
    monkeypatch.setattr(onnx_upscale, "price", lambda **_: priced)
    assert told("price", "p.json") == {
        "version": 1,
        "path": "p.json",
        "profile": "mine",
        "machine": {"threads": 1},
        "errors": {"all": {"median": 0.1, "ninetieth": 0.2, "shapes": 3}},
    }
    assert json.loads(Path("p.json").read_text()) == priced.to_json()


@pytest.mark.slow
def test_prune() -> None:
    options = ["--data", "loud.py:batches", "--macs", "0.8", "--report", "r.json", "--layers", "*"]
    report = told("prune", "in.onnx", "out.onnx", *options)
    assert report == json.loads(Path("r.json").read_text())
    assert report["goal"] == {"name": "macs", "value": 0.8, "seconds": False}


@pytest.mark.usefixtures("fast")
def test_export() -> None:
    pytest.importorskip("torch")
    Path("nets.py").write_text(
        "import torch\n"
        "print('chatter')\n"
        "def make():\n"
        "    return torch.nn.Sequential(torch.nn.Linear(4, 3)), (torch.rand(2, 4),)\n"
    )
    report = told("export", "nets.py:make", "out.onnx")
    assert (report["path"], report["masks_path"]) == ("out.onnx", "out.masks.json")
    assert report["masks"] == {"targets": 0, "pruned_inputs": 0, "pruned_outputs": 0}
    assert report["samples"] > 0
    assert report["max_abs"] is not None
    report = told("export", "nets.py:make", "out.onnx", "--no-verify")
    assert (report["samples"], report["max_abs"]) == (0, None)
