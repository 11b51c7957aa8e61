"""One cell of the experiment: a network, pruned in one way, exported in all ways."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

import onnx_upscale
from onnx_upscale.running import Session

if TYPE_CHECKING:  # Results can be looked at without torch.
    from experiment.sources import Source

CRITERIA = ("l1", "l2", "lamp", "fpgm", "hrank")
SIDES = ("input", "output")
AMOUNTS = (0.1, 0.2, 0.3, 0.4, 0.5)
# The unpruned network; then three exports of the same masked network; then the one whose masks
# agree wherever channels are coupled.
STRATEGIES = ("unpruned", "gather", "upscale", "auto", "constrained")


@dataclass(frozen=True, order=True)
class Cell:
    """One way to prune one network."""

    network: str
    seed: int
    criterion: str
    side: str
    amount: float


@dataclass(frozen=True)
class Row:
    """What one strategy made of a cell.

    Attributes:
        accuracy: Share of the held-out images that it classifies right.
        milliseconds: Median latency for one image on one thread.
        ratio: The same as a share of the unpruned network's, paired.
        macs: Multiply-adds for one image.
        copied: Bytes that copies write for one image.
    """

    network: str
    seed: int
    criterion: str
    side: str
    amount: float
    strategy: str
    accuracy: float
    milliseconds: float
    ratio: float
    macs: int
    params: int
    copied: int

    @property
    def cell(self) -> Cell:
        return Cell(self.network, self.seed, self.criterion, self.side, self.amount)


def all_cells(source: Source, criteria: Sequence[str], amounts: Sequence[float]) -> list[Cell]:
    """Every cell, network by network."""
    return [
        Cell(network, seed, criterion, side, amount)
        for network, seed, criterion, side, amount in itertools.product(
            source.networks, source.seeds, criteria, SIDES, amounts
        )
    ]


def measure(cell: Cell, model: Path, unpruned: float, source: Source, runs: int) -> list[Row]:
    """Prune, export, judge and time.

    Args:
        cell: What to do.
        model: The trained network as ONNX.
        unpruned: Its accuracy.
        source: The images.
        runs: How often each export is timed, in turn with the others.

    Returns:
        One row per strategy, in the order of `STRATEGIES`.
    """
    calibration = source.calibration(cell.seed) if cell.criterion == "hrank" else None
    free, tied = (
        onnx_upscale.mask(
            model,
            cell.criterion,
            cell.amount,
            side=cell.side,
            layers=["*"],  # Heads as well, which are left alone by default.
            constrained=constrained,
            data=calibration,
        )
        for constrained in (False, True)
    )
    # Equality with the masked network is proved for each, so one accuracy stands for three.
    results = {
        "gather": onnx_upscale.optimize(model, free, strategy="gather", samples=1),
        "upscale": onnx_upscale.optimize(model, free, strategy="upscale", samples=1),
        "auto": onnx_upscale.optimize(model, free, samples=1),
        "constrained": onnx_upscale.optimize(model, tied, samples=1),
    }
    models = {"unpruned": onnx.load(model)} | {name: r.model for name, r in results.items()}
    unconstrained = accuracy(models["auto"], source, cell.seed)
    accuracies = dict.fromkeys(("gather", "upscale", "auto"), unconstrained)
    accuracies["constrained"] = accuracy(models["constrained"], source, cell.seed)
    accuracies["unpruned"] = unpruned
    timed = onnx_upscale.bench(list(models.values()), runs=runs, batch=1, memory=False).models
    report = {name: result.report["output"] for name, result in results.items()}
    report["unpruned"] = results["auto"].report["input"]
    copied = {name: result.report["copies"]["bytes"] for name, result in results.items()}
    return [
        Row(
            cell.network,
            cell.seed,
            cell.criterion,
            cell.side,
            cell.amount,
            name,
            round(accuracies[name], 5),
            round(timing.latency.median * 1e3, 5),
            round(timing.ratio.median, 4),
            report[name]["macs"],
            report[name]["params"],
            copied.get(name, 0),
        )
        for name, timing in zip(models, timed, strict=True)
    ]


def accuracy(model: onnx.ModelProto | Path, source: Source, seed: int) -> float:
    """Share of the held-out images that a model classifies right."""
    loaded = onnx.load(model) if isinstance(model, Path) else model
    session = Session(loaded, threads=1)
    right = total = 0
    for images, labels in source.batches(seed):
        (logits,) = session.run({loaded.graph.input[0].name: images}).values()
        right += int((np.argmax(logits, axis=1) == labels).sum())
        total += len(labels)
    return right / total
