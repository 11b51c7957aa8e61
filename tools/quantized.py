"""Prune quantized models in every form that onnxruntime's quantizer writes, and compare.

    PYTHONPATH=tests/kit python tools/quantized.py FOLDER MODEL.onnx ... > table.md
    python tools/quantized.py FOLDER MODEL.onnx ... --time [--runs 40]

The forms of the float models are written to FOLDER. Masks are random, 30% of the input channels of
every layer without groups, or of its output channels. What is emitted is
compared by verification, and here in double precision with the model in whose weights the same is
zero (`doubles`). With --time, `auto` and the unpruned model are timed in turn.
"""

from __future__ import annotations

import argparse
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

import onnx_upscale
from doubles import run
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.load.layers import layers
from onnx_upscale.optimizer.load.sides import Side
from onnx_upscale.running import input_sizes, random_inputs
from quantize import FORMS, quantized
from zeroed import zeroed

AMOUNT = 0.3
STRATEGIES = ("auto", "gather")
FEWEST = 5
LARGEST_DIFFERENCE = {"float": 1e-6}
"""By form, where it is not `NEARLY_NONE`: what moves into a float bias is rounded to a float."""
NEARLY_NONE = 1e-9
MUCH = 1e-2


def masks(path: Path, side: Side) -> dict[str, list[int]]:
    """Random channels of layers, by their nodes; the same ones in every form."""
    found = {}
    for layer in layers(load(path).graph):
        count = layer.channels(side)
        if layer.groups == 1 and count >= FEWEST:
            seed = zlib.crc32(layer.node.title.removesuffix("_quant").encode())
            drawn = np.random.default_rng(seed).permutation(count)
            found[layer.node.title] = sorted(drawn[: int(count * AMOUNT)].tolist())
    return found


def document(pruned: dict[str, list[int]], side: Side) -> dict[str, Any]:
    return {"version": 1, "masks": {key: {side.value: at} for key, at in pruned.items()}}


def results(model: onnx.ModelProto) -> list[npt.NDArray[Any]]:
    """What a model makes of random inputs, in doubles."""
    return run(model, random_inputs(model, input_sizes(model), 100))


def difference(one: Sequence[npt.NDArray[Any]], other: Sequence[npt.NDArray[Any]]) -> float:
    """How far results are apart, as a share of the largest one."""
    pairs = zip(one, other, strict=True)
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs)


def stays(report: onnx_upscale.Report) -> str:
    """Why segments lose nothing, or less than nobody needs."""
    found = Counter(
        reason
        for segment in report.segments
        for reason in dict.fromkeys((*segment.pinned, *segment.needed_whole))
    )
    return "; ".join(f"{reason} ({count})" for reason, count in found.most_common())


def row(path: Path, side: Side, original: onnx.ModelProto, most: float) -> list[str]:
    """What both strategies make of one side of a model."""
    pruned = masks(path, side)
    wanted = results(zeroed(original, pruned, side.value))
    assert difference(wanted, results(original)) > MUCH  # Or the comparison could not fail.
    made = [
        onnx_upscale.optimize(path, document(pruned, side), strategy=strategy)
        for strategy in STRATEGIES
    ]
    apart = max(difference(wanted, results(each.model)) for each in made)
    equal = apart <= most and all(each.report.verify.ok for each in made)
    before, (auto, gather) = made[0].report.input, (each.report.output for each in made)
    return [
        side.value,
        str(len(pruned)),
        "yes" if equal else "NO",
        f"{apart:.0e}",
        f"{before.params / 1e6:.2f} M",
        f"{auto.params / before.params:.3f}, {gather.params / before.params:.3f}",
        f"{before.macs / 1e6:.0f} M",
        f"{auto.macs / before.macs:.3f}, {gather.macs / before.macs:.3f}",
        stays(made[1].report),
    ]


def rows(source: Path, form: str, folder: Path) -> Iterator[list[str]]:
    path = quantized(source, form, folder)
    original = onnx.load(path)
    most = LARGEST_DIFFERENCE.get(form, NEARLY_NONE)
    for side in Side:
        try:
            yield [source.stem, form, *row(path, side, original, most)]
        except onnx_upscale.UpscaleError as error:
            yield [source.stem, form, side.value, f"NO: {error}"]


def timed(source: Path, form: str, folder: Path, runs: int) -> list[str]:
    path = quantized(source, form, folder)
    models = {"unpruned": onnx.load(path)}
    for side in Side:
        wanted = document(masks(path, side), side)
        models[side.value] = onnx_upscale.optimize(path, wanted, verify=False).model
    found = onnx_upscale.bench(list(models.values()), names=list(models), runs=runs, memory=False)
    unpruned, *others = (measured.latency.median * 1e3 for measured in found.models)
    shares = (f"{other:.2f} ({other / unpruned:.3f})" for other in others)
    return [source.stem, form, f"{unpruned:.2f}", *shares]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--forms", default="")
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--runs", type=int, default=40)
    args = parser.parse_args()
    head = ["model", "form", "masks", "masked layers", "equal", "largest difference"]
    head += ["weights", "left (auto, gather)", "multiply-adds", "left (auto, gather)"]
    head += ["why channels stay (segments)"]
    if args.time:
        head = ["model", "form", "unpruned, ms", "auto, input masks", "auto, output masks"]
    print(f"| {' | '.join(head)} |\n{'| --- ' * len(head)}|", flush=True)
    for source in args.models:
        for form in args.forms.split(",") if args.forms else FORMS:
            table = (
                [timed(source, form, args.folder, args.runs)]
                if args.time
                else rows(source, form, args.folder)
            )
            for row in table:
                print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
