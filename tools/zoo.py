"""Check and time the optimizer on a folder of models.

    python tools/zoo.py FOLDER [--models NAME,...] [--amounts 0.3,0.5] > docs/zoo.md
    python tools/zoo.py FOLDER --time [--target cpu] [--models all] [--runs 60]

FOLDER holds, per model, NAME.onnx (unpruned) and NAME.AMOUNT.json (random input masks, keyed by
weight; without it they are made here), and for --time the exports of the paper's own
implementation, NAME.AMOUNT.peer.onnx (its order) and NAME.AMOUNT.peerbase.onnx (its baseline).
Random output masks are made here. Every strategy is compared with the masked model in onnxruntime;
times are medians on one thread, and their ratios are taken round by round (`onnx-upscale bench`).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import onnx_upscale
from onnx_upscale.benchmark import Measured
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.load.graph import Graph
from onnx_upscale.optimizer.load.layers import layers

MODELS = (
    "squeezenet1_1",
    "mobilenet_v2",
    "mnasnet1_0",
    "mobilenet_v3_large",
    "resnet18",
    "efficientnet_b0",
    "googlenet",
    "densenet121",
    "resnet50",
    "convnext_tiny",
    "efficientnet_v2_s",
    "inception_v3",
    "wide_resnet50_2",
    "alexnet",
    "vgg16",
)
PEERS = ("peerbase", "peer")
STRATEGIES = ("auto", "upscale", "gather", "constrained")
LARGEST_DIFFERENCE = 1e-4


def input_masks(folder: Path, name: str, amount: str) -> dict[str, Any]:
    """The random input masks of a model: those of its file, or on all that is ungrouped."""
    known = folder / f"{name}.{amount}.json"
    if known.exists():
        return dict(json.loads(known.read_text()))
    return random_input_masks(load(folder / f"{name}.onnx").graph, float(amount))


def random_input_masks(graph: Graph, amount: float, seed: int = 0) -> dict[str, Any]:
    """Random input masks on every ungrouped layer, but for one that reads an image."""
    rng = np.random.default_rng(seed)
    masks = {}
    for layer in layers(graph):
        if layer.groups == 1 and layer.inputs > 4:
            pruned = rng.permutation(layer.inputs)[: int(layer.inputs * amount)]
            masks[layer.node.outputs[0]] = {"input": sorted(pruned.tolist())}
    return {"version": 1, "masks": masks}


def output_masks(path: Path, amount: float, seed: int = 0) -> dict[str, Any]:
    """Random output masks on every ungrouped convolution, so that branches disagree."""
    rng = np.random.default_rng(seed)
    masks = {}
    for layer in layers(load(path).graph):
        if layer.node.op == "Conv" and layer.groups == 1:
            pruned = rng.permutation(layer.outputs)[: int(layer.outputs * amount)]
            masks[layer.node.outputs[0]] = {"output": sorted(pruned.tolist())}
    return {"version": 1, "masks": masks}


def check(path: Path, masks: Mapping[str, Any], kind: str) -> Iterator[list[str]]:
    """One row per strategy: what was verified, what was copied, how long it took."""
    started = time.perf_counter()
    model = onnx.load(path)
    onnx.save(model, path.with_suffix(".copy"))
    allowed = 3 * (time.perf_counter() - started) + 0.5
    path.with_suffix(".copy").unlink()
    for strategy in STRATEGIES:
        report = onnx_upscale.optimize(path, masks, strategy=strategy, samples=1).report
        proof, seconds = report["verify"], dict(report["seconds"])
        seconds.pop("verify")
        equal = proof["ok"] and proof["max_rel"] <= LARGEST_DIFFERENCE
        spent = sum(seconds.values())
        yield [
            path.stem,
            kind,
            strategy,
            "yes" if equal else "NO",
            f"{proof['max_rel']:.1e}",
            f"{report['output']['macs'] / report['input']['macs']:.2f}",
            f"{report['output']['params'] / report['input']['params']:.2f}",
            str(report["copies"]["count"]),
            f"{report['copies']['bytes'] / 1e6:.2f}",
            f"{spent:.2f}",
            "yes" if spent <= allowed else f"NO ({allowed:.2f})",
        ]


def timings(folder: Path, name: str, amount: str, target: str, runs: int) -> dict[str, Measured]:
    """All versions of one model, run in turn; ratios are those to `auto`."""
    path, masks = folder / f"{name}.onnx", input_masks(folder, name, amount)
    versions = {}
    for strategy in ("auto", "upscale", "gather"):
        versions[strategy] = onnx_upscale.optimize(
            path, masks, strategy=strategy, target=target, verify=False
        ).model
    versions["unpruned"] = onnx.load(path)
    for peer in PEERS:
        export = folder / f"{name}.{amount}.{peer}.onnx"
        if export.exists():
            versions[peer] = onnx.load(export)
    found = onnx_upscale.bench(
        list(versions.values()), names=list(versions), runs=runs, memory=False
    )
    return {measured.name: measured for measured in found.models}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def time_table(folder: Path, names: Sequence[str], amount: str, target: str, runs: int) -> str:
    columns = ("unpruned", *PEERS, "gather", "upscale", "auto")
    rows, ratios = [], []
    for name in names:
        found = timings(folder, name, amount, target, runs)
        peers = [found[peer].ratio.median for peer in PEERS if peer in found]
        others = min(found[other].ratio.median for other in ("unpruned", "gather", "upscale"))
        times = (f"{found[c].latency.median * 1e3:.2f}" if c in found else "" for c in columns)
        row = [name, *times, f"{1 / others:.3f}"]
        if peers:
            ratios.append(1 / min(peers))
            row.append(f"{ratios[-1]:.3f}")
        rows.append(row)
        print(*row, file=sys.stderr, flush=True)
    head = ["model", *columns, "auto / best of unpruned, gather, upscale", "auto / faster peer"]
    if not ratios:
        return table(head, rows)
    mean = np.exp(np.mean(np.log(ratios)))
    return f"{table(head, rows)}\n\nGeometric mean of auto / faster peer: **{mean:.3f}**"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--amounts", default="0.3,0.5")
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--runs", type=int, default=60)
    args = parser.parse_args()
    names, amounts = args.models.split(","), args.amounts.split(",")
    if names == ["all"]:
        names = sorted(path.stem for path in args.folder.glob("*.onnx") if ".peer" not in path.name)
    if args.time:
        for amount in amounts:
            rows = time_table(args.folder, names, amount, args.target, args.runs)
            print(f"\n### Random input masks, {amount}\n\n{rows}")
        return
    head = [
        "model",
        "masks",
        "strategy",
        "equal",
        "max_rel",
        "macs",
        "weights",
        "copies",
        "MB",
        "seconds",
        "in_budget",
    ]
    print(f"| {' | '.join(head)} |\n{'| --- ' * len(head)}|")
    for name in names:
        path = args.folder / f"{name}.onnx"
        for amount in amounts:
            inputs = input_masks(args.folder, name, amount)
            for masks, kind in (
                (inputs, f"input {amount}"),
                (output_masks(path, float(amount)), f"output {amount}"),
            ):
                for row in check(path, masks, kind):
                    print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
