"""What other plans would gain by the prices that `auto` plans with, as a Markdown table.

    python tools/limits_study.py FOLDER --target PROFILE [--amounts 0.3 0.5 ...] > table.md

For the networks of `tools/performance.py` in FOLDER and random masks, as shares of the predicted
latency: what would it save to compute a layer once for each of its readers that copies, in place of
the copies (`duplicate`)? And to choose the counts of segments that touch together, where `auto`
chooses each by what is beside it (`joint`)? The second is answered by search: every pair of
segments with a layer between them, all counts that the prices like, until no pair gains.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from onnx_upscale.clock import Clock
from onnx_upscale.optimizer.analyze import Analysis, Segment
from onnx_upscale.optimizer.plan import Costs, Plan, Preferred, Strategy, lay_out
from onnx_upscale.optimizer.plan import _realized as realized
from onnx_upscale.options import Options
from onnx_upscale.planning import planned_job
from suite.jobs import all_jobs
from zoo import input_masks

Counts = Mapping[int, int]
"""By the number of a segment, how many of its channels to keep."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--amounts", nargs="+", type=float, default=[0.3, 0.5, 0.7])
    args = parser.parse_args()
    print("| network | masks | copies | `duplicate` | `joint` | counts changed |")
    print("|---|---|---|---|---|---|")
    for job in all_jobs(args.folder):
        plain = (job.criterion, job.batch, job.form) == ("random", 1, "float32")
        if not plain or job.amount not in args.amounts:
            continue
        masks = input_masks(job.folder, job.model, str(job.amount))
        plan = planned_job(job.path, masks, Options(target=args.target), Clock()).plan
        copies = plan.seconds_by_kind["copies"] / plan.seconds
        best, changed = joint(plan)
        print(f"| {job.model} | {job.amount} | {copies:.1%} | {duplicated(plan) / plan.seconds:.2%}"
              f" | {1 - best / plan.seconds:.2%} | {changed} |", flush=True)  # fmt: skip


def duplicated(plan: Plan) -> float:
    """Seconds that layers of their own would save readers that copy what one layer makes."""
    costs = Costs(plan.analysis.structure, plan.prices)
    saved = 0.0
    for segment in plan.analysis.structure.segments:
        indices = [read.layer.node.index for read in segment.readers]
        readers = [plan.readers[index] for index in indices if index in plan.readers]
        copying = [each for each in readers if each.seconds_copying(costs) > 0]
        made_by = [plan.readers.get(writer.node.index) for writer in segment.writers]
        if len(readers) < 2 or not copying or len(made_by) != 1 or made_by[0] is None:
            continue
        layer, read = made_by[0].read.layer, len(made_by[0].chosen)
        once = costs.layer(layer, read, len(readers[0].here))
        now = once + sum(each.seconds_copying(costs) for each in copying)
        apart = sum(costs.layer(layer, read, each.needed) for each in copying)
        saved += max(0.0, now - apart - once * (len(copying) < len(readers)))
    return saved


def joint(plan: Plan) -> tuple[float, int]:
    """Seconds after a search over the counts of segments that touch, and how many it changed."""
    analysis, segments = plan.analysis, plan.analysis.structure.segments
    costs = Costs(analysis.structure, plan.prices)
    first = {each.id: int(np.count_nonzero(plan.kept.labels[each.roots])) for each in segments}
    ways = {each.id: sorted({*liked(analysis, each, costs), first[each.id]}) for each in segments}
    found, best = dict(first), seconds(plan, first, costs)
    while True:
        before = best
        for one, other in touching(segments):
            for counts in itertools.product(ways[one], ways[other]):
                tried = {**found, one: counts[0], other: counts[1]}
                if tried != found and (took := seconds(plan, tried, costs)) < best - 1e-9:
                    found, best = tried, took
        if best > before * (1 - 1e-4):
            return best, sum(found[each] != first[each] for each in first)


def liked(analysis: Analysis, segment: Segment, costs: Costs) -> Iterator[int]:
    """What it needs, and more up to counts that kernels like."""
    needed = int(np.count_nonzero(analysis.needs.labels[segment.roots]))
    counts = costs.prices.counts(needed, segment.grain)
    for count in (needed, counts.least, counts.aligned, counts.whole):
        if needed <= count <= len(segment.roots) and not segment.in_grid:
            yield count


def touching(segments: tuple[Segment, ...]) -> list[tuple[int, int]]:
    """Segments with a layer between them."""
    made = {writer.node.index: each.id for each in segments for writer in each.writers}
    return sorted(
        {
            (each.id, made[read.layer.node.index])
            for each in segments
            for read in each.readers
            if made.get(read.layer.node.index, each.id) != each.id
        }
    )


def seconds(plan: Plan, counts: Counts, costs: Costs) -> float:
    """What it takes to keep so many channels of each segment, first those that `auto` keeps."""
    analysis, wanted = plan.analysis, []
    for segment in analysis.structure.segments:
        needed = analysis.needs.labels[segment.roots]
        missing = counts[segment.id] - int(np.count_nonzero(needed))
        more = segment.roots[~needed]
        more = more[np.argsort(~plan.kept.labels[more], kind="stable")]
        wanted.append(more[: max(0, missing)])
    kept, layout, failed = lay_out(
        analysis, analysis.keeping(np.concatenate(wanted)), Strategy.AUTO
    )
    if failed:
        return float("inf")
    return realized(analysis, kept, layout, costs, Strategy.AUTO, Preferred()).seconds


if __name__ == "__main__":
    main()
