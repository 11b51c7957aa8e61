"""Predicted against measured latency, over the models of docs/zoo.md.

    python tools/predict.py FOLDER PROFILE.json [--models NAME,...] [--amounts 0.3,0.5]

FOLDER is that of tools/zoo.py; PROFILE.json comes from `onnx-upscale price` on the same machine.
Every model is measured unpruned and with every strategy, all versions in turn on one thread, and
among them the networks that `price` ends with. Those say how fast the machine is now, against when
it was priced: shared machines differ by a third from minute to minute, which prices cannot know.
Errors are given as measured, and with that pace taken out.
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
from onnx_upscale.benchmark.measure import Seconds
from onnx_upscale.choices import STRATEGIES
from onnx_upscale.optimizer.apply import apply
from onnx_upscale.pricing.networks import networks
from onnx_upscale.running import Session, input_sizes, random_inputs
from suite.jobs import EIGHT

SITTINGS, ROUNDS = 4, 5
# As in `price`: others who use the machine slow some runs down, and nothing makes one faster.
QUANTILE = 0.1
DIFFERENT = 0.05


@dataclass(frozen=True)
class Latency:
    """Seconds of one version of a model, and how much longer than when it was priced all takes."""

    predicted: float
    measured: float
    pace: float

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1

    @property
    def paced_error(self) -> float:
        return self.predicted * self.pace / self.measured - 1


def latencies(folder: Path, name: str, profile: str, amounts: Sequence[str]) -> dict[str, Latency]:
    path = folder / f"{name}.onnx"
    plans = {"unpruned": onnx_upscale.analyze(path).plan("gather", profile)}
    for amount in amounts:
        analyzed = onnx_upscale.analyze(path, folder / f"{name}.{amount}.json")
        for strategy in STRATEGIES:
            plans[f"{strategy} {amount}"] = analyzed.plan(strategy, profile)
    witnesses = list(networks())
    told = [onnx_upscale.analyze(model).plan("gather", profile).seconds for model in witnesses]
    seconds = measure([*witnesses, *(apply(plan).model for plan in plans.values())])
    pace = float(np.median(seconds[: len(told)] / np.array(told)))
    return {
        label: Latency(plan.seconds, float(each), pace)
        for (label, plan), each in zip(plans.items(), seconds[len(told) :], strict=True)
    }


def measure(models: Sequence[onnx.ModelProto]) -> Seconds:
    feeds = [random_inputs(model, input_sizes(model), seed=0) for model in models]
    rows = []
    for sitting in range(SITTINGS):
        tasks = [Session(m, threads=1).task(feed) for m, feed in zip(models, feeds, strict=True)]
        # On one thread, processor time is the latency where nobody else uses the machine.
        done = sitting * ROUNDS
        rows.append(interleave(tasks, ROUNDS, done_before=done, clock=time.process_time))
    return np.asarray(np.quantile(np.concatenate(rows), QUANTILE, axis=0))


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
    parser.add_argument("--models", default=",".join(EIGHT))
    parser.add_argument("--amounts", default="0.3,0.5")
    args = parser.parse_args()
    found: list[Latency] = []
    right = of = 0
    print("| model | version | predicted ms | measured ms | error | pace | error at that pace |")
    print(f"|{' --- |' * 7}")
    for name in args.models.split(","):
        versions = latencies(args.folder, name, args.profile, args.amounts.split(","))
        for label, each in versions.items():
            seconds = (f"{value * 1e3:.2f}" for value in (each.predicted, each.measured))
            shares = (f"{each.error:+.3f}", f"{each.pace:.3f}", f"{each.paced_error:+.3f}")
            print(f"| {' | '.join((name, label, *seconds, *shares))} |", flush=True)
        found += versions.values()
        pairs = right_pairs(versions)
        right, of = right + pairs[0], of + pairs[1]
    for title, errors in (
        ("As measured", [abs(each.error) for each in found]),
        ("At the pace of the moment", [abs(each.paced_error) for each in found]),
    ):
        middle, ninetieth = np.quantile(errors, [0.5, 0.9])
        print(f"\n{title}: median absolute error {middle:.3f}, 90th percentile {ninetieth:.3f}.")
    print(f"{right} of {of} pairs that differ by more than {DIFFERENT:.0%}", end=" ")
    print(f"in the right order ({right / max(of, 1):.3f}).")


if __name__ == "__main__":
    main()
