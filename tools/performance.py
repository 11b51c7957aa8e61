"""How fast models become, and what is left to gain: the evidence of docs/performance.md.

    python tools/performance.py run FOLDER --out RESULTS.jsonl [--provider cuda] [--target PROFILE]
        [--only WORDS ...]
    python tools/performance.py report RESULTS.jsonl docs/performance

FOLDER holds, per model, NAME.onnx with a symbolic batch or one of 1, and where the paper's own
implementation was exported as well, NAME.AMOUNT.json (random input masks), NAME.AMOUNT.peer.onnx
(its order) and NAME.AMOUNT.peerbase.onnx (its baseline). Every result is written at once, and a run
goes on where an earlier one stopped. `report` writes tables, and a plot for each.

All versions of a model run in turn on one thread (docs/bench.md), and once more for their profile.
Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from suite.jobs import KINDS, Job, all_jobs
from suite.measuring import measured
from suite.reporting import write_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("folder", type=Path)
    running.add_argument("--out", type=Path, required=True)
    running.add_argument("--provider", default="cpu", choices=KINDS)
    running.add_argument("--target", default="cpu")
    running.add_argument("--runs", type=int, default=18)
    running.add_argument("--tune-seconds", type=float, default=60)
    running.add_argument("--only", nargs="*", default=[], help="words that the job's name has")
    reporting = commands.add_parser("report")
    reporting.add_argument("results", type=Path)
    reporting.add_argument("folder", type=Path)
    args = parser.parse_args()
    if args.command == "report":
        write_report(list(_rows(args.results)), args.folder)
        return
    done = {row["job"] for row in _rows(args.out)} if args.out.exists() else set()
    for job in all_jobs(args.folder, args.provider):
        if job.name in done or not all(word in job.name for word in args.only):
            continue
        row = _done(job, args)
        with args.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row["job"], {name: round(each["ms"], 2) for name, each in row["models"].items()})


def _done(job: Job, args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="onnx-upscale-") as folder:
        return measured(job, Path(folder), args.target, args.runs, args.tune_seconds)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text().splitlines():
        yield json.loads(line)


if __name__ == "__main__":
    main()
