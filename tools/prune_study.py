"""Ways to make a network faster without labels, compared at equal measured latency.

    python tools/train_networks.py --data glyphs          # trains what is not there, as does this
    python tools/prune_study.py & python tools/prune_study.py        # one for each core
    python tools/prune_study.py --data imagenet --images FOLDER      # validation images

For the networks of the experiment: accuracy at 0.8, 0.7, 0.6 and 0.5 of the measured latency (one
image, one thread) after `prune`, in its three modes; after masks of a criterion, with and without
`recover`; after onnxsim and Torch-Pruning; and, trained further, with the masks of `prune`. By
default expensive methods are tried on some networks only, `--full` tries all.

Every result goes to --out/results.csv at once, and a run goes on where an earlier one stopped. As
many runs as there are cores can share the work: they compute side by side, and measure alone.
`--report` writes tables and plots of what is there. Needs the `experiment` extra, and
onnxsim and torch-pruning for the methods of these names.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from experiment.comparison import rows as results
from experiment.comparison.jobs import (
    COUNTS,
    DATA,
    FOREIGN,
    IMAGENET,
    LATENCIES,
    METHODS,
    MODES,
    NETWORKS,
    SAMPLES,
    SEEDS,
    TRAINED,
    TRAINED_AT,
    Job,
    Wanted,
    all_jobs,
)
from experiment.comparison.plots import draw
from experiment.comparison.rows import Row
from experiment.comparison.tables import report

if TYPE_CHECKING:
    from experiment.comparison.setting import Setting
    from experiment.comparison.turns import Turns
    from experiment.sources import Digits, Glyphs, ImageNet

ROOT = Path(__file__).resolve().parent.parent


class Runner:
    """Does jobs, and keeps what they share.

    Args:
        args: Of the command line.
        turns: Who else computes on this machine.
    """

    def __init__(self, args: argparse.Namespace, turns: Turns) -> None:
        self._args, self._turns = args, turns
        self._work: Path = _work(args)
        self._table: Path = args.out / "results.csv"
        self._sources: dict[str, Digits | Glyphs | ImageNet] = {}
        self._settings: dict[tuple[str, str, int], Setting] = {}

    def finish(self, jobs: list[Job]) -> int:
        """Does what no other run has done or is doing; says how many jobs failed."""
        from experiment.comparison.turns import claimed

        failed = 0
        for number, job in enumerate(jobs, 1):
            started = time.monotonic()
            with claimed(self._work / "claims" / job.name) as mine:
                left = _left(job, results.read(self._table)) if mine else None
                if left is None:
                    continue
                try:
                    for row in self._rows(left):
                        results.append(self._table, [row])
                except Exception:  # Hours of other jobs are waiting.
                    traceback.print_exc()
                    failed += 1
            seconds = time.monotonic() - started
            print(f"{number}/{len(jobs)}  {job.name}  {seconds:.0f} s", file=sys.stderr, flush=True)
        return failed

    def _rows(self, job: Job) -> Iterator[Row]:
        setting = self._setting(job)
        try:
            yield from _method(job)(job, setting)
        except Exception as error:
            if job.method not in FOREIGN:
                raise
            why = f"{type(error).__name__}: {str(error)[:200]}"
            yield from (setting.nothing(job.cells(wanted)[0], why) for wanted in job.wanted)

    def _setting(self, job: Job) -> Setting:
        from experiment.comparison.setting import Setting
        from experiment.comparison.turns import claimed

        if job.data not in self._sources:
            self._sources[job.data] = self._source(job.data)
        key = job.data, job.network, job.seed
        if key not in self._settings:
            cache = self._args.cache / job.data
            with claimed(cache / "networks.lock", wait=True):
                self._settings[key] = Setting.of(
                    self._sources[job.data],
                    job.network,
                    job.seed,
                    SAMPLES,
                    self._turns,
                    self._args.runs,
                    cache,
                    self._work / "masks" / job.data,
                )
        return self._settings[key]

    def _source(self, data: str) -> Digits | Glyphs | ImageNet:
        from experiment.sources import TRAINED as SOURCES
        from experiment.sources import ImageNet

        if data == IMAGENET:
            return ImageNet(self._args.images, pretrained=not self._args.random_weights)
        return SOURCES[data](self._args.cache / data, max(self._args.seeds) + 1)


def _work(args: argparse.Namespace) -> Path:
    """Where runs that share the work meet."""
    work: Path = args.cache / "comparison"
    return work


def _left(job: Job, rows: Iterable[Row]) -> Job | None:
    """What of a job has no row yet."""
    finished = {row.cell for row in rows}
    wanted = tuple(each for each in job.wanted if not finished.issuperset(job.cells(each)))
    return Job(job.data, job.network, job.seed, job.method, job.samples, wanted) if wanted else None


def _method(job: Job) -> Callable[[Job, Setting], Iterator[Row]]:
    from experiment.comparison import finetuning, others, pruners

    table = {
        **dict.fromkeys(MODES, pruners.prune_rows),
        "onnxsim": others.onnxsim_rows,
        "torch-pruning": others.torch_pruning_rows,
        TRAINED: finetuning.finetuned_rows,
    }
    return table.get(job.method, pruners.criterion_rows)


def run(args: argparse.Namespace, jobs: list[Job]) -> int:
    import torch
    from threadpoolctl import threadpool_limits

    from experiment.comparison.others import missing
    from experiment.comparison.turns import Turns

    needed = missing({job.method for job in jobs})
    if needed:
        raise SystemExit(f"pip install {' '.join(needed)}; or leave them out of --methods")
    torch.set_num_threads(1)
    with threadpool_limits(1), closing(Turns(_work(args))) as turns:
        return Runner(args, turns).finish(jobs)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", default=DATA, choices=(*DATA, IMAGENET))
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--latencies", nargs="+", type=float, default=LATENCIES)
    parser.add_argument(
        "--counts", nargs="*", type=int, default=COUNTS, help="fewer samples to try prune with"
    )
    parser.add_argument(
        "--finetune", nargs="*", type=float, default=TRAINED_AT, help="latencies to train at"
    )
    parser.add_argument("--images", type=Path, help="folder of ImageNet's validation images")
    parser.add_argument("--random-weights", action="store_true", help="to try the tool out")
    parser.add_argument("--full", action="store_true", help="everything, which takes many hours")
    parser.add_argument("--runs", type=int, default=300, help="timed runs per model")
    parser.add_argument("--cache", type=Path, default=ROOT / "build", help="where networks are")
    parser.add_argument("--out", type=Path, help="docs/prune, unless weights are random")
    parser.add_argument("--list", action="store_true", help="only say what there is to do")
    parser.add_argument("--report", action="store_true", help="only tables and plots")
    args = parser.parse_args()
    if IMAGENET in args.data and (args.images is None or not args.images.is_dir()):
        parser.error("imagenet: give the folder of validation images with --images")
    if args.random_weights:  # Nothing of that is to be taken for networks or results.
        args.cache /= "random"
    args.out = args.out or (args.cache if args.random_weights else ROOT / "docs" / "prune")
    asked = Wanted(
        args.data, args.networks, args.seeds, args.methods, args.latencies,
        args.counts, args.finetune, args.full,
    )  # fmt: skip
    jobs = all_jobs(asked)
    table = args.out / "results.csv"
    if args.list:
        left = [job for job in jobs if _left(job, results.read(table))]
        print("\n".join(job.name for job in left))
        return
    failed = 0 if args.report else run(args, jobs)
    rows = results.read(table)
    if not rows:
        raise SystemExit(f"{table}: no results yet")
    (args.out / "tables.md").write_text(report(rows))
    for path in (*draw(rows, args.out), args.out / "tables.md"):
        print(path)
    if failed:
        raise SystemExit(f"{failed} jobs failed; another run tries them again")


if __name__ == "__main__":
    main()
