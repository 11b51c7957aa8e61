"""Optimize the sample model with every strategy and show what each gained.

Run by `make demo`; needs no PyTorch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

import onnx_upscale
from onnx_upscale.running import Session

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "models"
BUILD = ROOT / "build"
ROUNDS = 500
STRATEGIES = ("gather", "upscale", "auto")
COLUMNS = "size", "params", "mult-adds", "nodes", "copies", "copied", "latency", "ratio", "accuracy"

Masks = Mapping[str, Mapping[str, Sequence[int]]]
Report = Mapping[str, Any]


def masked_model(model: onnx.ModelProto, masks: Masks) -> onnx.ModelProto:
    """Zero the pruned weights of convolutions and Gemms, with no help from the optimizer."""
    masked = onnx.ModelProto()
    masked.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in masked.graph.initializer}
    biases = {node.input[1]: node.input[2] for node in masked.graph.node if len(node.input) == 3}
    for name, sides in masks.items():
        zero(tensors[name], 1, sides.get("input", ()))
        if "output" in sides:
            zero(tensors[name], 0, sides["output"])
            zero(tensors[biases[name]], 0, sides["output"])
    return masked


def zero(tensor: onnx.TensorProto, axis: int, channels: Sequence[int]) -> None:
    values = np.moveaxis(numpy_helper.to_array(tensor).copy(), axis, 0)
    values[list(channels)] = 0
    tensor.CopyFrom(numpy_helper.from_array(np.moveaxis(values, 0, axis), tensor.name))


def accuracy(
    model: onnx.ModelProto, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]
) -> float:
    images = pixels.astype(np.float32) / 16  # the digits are 4-bit images
    (logits,) = Session(model).run({"image": images}).values()
    return float(np.mean(np.argmax(logits, axis=1) == labels))


def cells(size: Report, copies: Report, latency: float, ratio: float, correct: float) -> list[str]:
    return [
        f"{size['bytes'] / 1e6:.2f} MB",
        f"{size['params'] / 1e3:.0f} k",
        f"{size['macs'] / 1e6:.1f} M",
        str(size["nodes"]),
        str(copies["count"]),
        f"{copies['bytes'] / 1e3:.1f} kB",
        f"{latency * 1e3:.3f} ms",
        f"{ratio:.2f}",
        f"{correct:.2%}",
    ]


def print_table(rows: Mapping[str, Sequence[str]]) -> None:
    lines = [["", *COLUMNS], *([name, *row] for name, row in rows.items())]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for name, *row in lines:
        padded = (cell.rjust(width) for cell, width in zip(row, widths[1:], strict=True))
        print(name.ljust(widths[0]), *padded, sep="  ")


def main() -> None:
    BUILD.mkdir(exist_ok=True)
    digits = np.load(MODELS / "digits.npz")
    pixels, labels = digits["images"], digits["labels"]
    original = onnx.load(MODELS / "digits.onnx")
    masks = json.loads((MODELS / "digits.masks.json").read_text())["masks"]

    models = {"unpruned": original, "masked": masked_model(original, masks)}
    reports: dict[str, Report] = {}
    for strategy in STRATEGIES:
        result = onnx_upscale.optimize(
            MODELS / "digits.onnx", MODELS / "digits.masks.json", strategy=strategy
        )
        path = BUILD / ("digits.pruned.onnx" if strategy == "auto" else f"digits.{strategy}.onnx")
        result.save(path)
        models[strategy], reports[strategy] = onnx.load(path), result.report

    found = onnx_upscale.bench(list(models.values()), names=list(models), runs=ROUNDS, memory=False)
    rows = {}
    for model, measured in zip(models.values(), found.models, strict=True):
        name = measured.name
        report = reports.get(name)
        size = report["output"] if report else reports["auto"]["input"]
        copies = report["copies"] if report else {"count": 0, "bytes": 0}
        correct = accuracy(model, pixels, labels)
        rows[name] = cells(size, copies, measured.latency.median, measured.ratio.median, correct)
    print(f"{len(labels)} held-out digits; onnxruntime, batch 1, one thread, paired medians\n")
    print_table(rows)
    print()
    for name, report in reports.items():
        proof = report["verify"]
        verdict = "equal to" if proof["ok"] else "DIFFERENT from"
        print(
            f"{name}: {verdict} the masked model, "
            f"max |difference| {proof['max_abs']:.1e} over {proof['samples']} samples"
        )
    prune_without_masks(original, pixels, labels)


def prune_without_masks(
    model: onnx.ModelProto, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]
) -> None:
    """From half of the digits, without their labels; accuracy on the other half."""
    half = len(labels) // 2
    samples = pixels[:half].astype(np.float32) / 16
    pruned = onnx_upscale.prune(model, samples, latency=0.5)
    pruned.save(BUILD / "digits.fast.onnx")
    share = pruned.report["latency"][1]["ratio"]["median"]
    before, after = (accuracy(each, pixels[half:], labels[half:]) for each in (model, pruned.model))
    print(
        f"\nprune --latency 0.5, from {half} digits without labels: {share:.2f} of the latency, "
        f"accuracy on the other {len(labels) - half}: {before:.2%} before, {after:.2%} after"
    )


if __name__ == "__main__":
    main()
