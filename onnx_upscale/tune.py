"""Letting `auto` measure: several plans for one model, timed side by side on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from onnx_upscale.benchmark import interleave
from onnx_upscale.optimizer.analyze import Analysis
from onnx_upscale.optimizer.apply import apply
from onnx_upscale.optimizer.plan import Plan, plan
from onnx_upscale.prices import Prices
from onnx_upscale.running import Session, random_inputs

_ROUNDS, _SECONDS = 60, 15.0
# Prices of copies to try, as multiples of the target's: from never mind them to never copy.
_COPY_PRICES = (0.3, 3.0, 1e9)


def tuned_plan(analysis: Analysis, prices: Prices, sizes: Mapping[str, tuple[int, ...]]) -> Plan:
    """The fastest of several plans on this machine.

    Args:
        analysis: The analysis.
        prices: The prices to start from.
        sizes: Shapes of the inputs to time with.

    Returns:
        The plan whose model had the lowest median latency, paired by rounds, on one thread.
    """
    plans = list(_candidates(analysis, prices))
    models = [apply(candidate).model for candidate in plans]
    feed = random_inputs(models[0], sizes, seed=0)
    tasks = [Session(model, threads=1).task(feed) for model in models]
    seconds = interleave(tasks, _ROUNDS, limit=_SECONDS)
    return plans[int(np.argmin(np.median(seconds / seconds[:, :1], axis=0)))]


def _candidates(analysis: Analysis, prices: Prices) -> Iterator[Plan]:
    yield plan(analysis, "auto", prices)
    for factor in _COPY_PRICES:
        yield plan(analysis, "auto", prices.with_copies_costing(factor))
    for strategy in ("upscale", "gather"):
        yield plan(analysis, strategy, prices)
