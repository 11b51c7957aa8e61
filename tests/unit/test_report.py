"""The report: what it says must be what is on disk."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.numpy_helper import to_array

import onnx_upscale
from build import Net, input_values, run, weight_shape
from onnx_upscale import figures

REALIZATIONS = {
    "whole",
    "zero-fill",
    "slice",
    "gather",
    "pad",
    "split",
    "duplicate",
    "moved",
    "parts",
}
MODELS = Path(__file__).parents[2] / "models"
COPIES = {"Slice", "Gather", "Pad", "Concat", "Split"}


def sweep(strategy: str, folder: Path) -> tuple[dict[str, Any], onnx.ModelProto]:
    result = onnx_upscale.optimize(
        MODELS / "digits.onnx", MODELS / "digits.masks.json", strategy=strategy, samples=1
    )
    result.save(folder / "out.onnx")
    return result.report.to_json(), onnx.load(folder / "out.onnx")


@pytest.mark.parametrize("strategy", ["auto", "upscale", "gather", "constrained"])
def test_contract(strategy: str, tmp_path: Path) -> None:
    report, emitted = sweep(strategy, tmp_path)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["version"] == 1
    assert (report["strategy"], report["target"]) == (strategy, "cpu")
    for part, path in (("input", MODELS / "digits.onnx"), ("output", tmp_path / "out.onnx")):
        content, model = path.read_bytes(), onnx.load(path)
        assert report[part]["sha256"] == hashlib.sha256(content).hexdigest()
        assert report[part]["bytes"] == len(content)
        assert report[part]["nodes"] == len(model.graph.node)
        params = sum(math.prod(tensor.dims) for tensor in model.graph.initializer)
        assert report[part]["params"] == params
    assert report["input"]["path"] == str(MODELS / "digits.onnx")

    original = {node.name for node in onnx.load(MODELS / "digits.onnx").graph.node}
    added = [node for node in emitted.graph.node if node.name not in original]
    assert report["copies"]["count"] == sum(node.op_type in COPIES for node in added)
    assert bool(report["copies"]["count"]) == bool(report["copies"]["bytes"])
    assert strategy != "constrained" or not report["copies"]["count"]

    masks = json.loads((MODELS / "digits.masks.json").read_text())["masks"]
    assert report["masks"] == {
        "targets": len(masks),
        "pruned_inputs": sum(len(sides.get("input", ())) for sides in masks.values()),
        "pruned_outputs": sum(len(sides.get("output", ())) for sides in masks.values()),
    }
    assert report["verify"]["ran"] and report["verify"]["ok"]
    assert report["verify"]["samples"] == 1
    assert 0 <= report["verify"]["max_abs"] < 1e-4
    assert 0 <= report["verify"]["max_rel"] < 1e-4
    assert set(report["seconds"]) >= {"load", "analyze", "plan", "apply", "verify"}

    assert [segment["id"] for segment in report["segments"]] == list(range(len(report["segments"])))
    for segment in report["segments"]:
        assert 0 <= segment["kept"] <= segment["channels"]
        for writer in segment["writers"]:
            assert writer["node"] in original
            assert 0 <= writer["channels"] <= segment["channels"]
            assert writer["realization"] in REALIZATIONS
        for reader in segment["readers"]:
            assert reader["node"] in original
            assert 0 <= reader["needed"] <= reader["read"] <= segment["channels"]
            assert reader["realization"] in REALIZATIONS
            copies = reader["realization"] in ("slice", "gather", "moved", "parts")
            assert bool(reader["bytes_copied"]) == copies

    originals = onnx.load(MODELS / "digits.onnx")
    layers = [node for node in originals.graph.node if node.op_type in ("Conv", "Gemm")]
    assert [(row["node"], row["operator"]) for row in report["layers"]] == [
        (node.name, node.op_type) for node in layers
    ]
    for row in report["layers"]:
        assert 0 < row["read"] <= row["kept"] <= row["inputs"]
        assert 0 < row["made"] <= row["outputs"]
        own = row["makes"], row["reads"]
        made, read = weight_shape(emitted, row["node"])[:2]
        grouped = row["inputs"] > 1 == read
        assert (made, row["read"] if grouped else read) == (row["made"], row["read"])
        for side, parties in zip(own, ("writers", "readers"), strict=True):
            found = [
                s["id"] for s in report["segments"] for p in s[parties] if p["node"] == row["node"]
            ]
            assert found in ([], [side])
    assert any(row["reads"] == row["makes"] is not None for row in report["layers"])  # Depthwise.


def test_channels_of_layers_cut_the_weights_that_were_emitted(tmp_path: Path) -> None:
    """What another tool needs to do the same to weights of its own."""
    for strategy in ("auto", "upscale"):
        report, emitted = sweep(strategy, tmp_path)
        before = {t.name: to_array(t) for t in onnx.load(MODELS / "digits.onnx").graph.initializer}
        cut = 0
        for row in report["layers"]:
            read, made = row["read_channels"], row["made_channels"]
            assert read is None or len(read) == row["read"] < row["inputs"] or read != sorted(read)
            assert made is None or len(made) == row["made"] <= row["outputs"]
            (found,) = (node for node in emitted.graph.node if node.name == row["node"])
            after = {t.name: to_array(t) for t in emitted.graph.initializer}[found.input[1]]
            own = before[row["weight"]]
            own = own if made is None else own[made]
            grouped = row["inputs"] > 1 == own.shape[1]
            own = own if read is None or grouped else own[:, read]
            assert own.shape == after.shape
            assert np.array_equal(np.where(after, own, 0), after)
            cut += read is not None or made is not None
        assert cut > 3


def test_copied_bytes_are_what_the_copies_write(tmp_path: Path) -> None:
    report, emitted = sweep("gather", tmp_path)
    original = {node.name for node in onnx.load(MODELS / "digits.onnx").graph.node}
    added = [node for node in emitted.graph.node if node.name not in original]
    shown = onnx.ModelProto()
    shown.CopyFrom(emitted)
    names = [node.output[0] for node in added if node.op_type in COPIES]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    image = np.random.default_rng(0).random((1, 1, 8, 8), np.float32)
    values = run(shown, {"image": image})[1:]
    assert len(values) == report["copies"]["count"] > 0
    assert report["copies"]["bytes"] == sum(value.nbytes for value in values)


@pytest.mark.parametrize(
    ("op", "shape", "weight", "options", "macs"),
    [
        ("Conv", [1, 4, 8, 8], (6, 4, 3, 3), {}, 6 * 6 * 6 * 4 * 9),
        ("Conv", [2, 4, 8, 8], (6, 4, 1, 1), {}, 2 * 8 * 8 * 6 * 4),
        ("Conv", [1, 4, 8, 8], (6, 4, 3, 3), {"strides": [2, 2]}, 3 * 3 * 6 * 4 * 9),
        ("Conv", [1, 4, 8, 8], (4, 1, 3, 3), {"group": 4, "pads": [1] * 4}, 8 * 8 * 4 * 9),
        ("Conv", [1, 4, 8], (6, 2, 3), {"group": 2}, 6 * 6 * 2 * 3),
        ("ConvTranspose", [1, 4, 8, 8], (4, 6, 2, 2), {"strides": [2, 2]}, 8 * 8 * 4 * 6 * 4),
        ("ConvTranspose", [1, 4, 8, 8], (4, 3, 2, 2), {"group": 2}, 8 * 8 * 4 * 3 * 4),
        ("Gemm", [3, 4], (4, 5), {}, 3 * 4 * 5),
        ("Gemm", [4, 3], (5, 4), {"transA": 1, "transB": 1}, 3 * 4 * 5),
        ("MatMul", [2, 3, 4], (4, 5), {}, 2 * 3 * 4 * 5),
        ("MatMul", [2, 3, 4], (2, 4, 5), {}, 2 * 3 * 4 * 5),
        ("MatMul", [3, 4], (4,), {}, 3 * 4),
    ],
)
def test_multiply_adds(
    op: str, shape: list[int], weight: tuple[int, ...], options: dict[str, Any], macs: int
) -> None:
    net = Net(17, x=shape)
    model = net.model(net(op, "x", net.random(*weight), **options))
    report = onnx_upscale.optimize(model, verify=False).report
    assert report["input"]["macs"] == report["output"]["macs"] == macs
    assert report["input"]["params"] == math.prod(weight)
    assert report["input"]["path"] is None


def test_sizes_count() -> None:
    net = Net(17, x=["batch", 4, "side", "side"])
    model = net.model(net("Conv", "x", net.random(6, 4, 1, 1)))
    for shape in ((1, 4, 8, 8), (3, 4, 5, 5)):
        report = onnx_upscale.optimize(model, inputs={"x": shape}).report
        assert report["input"]["macs"] == math.prod(shape) * 6


def test_not_verified() -> None:
    net = Net(17, x=[1, 4])
    model = net.model(net("MatMul", "x", net.random(4, 2)))
    report = onnx_upscale.optimize(model, verify=False).report
    assert report["verify"] == {
        "ran": False,
        "samples": 0,
        "max_abs": None,
        "max_rel": None,
        "ok": None,
    }
    assert "verify" not in report["seconds"]


def chain() -> onnx.ModelProto:
    net = Net(17, x=[1, 3, 4, 4])
    first = net("Relu", net("Conv", "x", net.random(8, 3, 3, 3), name="first"))
    return net.model(net("Conv", first, net.random(2, 8, 1, 1), name="second"))


def test_predictions_add_up() -> None:
    masks = {"version": 1, "masks": {"second": {"input": [0, 1, 2, 3]}}}
    report = onnx_upscale.optimize(chain(), masks, strategy="gather", target="cpu-avx512").report
    assert report.predicted_seconds == pytest.approx(sum(report.predicted.after.values()))
    assert sum(report.predicted.after.values()) < sum(report.predicted.before.values())
    whole = onnx_upscale.optimize(chain(), strategy="gather", target="cpu-avx512").report
    assert whole.predicted.before == whole.predicted.after == report.predicted.before


def test_segments_of_a_chain() -> None:
    model = chain()
    masks = {"version": 1, "masks": {"second": {"input": [0, 1, 2, 3]}}}
    report = onnx_upscale.optimize(model, masks, strategy="gather").report
    (inner,) = [segment for segment in report["segments"] if segment["channels"] == 8]
    assert inner["kept"] == 4
    assert inner["writers"] == [{"node": "first", "channels": 4, "realization": "whole"}]
    nothing = {"bytes_copied": 0, "seconds_copying": 0.0}
    assert inner["readers"] == [
        {"node": "second", "needed": 4, "read": 4, "realization": "whole", **nothing}
    ]
    assert report["copies"] == {"count": 0, "bytes": 0, "replaced": 0}
    assert any("graph output" in segment["pinned"] for segment in report["segments"])
    assert report["output"]["macs"] * 2 == report["input"]["macs"]


def test_layers_that_copy_and_that_are_not_computed() -> None:
    net = Net(17, x=[1, 3, 4, 4])
    first = net("Relu", net("Conv", "x", net.random(8, 3, 3, 3), name="first"))
    net("Conv", first, net.random(5, 8, 1, 1), name="dead")
    second = net("Conv", first, net.random(2, 8, 1, 1), name="second")
    third = net("Conv", first, net.random(4, 8, 1, 1), name="third")
    masks = {"version": 1, "masks": {"second": {"input": [0, 1, 3]}, "third": {"input": [3, 7]}}}
    report = onnx_upscale.optimize(net.model(second, third), masks, strategy="gather").report
    (number,) = [segment.id for segment in report.segments if segment.channels == 8]
    rows = {row.node: tuple(row.to_json().values())[2:8] for row in report.layers}
    assert rows == {
        "first": (3, 3, 3, 8, 7, None),
        "dead": (8, 7, 0, 5, 0, number),
        "second": (8, 7, 5, 2, 2, number),
        "third": (8, 7, 6, 4, 4, number),
    }


def test_the_callers_model_stays() -> None:
    model = chain()
    before = model.SerializeToString(deterministic=True)
    result = onnx_upscale.optimize(model, {"version": 1, "masks": {"second": {"input": [0]}}})
    assert model.SerializeToString(deterministic=True) == before
    assert run(result.model, input_values(model))[0].shape == (1, 2, 2, 2)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (1_413_976, "1.41 MB"), (5e9, "5.00 GB")],
)
def test_readable_bytes(size: float, text: str) -> None:
    assert figures.in_bytes(size) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (999, "999"), (343_122, "343.12 k"), (74_718_144, "74.72 M"), (5e12, "5000.00 G")],
)
def test_readable_counts(number: float, text: str) -> None:
    assert figures.in_short(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 ms"), (6.2e-6, "0.0062 ms"), (0.0010329, "1.033 ms"), (0.25, "250.0 ms")],
)
def test_readable_times(seconds: float, text: str) -> None:
    assert figures.in_milliseconds(seconds) == text
