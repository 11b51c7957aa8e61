"""Which of several whole models is fastest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from onnx_upscale.benchmark import interleave
from onnx_upscale.benchmark.measure import Seconds, Task
from onnx_upscale.benchmark.statistics import paired_ratios
from onnx_upscale.optimizer.apply import apply
from onnx_upscale.optimizer.plan import Plan
from onnx_upscale.running import Draw, on_first_draw, random_inputs
from onnx_upscale.tuning.runtime import Runtime

_ROUNDS, _FEWEST = 60, 3
_FINALISTS = 3
_SITTINGS = 3
"""Two loads of one model may differ by a percent or more for as long as they live."""
_TELLING = 0.995
"""Who is not this much faster than the first plan is no reason to leave it."""


def fastest(plans: Sequence[Plan], runtime: Runtime) -> Plan:
    """The plan whose model is fastest: all of them once, the best again, in several sittings.

    Args:
        plans: The plans; the first of them wins where no other is clearly faster.
        runtime: How they run.
    """
    distinct: dict[tuple[object, ...], Plan] = {}
    for each in plans:
        distinct.setdefault(_decisions(each), each)
    left = [*distinct.values()]
    chosen = _raced([apply(each).model for each in left], runtime)
    runtime.budget.tell(done=True)
    return left[chosen]


def _raced(models: Sequence[onnx.ModelProto], runtime: Runtime) -> int:
    if len(models) == 1:
        return 0
    budget = runtime.budget
    ratios = _ratios([_timed(models, runtime, budget.left() / 2)])
    budget.tell()
    others = [at for at in np.argsort(ratios, kind="stable").tolist() if at]
    finalists = [0, *others[: _FINALISTS - 1]]
    sittings, each = list[Seconds](), budget.left() / _SITTINGS
    for _ in range(_SITTINGS):
        sittings.append(_timed([models[at] for at in finalists], runtime, each))
        budget.tell()
    ratios = _ratios(sittings)
    best = int(np.argmin(ratios))
    return finalists[best] if ratios[best] < _TELLING else 0


def _timed(models: Sequence[onnx.ModelProto], runtime: Runtime, limit: float) -> Seconds:
    def loaded(draw: Draw) -> list[Task]:
        feed = random_inputs(models[0], runtime.sizes, 0, draw)
        return [runtime.task(model, feed) for model in models]

    return interleave(on_first_draw(loaded), _ROUNDS, limit=limit, fewest=_FEWEST)


def _ratios(sittings: Sequence[Seconds]) -> list[float]:
    """Latencies as shares of the first model's."""
    return [ratio.median for ratio in paired_ratios(sittings)]


def _decisions(plan: Plan) -> tuple[object, ...]:
    """What two plans that emit the same model have in common."""
    return (
        plan.kept.labels.tobytes(),
        tuple((index, each.way, each.chosen.tobytes()) for index, each in plan.readers.items()),
        tuple((index, each.way, each.positions.tobytes()) for index, each in plan.writers.items()),
        tuple((index, len(edits)) for index, edits in plan.edits.items()),
    )
