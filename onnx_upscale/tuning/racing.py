"""Which of several whole models is fastest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from onnx_upscale.benchmark import interleave
from onnx_upscale.optimizer.apply import apply
from onnx_upscale.optimizer.plan import Plan
from onnx_upscale.options import Sizes
from onnx_upscale.running import Session, random_inputs
from onnx_upscale.tuning.budget import Budget

_ROUNDS, _FEWEST = 60, 3
_FINALISTS = 3


def fastest(plans: Sequence[Plan], sizes: Sizes, budget: Budget) -> Plan:
    """The plan whose model is fastest: all of them once, the best again and for longer.

    Args:
        plans: The plans.
        sizes: Shapes of the inputs.
        budget: The time for it.
    """
    distinct = list({_decisions(each): each for each in reversed(plans)}.values())[::-1]
    models = [apply(each).model for each in distinct]
    order = list(range(len(models)))
    for count, share in ((len(order), 0.5), (_FINALISTS, 1.0)):
        order = order[:count]
        if len(order) == 1:
            break
        seconds = _timed([models[at] for at in order], sizes, share * budget.left())
        ratios = np.median(seconds / seconds[:, :1], axis=0)
        order = [order[at] for at in np.argsort(ratios, kind="stable")]
        budget.tell()
    budget.tell(done=True)
    return distinct[order[0]]


def _timed(models: Sequence[onnx.ModelProto], sizes: Sizes, limit: float) -> np.ndarray:
    feed = random_inputs(models[0], sizes, seed=0)
    tasks = [Session(model, threads=1, whole=True).task(feed) for model in models]
    return interleave(tasks, _ROUNDS, limit=limit, fewest=_FEWEST)


def _decisions(plan: Plan) -> tuple[object, ...]:
    """What two plans that emit the same model have in common."""
    return (
        plan.kept.labels.tobytes(),
        tuple((index, each.way, each.chosen.tobytes()) for index, each in plan.readers.items()),
        tuple((index, each.way, each.positions.tobytes()) for index, each in plan.writers.items()),
        tuple((index, len(edits)) for index, edits in plan.edits.items()),
    )
