"""The report as a value: the same whether read by attributes, as a dictionary or as JSON."""

import dataclasses
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnx_upscale
from build import Net
from onnx_upscale import Report, Result, UsageError, VerifyError
from onnx_upscale.main_job import optimize_with
from onnx_upscale.options import Options
from onnx_upscale.report import (
    Document,
    LayerReport,
    ReaderReport,
    SegmentReport,
    Size,
    VerifyReport,
    WriterReport,
)

ROOT = Path(__file__).parents[2]
MODEL, MASKS = ROOT / "models" / "digits.onnx", ROOT / "models" / "digits.masks.json"


@pytest.fixture(scope="module")
def result() -> Result:
    return onnx_upscale.optimize(MODEL, MASKS, samples=1)


def test_attributes_and_keys_say_the_same(result: Result) -> None:
    report = result.report
    document = report.to_json()
    assert list(report) == list(document)
    assert dict(report) == document
    assert report["copies"]["count"] == report.copies.count > 0
    assert report["output"]["params"] == report.output.params < report.input.params
    assert report["segments"][0]["writers"][0]["node"] == report.segments[0].writers[0].node
    assert report.get("nothing") is None
    with pytest.raises(KeyError):
        report["to_json"]


def test_it_is_json(result: Result) -> None:
    document = result.report.to_json()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert json.loads(json.dumps(result.report)) == document == result.report


def test_what_is_read_can_be_changed_without_changing_it(result: Result) -> None:
    before = result.report.to_json()
    result.report["segments"].clear()
    result.report["seconds"]["load"] = -1.0
    result.report.to_json()["output"]["path"] = "elsewhere"
    assert result.report.to_json() == before
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.report.strategy = "gather"  # type: ignore[misc]


def test_where_it_was_written_to(result: Result) -> None:
    assert result.report.output.path is None
    written = result.report.written_to("out.onnx", "5a", 7)
    assert written.output == dataclasses.replace(
        result.report.output, path="out.onnx", sha256="5a", bytes=7
    )
    assert dataclasses.replace(written, output=result.report.output) == result.report


def test_a_comparison_that_did_not_run() -> None:
    assert list(VerifyReport().to_json()) == ["ran", "samples", "max_abs", "max_rel", "ok"]
    assert set(VerifyReport(ran=True).to_json()) > {"warnings", "noise", "pieces"}


def test_the_page_names_every_field() -> None:
    page = (ROOT / "docs" / "report.md").read_text()
    named = set(re.findall(r"`(\w+)`", page))
    kinds: tuple[Any, ...] = (
        Report, Size, SegmentReport, WriterReport, ReaderReport, LayerReport, VerifyReport
    )  # fmt: skip
    assert [f.name for kind in kinds for f in dataclasses.fields(kind) if f.name not in named] == []


def test_errors_hold_the_report() -> None:
    with pytest.raises(VerifyError) as raised:
        onnx_upscale.verify(MODEL, MASKS, MODEL)
    assert raised.value.report is None


def test_options_as_one_value(result: Result) -> None:
    other = optimize_with(MODEL, str(MASKS), Options(samples=1))
    assert other.content == result.content
    for options in ({"strategy": "best"}, {"samples": 0}):
        with pytest.raises(UsageError):
            Options(**options)


def others() -> dict[str, Document]:
    net = Net(17, x=["batch", 8])
    hidden = net("Relu", net("MatMul", "x", net.constant(net.random(8, 64), "a")))
    model = net.model(net("MatMul", hidden, net.constant(net.random(64, 4), "b")))
    samples = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
    masks = {"version": 1, "masks": {"b": {"input": [0, 5]}}}
    pruned = onnx_upscale.prune(
        model, samples, macs=0.7, runs=2, target="cpu-avx512", evaluate=lambda path: 0.5
    )
    return {"recover": onnx_upscale.recover(model, masks, samples).report, "prune": pruned.report}


def test_reports_of_recover_and_prune_are_the_same() -> None:
    for report in others().values():
        document = report.to_json()
        assert list(report) == list(document)
        assert json.loads(json.dumps(report, allow_nan=False)) == document == report
        again = pickle.loads(pickle.dumps(report))  # As workers hand them over.
        assert type(again) is type(report)
        assert again == report
        assert again.to_json() == document
        with pytest.raises(dataclasses.FrozenInstanceError):
            report.version = 2  # type: ignore[misc]


def test_their_sections_are_those_of_their_files() -> None:
    reports = others()
    assert {name: list(report) for name, report in reports.items()} == {
        "recover": [
            *("version", "samples", "strength", "seed", "readers", "outputs", "seconds"),
        ],
        "prune": [
            *("version", "goal", "target", "mode", "predicted", "latency", "macs", "params"),
            *("score", "kept", "recovered", "verify"),
        ],
    }
    prune, recover = reports["prune"], reports["recover"]
    assert prune["goal"] == {"name": "macs", "value": 0.7, "seconds": False}
    assert prune["score"] == {"before": 0.5, "after": 0.5}
    assert prune["latency"][1]["ratio"]["median"] > 0
    assert prune["kept"]["b"][0] == 64 > prune["kept"]["b"][1]
    assert list(prune["recovered"]) == list(recover)
    assert recover["samples"] == {"fitted": 16, "held_out": 4}
    (row,), (output,) = recover["readers"], recover["outputs"]
    assert (row["channels"], row["kept"]) == (64, 62)
    assert set(output) == {
        *("name", "error_before", "error_after", "agreement_before", "agreement_after"),
    }
