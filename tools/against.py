"""Compare the package with an earlier one: what it takes, what it copies, and how fast results are.

    python tools/against.py CHECKOUT FOLDER [--models NAME,...] [--amounts 0.3,0.5] > table.md

CHECKOUT holds the earlier package (`git worktree add CHECKOUT COMMIT`), FOLDER models and masks as
for tools/zoo.py. Each package optimizes in processes of its own, the two in turn: the CPU seconds
of `optimize` without verification are the least of all its runs, those of the whole command medians
of one run each. What both emit with `auto` is timed side by side (`bench`).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_upscale
from zoo import MODELS, input_masks

STRATEGIES = ("auto", "upscale", "gather")
TIMES, TURNS = 6, 3
OPTIMIZE = """
import json, sys, time
import onnx_upscale
model, masks, strategy, out, times = sys.argv[1:]
least = 1e9
for _ in range(int(times)):
    started = time.process_time()
    done = onnx_upscale.optimize(model, masks, strategy=strategy, verify=False)
    least = min(least, time.process_time() - started)
if out:
    done.save(out)
copies = done.report.copies
print(json.dumps([least, copies.count, copies.bytes]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--amounts", default="0.3,0.5")
    parser.add_argument("--runs", type=int, default=12, help="rounds of latencies; 0 for none")
    parser.add_argument("--commands", type=int, default=0, help="runs of the whole command")
    args = parser.parse_args()
    packages = (args.checkout.resolve(), Path(onnx_upscale.__file__).parents[1])
    head = "| model | optimizer, s | ratio | command, s | ratio |"
    print(head, *(f"copies, {each} |" for each in STRATEGIES), "latency |")
    print("|" + " --- |" * (6 + len(STRATEGIES)))
    ratios: dict[str, list[float]] = {"optimizer": [], "command": [], "latency": []}
    for name in args.models.split(","):
        for amount in args.amounts.split(","):
            with tempfile.TemporaryDirectory() as work:
                masks = Path(work) / "masks.json"
                masks.write_text(json.dumps(input_masks(args.folder, name, amount)))
                model = args.folder / f"{name}.onnx"
                found = compared(packages, model, masks, args.runs, args.commands)
            for what, ratio in found.ratios.items():
                ratios[what].append(ratio)
            print(f"| {name} {amount} |", *(f"{cell} |" for cell in found.cells), flush=True)
    print()
    for what, values in ratios.items():
        if values:
            mean = math.exp(statistics.fmean(map(math.log, values)))
            print(f"- {what}: {min(values):.3f} to {max(values):.3f}, geometric mean {mean:.3f}")


class Compared:
    """The cells of a line, and the ratios in it, new to old."""

    def __init__(self) -> None:
        self.cells: list[str] = []
        self.ratios: dict[str, float] = {}

    def add(self, what: str, old: float, new: float) -> None:
        """Adds two times and their ratio."""
        self.ratios[what] = new / old
        self.cells += [f"{old:.3f} -> {new:.3f}", f"{new / old:.2f}"]


def compared(
    packages: Sequence[Path], model: Path, masks: Path, runs: int, commands: int
) -> Compared:
    """Compares two packages on one model.

    Args:
        packages: Folders that hold the earlier package, and this one.
        model: The model.
        masks: Its masks.
        runs: Rounds of latencies.
        commands: Runs of the whole command.
    """
    found = Compared()
    results = [masks.with_name(f"{number}.onnx") for number in range(2)]
    both = list(zip(packages, results, strict=True))
    least = [1e9, 1e9]
    for turn in range(TURNS):
        for number, (package, out) in list(enumerate(both))[:: -1 if turn % 2 else 1]:
            used, *_ = _optimized(package, model, masks, "auto", str(out))
            least[number] = min(least[number], used)
    found.add("optimizer", *least)
    if commands:
        found.add("command", *_command_seconds(packages, model, masks, commands))
    else:
        found.cells += ["", ""]
    for strategy in STRATEGIES:
        told = (_optimized(package, model, masks, strategy, "", 1) for package in packages)
        old, new = (f"{count} ({size / 1e6:.2f} MB)" for _, count, size in told)
        found.cells.append(old if old == new else f"{old} -> {new}")
    if results[0].read_bytes() == results[1].read_bytes():
        found.cells.append("same bytes")
    elif runs:
        paths = [str(each) for each in results]
        timed = onnx_upscale.bench(paths, names=["old", "new"], runs=runs, memory=False)
        ratio = timed.models[1].ratio.median
        found.ratios["latency"] = ratio
        found.cells.append(f"{ratio:.3f}")
    else:
        found.cells.append("")
    return found


def _environment(package: Path) -> Mapping[str, str]:
    return {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}


def _optimized(
    package: Path, model: Path, masks: Path, strategy: str, out: str, times: int = TIMES
) -> tuple[float, int, int]:
    """CPU seconds, copies and their bytes."""
    line = [sys.executable, "-c", OPTIMIZE, str(model), str(masks), strategy, out, str(times)]
    done = subprocess.run(
        line, env=_environment(package), cwd=masks.parent, capture_output=True, check=True
    )
    found: Any = json.loads(done.stdout)
    return found[0], found[1], found[2]


def _command_seconds(
    packages: Sequence[Path], model: Path, masks: Path, runs: int
) -> tuple[float, ...]:
    """Median CPU seconds of the whole command without verification."""
    out = str(masks.with_name("out.onnx"))
    line = [sys.executable, "-m", "onnx_upscale", str(model), str(masks), out, "--no-verify"]
    seconds: tuple[list[float], ...] = ([], [])
    for turn in range(runs):
        for number in (1, 0) if turn % 2 else (0, 1):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(
                line,
                env=_environment(packages[number]),
                cwd=masks.parent,
                capture_output=True,
                check=True,
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            seconds[number].append(used)
    return tuple(map(statistics.median, seconds))


if __name__ == "__main__":
    main()
