"""What other plans would gain by the prices that `auto` plans with, as a Markdown table.

    python tools/limits_study.py FOLDER --target PROFILE [--amounts 0.3 0.5 ...] > table.md

For the networks of `tools/performance.py` in FOLDER and random masks, as shares of the predicted
latency: what would it save to compute a layer once for each of its readers that copies, in place of
the copies (`duplicate`)? And to choose the counts of segments that touch together, where `auto`
chooses each by what is beside it (`joint`, the search of `--tune` without a limit of time)?
"""

from __future__ import annotations

import argparse
from pathlib import Path

from onnx_upscale.clock import Clock
from onnx_upscale.optimizer.plan import Costs, Plan
from onnx_upscale.options import Options
from onnx_upscale.planning import planned_job
from onnx_upscale.tuning.together import plan_together
from suite.jobs import all_jobs
from zoo import input_masks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--amounts", nargs="+", type=float, default=[0.3, 0.5, 0.7])
    args = parser.parse_args()
    print("| network | masks | copies | `duplicate` | `joint` |")
    print("|---|---|---|---|---|")
    for job in all_jobs(args.folder, "cpu"):
        plain = (job.criterion, job.kind.batch, job.kind.form) == ("random", 1, "float32")
        if not plain or job.amount not in args.amounts:
            continue
        masks = input_masks(job.folder, job.model, str(job.amount))
        plan = planned_job(job.path, masks, Options(target=args.target), Clock()).plan
        copies = plan.seconds_by_kind["copies"] / plan.seconds
        costs = Costs(plan.analysis.structure, plan.prices)
        together = plan_together(plan, costs, goes_on=lambda: True)
        print(f"| {job.model} | {job.amount} | {copies:.1%} | {duplicated(plan) / plan.seconds:.2%}"
              f" | {1 - together.seconds / plan.seconds:.2%} |", flush=True)  # fmt: skip


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


if __name__ == "__main__":
    main()
