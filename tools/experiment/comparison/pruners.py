"""The methods of this project: `prune`, and masks of a criterion with and without `recover`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import onnx_upscale
from experiment.comparison.jobs import MODES, SAMPLES, Job
from experiment.comparison.matching import Curve
from experiment.comparison.rows import Row
from experiment.comparison.setting import Clock, Setting
from onnx_upscale.errors import UsageError
from onnx_upscale.pruning.goals import Goal
from onnx_upscale.pruning.prune import prune_all
from onnx_upscale.pruning.results import Pruned

SIDE = "input"
"""What masks of a criterion are about: docs/experiment.md finds this side the better one."""
_SHARES = tuple(each / 64 for each in range(1, 58))  # up to 0.9
_RANKED = 32  # Images for hrank, as in docs/experiment.md.


def prune_rows(job: Job, setting: Setting) -> Iterator[Row]:
    """`prune`, in one of its modes."""
    clock = Clock()
    goals = [Goal("latency", wanted) for wanted in job.wanted]
    try:
        found: list[Pruned | UsageError] = list(_pruned(job, setting, goals))
    except UsageError:  # All of them fail if one does.
        found = []
        for goal in goals:
            try:
                found += _pruned(job, setting, [goal])
            except UsageError as error:
                found.append(error)
    seconds = clock.lap() / len(goals)
    for goal, pruned in zip(goals, found, strict=True):
        (cell,) = job.cells(goal.value)
        if isinstance(pruned, UsageError):
            yield setting.nothing(cell, str(pruned))
            continue
        report = pruned.report
        ratio = report["latency"][1]["ratio"]["median"]
        if job.method == "prune" and job.samples == SAMPLES:
            path = setting.masks_path(goal.value)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(pruned.masks))
        yield setting.row(cell, pruned.model, report["predicted"]["share"], ratio, seconds)


def _pruned(job: Job, setting: Setting, goals: list[Goal]) -> Sequence[Pruned]:
    turns = setting.turns

    def tell(what: str, done: int, of: int) -> None:
        if what == "Measuring":
            turns.alone()
        else:
            turns.share()

    try:
        return prune_all(
            setting.model,
            setting.samples,
            goals,
            mode=MODES[job.method],
            count=job.samples,
            runs=setting.runs,
            progress=tell,
        )
    finally:
        turns.share()


def criterion_rows(job: Job, setting: Setting) -> Iterator[Row]:
    """Masks of a criterion: as much of every layer as brings the latency, then both ways.

    The repaired model is timed; without repair it has the same shapes.
    """
    assert job.criterion is not None
    clock = Clock()

    def masks(share: float) -> dict[str, Any]:
        return onnx_upscale.mask(
            setting.model,
            job.criterion or "",
            share,
            side=SIDE,
            constrained=job.method != job.criterion,
            data=setting.images[:_RANKED] if job.criterion == "hrank" else None,
        )

    curve = Curve(
        _SHARES,
        lambda share: setting.predicted(setting.model, masks(share)),
        lambda share: setting.ratio(
            onnx_upscale.optimize(setting.model, masks(share), verify=False).model
        ),
    )
    for wanted in job.wanted:
        plain, repaired = job.cells(wanted)
        share = curve.reach(wanted)
        if share is None:
            yield from (setting.nothing(cell, unreached(curve)) for cell in (plain, repaired))
            continue
        chosen = masks(share)
        masked = onnx_upscale.optimize(setting.model, chosen, samples=1)
        seconds = clock.lap()
        recovered = onnx_upscale.recover(
            setting.model,
            chosen,
            setting.samples,
            count=job.samples,
            progress=lambda done, of: setting.turns.share(),
        )
        optimized = onnx_upscale.optimize(recovered.model, None, samples=1)
        ratio = setting.ratio(optimized.model)
        longer = seconds + clock.lap()
        predicted = curve.predicted(share)
        yield setting.row(plain, masked.model, predicted, ratio, seconds)
        yield setting.row(repaired, optimized.model, predicted, ratio, longer)
        clock.lap()


def unreached(curve: Curve) -> str:
    """Why a latency is not reached."""
    share, least = min(curve.measured.items(), key=lambda each: each[1])
    return f"at best {least:.2f} of the latency is left, without {share:.2f} of the channels"
