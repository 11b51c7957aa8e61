"""How much longer whole networks take than their kernels one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from onnx_upscale.benchmark import interleave
from onnx_upscale.optimizer.analyze import analyze
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.plan import plan
from onnx_upscale.prices import Prices
from onnx_upscale.pricing.measure import UNDISTURBED
from onnx_upscale.pricing.networks import networks
from onnx_upscale.running import Session, input_sizes, random_inputs

_SITTINGS, _ROUNDS = 5, 6
_LIMITS = 0.8, 1.5  # Beyond these, something else is wrong than where the caches are.


def whole_factor(
    prices: Prices, providers: Sequence[str], threads: int, precision: str = "float32"
) -> float:
    """Times networks, and compares that with what the prices of their kernels add up to.

    Args:
        prices: The prices.
        providers: onnxruntime's names of the providers.
        threads: Threads inside a kernel.
        precision: The type of real numbers.

    Returns:
        The median over networks of measured by predicted seconds.
    """
    models = list(networks(precision))
    predicted = [_predicted(model, prices) for model in models]
    feed = random_inputs(models[0], input_sizes(models[0]), seed=0)
    rows = []
    for sitting in range(_SITTINGS):
        tasks = [Session(model, threads, providers).task(feed) for model in models]
        rows.append(interleave(tasks, _ROUNDS, done_before=sitting * _ROUNDS))
    measured = np.quantile(np.concatenate(rows), UNDISTURBED, axis=0)
    return float(np.clip(np.median(measured / predicted), *_LIMITS))


def _predicted(model: onnx.ModelProto, prices: Prices) -> float:
    return plan(analyze(load(model).graph), "gather", prices).seconds
