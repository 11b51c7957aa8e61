"""How near `prune` comes to the fastest model that satisfies a goal, by a fine sweep.

    python tools/train_networks.py --data glyphs         # trains what is not there, as does this
    python tools/goal_study.py

`--agreement`, `--error` and `--score` are searched for by trying. Here every predicted share of the
latency, in steps of --step, is tried in their place. Of the models that satisfy a goal, those that
are predicted to be about as fast as the fastest are measured, side by side with the one that
`prune` ends with.

Results go to --out/goals.csv, network by network, and networks that are there are not tried again.
`--report` writes the table of what is there. Needs the `experiment` extra.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_upscale.errors import UsageError
from onnx_upscale.pruning.candidates import Candidate
from onnx_upscale.pruning.evaluation import Evaluation
from onnx_upscale.pruning.goals import Goal
from onnx_upscale.pruning.pruner import Pruner
from onnx_upscale.pruning.search import Choice
from onnx_upscale.pruning.settings import Settings
from onnx_upscale.recovery import Recovered

if TYPE_CHECKING:
    from experiment.comparison.setting import Setting
    from experiment.comparison.turns import Turns

ROOT = Path(__file__).resolve().parent.parent
NETWORKS = ("resnet", "densenet", "mobilenet", "efficientnet")
LEAST = 0.16  # Of the latency; as in a search.
MISSED = 0.1  # So much of it without a model that satisfies any goal ends a sweep.
ALIKE, MEASURED = 1.1, 6  # So many models that are predicted alike are measured.
LESS = 0.004  # Than the original's score.


@dataclass(frozen=True)
class Row:
    """What came of a goal; latencies are shares of the unpruned network's.

    Attributes:
        tried: How many models there were in the sweep, and in the search.
        swept: The fastest model of the sweep that satisfies the goal: predicted and measured.
        found: The one that `prune` ends with, likewise.
    """

    network: str
    seed: int
    goal: str
    value: float
    tried: int
    swept_predicted: float
    swept: float
    found_predicted: float
    found: float

    @property
    def slower(self) -> float:
        """By what share `prune` is behind."""
        return self.found / self.swept - 1


class Remembering(Pruner):
    """A pruner that makes and repairs each choice once, whoever asks for it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._choices: dict[float, Choice | UsageError] = {}
        self._models: dict[str, Recovered] = {}

    def chosen(self, share: float, measure: str = "latency") -> Choice:
        key = round(share, 4)
        if key not in self._choices:
            try:
                self._choices[key] = super().chosen(share, measure)
            except UsageError as error:
                self._choices[key] = error
        found = self._choices[key]
        if isinstance(found, UsageError):
            raise found
        return found

    def recovered(self, choice: Choice) -> Recovered:
        key = str(choice.masks)
        if key not in self._models:
            self._models[key] = super().recovered(choice)
        return self._models[key]


def rows_of(setting: Setting, samples: int, step: float) -> Iterator[Row]:
    """Every goal of one network."""
    from experiment.cells import accuracy

    source, seed, turns = setting.source, setting.seed, setting.turns

    def tell(what: str, done: int, of: int) -> None:
        if what == "Measuring":
            turns.alone()
        else:
            turns.share()

    evaluation = Evaluation.of(lambda path: accuracy(Path(path), source, seed))
    settings = Settings(count=samples, runs=setting.runs, evaluation=evaluation)
    goals = [
        Goal("agreement", 0.98),
        Goal("error", 0.08),
        Goal("error", 0.15),
        Goal("score", round(setting.dense - LESS, 5)),
    ]
    with Remembering(setting.model, setting.samples, settings, tell) as pruner:
        models = list(sweep(pruner, goals, step))
        for goal in goals:
            good = sorted(
                (each for each in models if each.satisfies(goal)), key=lambda e: e.choice.share
            )
            if not good:
                print(f"{setting.network} {goal.text}: not in the sweep", file=sys.stderr)
                continue
            near = [e for e in good if e.choice.share <= ALIKE * good[0].choice.share][:MEASURED]
            found = pruner.reach(goal)
            ratios = setting.ratios([*(e.result.model for e in near), found.model], setting.runs)
            best = min(range(len(near)), key=lambda place: ratios[place])
            alike = [e.choice.masks == found.masks for e in near]
            yield Row(
                setting.network, seed, goal.name, goal.value, len(models),
                near[best].choice.share, ratios[best], found.report["predicted"]["share"],
                ratios[alike.index(True)] if any(alike) else ratios[-1],  # Of one model, one.
            )  # fmt: skip


def sweep(pruner: Pruner, goals: Sequence[Goal], step: float) -> Iterator[Candidate]:
    """Different models from the slowest to the fastest, as long as they satisfy some goal."""
    last, good = None, 1.0
    for number in range(1, round((1 - LEAST) / step) + 1):
        try:
            choice = pruner.chosen(1 - step * number)
        except UsageError:
            return
        if choice.masks == last:
            continue
        last, candidate = choice.masks, Candidate(pruner, choice)
        if any([candidate.satisfies(goal) for goal in goals]):
            good = choice.goal
        values = " ".join(f"{goal.name} {candidate.value(goal):.4f}" for goal in goals)
        print(f"{choice.goal:.2f} {choice.share:.3f} {values}", file=sys.stderr, flush=True)
        yield candidate
        if choice.goal < good - MISSED:
            return


def run(args: argparse.Namespace, table: Path) -> None:
    from threadpoolctl import threadpool_limits

    from experiment.comparison.turns import Turns

    there = {(row.network, row.seed) for row in read(table)}
    with threadpool_limits(1), closing(Turns(args.cache / "comparison")) as turns:
        for seed in args.seeds:
            for network in args.networks:
                if (network, seed) not in there:
                    write(table, [*read(table), *_rows(args, network, seed, turns)])


def _rows(args: argparse.Namespace, network: str, seed: int, turns: Turns) -> Iterator[Row]:
    from experiment.comparison.setting import Setting
    from experiment.comparison.turns import claimed
    from experiment.sources import Glyphs

    cache = args.cache / "glyphs"
    with claimed(cache / "networks.lock", wait=True):
        source = Glyphs(cache, seed + 1)
        setting = Setting.of(source, network, seed, args.samples, turns, args.runs, cache, cache)
    return rows_of(setting, args.samples, args.step)


def read(path: Path) -> list[Row]:
    """All rows of a table."""
    if not path.exists():
        return []
    kinds = {"str": str, "int": int, "float": float}
    with path.open() as file:
        return [
            Row(**{field.name: kinds[str(field.type)](line[field.name]) for field in fields(Row)})
            for line in csv.DictReader(file)
        ]


def write(path: Path, rows: Sequence[Row]) -> None:
    """Writes a table anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _shown(value) for name, value in asdict(row).items()})


def _shown(value: object) -> object:
    return f"{value:.5g}" if isinstance(value, float) else value


def report(rows: Sequence[Row]) -> str:
    """The table in Markdown: predicted and measured latencies."""
    lines = ["| network | goal | sweep | `prune` | slower |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        goal = f"`--{row.goal} {row.value:.3g}`"
        swept, found = (
            f"{predicted:.3f}, {measured:.3f}"
            for predicted, measured in (
                (row.swept_predicted, row.swept),
                (row.found_predicted, row.found),
            )
        )
        lines.append(f"| {row.network} | {goal} | {swept} | {found} | {row.slower + 0.0:+.1%} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=(*NETWORKS, "vit"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--samples", type=int, default=256, help="unlabelled images")
    parser.add_argument("--step", type=float, default=0.01, help="of the sweep")
    parser.add_argument("--runs", type=int, default=30, help="timed runs per model")
    parser.add_argument("--cache", type=Path, default=ROOT / "build", help="where networks are")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "prune")
    parser.add_argument("--report", action="store_true", help="only the table")
    args = parser.parse_args()
    table = args.out / "goals.csv"
    if not args.report:
        run(args, table)
    print(report(read(table)))


if __name__ == "__main__":
    main()
