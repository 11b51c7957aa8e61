"""Predicted against measured latency, over the models of docs/zoo.md.

    python tools/predict.py FOLDER PROFILE.json [--models NAME,...] [--amounts 0.3,0.5]

FOLDER is that of tools/zoo.py; PROFILE.json comes from `onnx-upscale price` on the same machine.
Every model is measured unpruned and with every strategy, all versions in turn on one thread.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

import onnx_upscale
from onnx_upscale.benchmark import interleave
from onnx_upscale.choices import STRATEGIES
from onnx_upscale.optimizer.apply import apply
from onnx_upscale.running import Session, input_sizes, random_inputs

MODELS = (
    "resnet18",
    "resnet50",
    "densenet121",
    "mobilenet_v2",
    "mnasnet1_0",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "squeezenet1_1",
)
SITTINGS, ROUNDS = 4, 5
# As in `price`: others who use the machine slow some runs down, and nothing makes one faster.
QUANTILE = 0.1
DIFFERENT = 0.05


@dataclass(frozen=True)
class Latency:
    """Seconds of one version of a model."""

    predicted: float
    measured: float

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


def latencies(folder: Path, name: str, profile: str, amounts: Sequence[str]) -> dict[str, Latency]:
    path = folder / f"{name}.onnx"
    plans = {"unpruned": onnx_upscale.analyze(path).plan("gather", profile)}
    for amount in amounts:
        analyzed = onnx_upscale.analyze(path, folder / f"{name}.{amount}.json")
        for strategy in STRATEGIES:
            plans[f"{strategy} {amount}"] = analyzed.plan(strategy, profile)
    models = {label: apply(plan).model for label, plan in plans.items()}
    measured = measure(list(models.values()))
    return {
        label: Latency(plan.seconds, seconds)
        for (label, plan), seconds in zip(plans.items(), measured, strict=True)
    }


def measure(models: Sequence[onnx.ModelProto]) -> list[float]:
    feed = random_inputs(models[0], input_sizes(models[0]), seed=0)
    rows = []
    for sitting in range(SITTINGS):
        tasks = [Session(model, threads=1).task(feed) for model in models]
        # On one thread, processor time is the latency where nobody else uses the machine.
        done = sitting * ROUNDS
        rows.append(interleave(tasks, ROUNDS, done_before=done, clock=time.process_time))
    return [float(value) for value in np.quantile(np.concatenate(rows), QUANTILE, axis=0)]


def right_pairs(found: Mapping[str, Latency]) -> tuple[int, int]:
    """How many pairs that differ are in the right order, and how many differ."""
    right = of = 0
    for one, other in itertools.combinations(found.values(), 2):
        ratio = one.measured / other.measured
        if abs(np.log(ratio)) > np.log(1 + DIFFERENT):
            of += 1
            right += (one.predicted < other.predicted) == (ratio < 1)
    return right, of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("profile")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--amounts", default="0.3,0.5")
    args = parser.parse_args()
    errors, right, of = [], 0, 0
    print(
        "| model | version | predicted ms | measured ms | error |\n| --- | --- | --- | --- | --- |"
    )
    for name in args.models.split(","):
        found = latencies(args.folder, name, args.profile, args.amounts.split(","))
        for label, each in found.items():
            row = (name, label, f"{each.predicted * 1e3:.2f}", f"{each.measured * 1e3:.2f}")
            print(f"| {' | '.join(row)} | {each.error:+.3f} |", flush=True)
        errors += [abs(each.error) for each in found.values()]
        pairs = right_pairs(found)
        right, of = right + pairs[0], of + pairs[1]
    print(f"\nMedian absolute error {np.median(errors):.3f}, 90th percentile", end=" ")
    print(
        f"{np.quantile(errors, 0.9):.3f}; {right} of {of} pairs that differ by more than", end=" "
    )
    print(f"{DIFFERENT:.0%} in the right order ({right / max(of, 1):.3f}).")


if __name__ == "__main__":
    main()
