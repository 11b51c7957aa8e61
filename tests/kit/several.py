"""What becomes of a model in several ways, without finding out the same about it each time."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import onnx

from onnx_upscale.optimizer.analyze import analyze
from onnx_upscale.optimizer.apply import apply
from onnx_upscale.optimizer.bodies import PlannedBody, grown_analysis, plan_bodies
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.plan import Plan, plan
from onnx_upscale.prices import load_prices
from targets import TARGETS

Way = tuple[str, str]
"""A strategy, and one of `TARGETS`."""

_prices = functools.cache(load_prices)


def planned(
    model: onnx.ModelProto, masks: Mapping[str, Any] | None, ways: Iterable[Way]
) -> Iterator[tuple[Way, Plan, tuple[PlannedBody, ...]]]:
    """What `optimize` plans in each of some ways, for the model and for bodies in it.

    The model is loaded and analyzed once, as all but planning and applying is the same.
    """
    loaded = load(model, masks, runs=False)
    analysis = analyze(loaded.graph)
    for strategy, target in ways:
        prices = _prices(TARGETS[target])
        own, _ = grown_analysis(analysis, strategy)
        bodies = plan_bodies(loaded.bodies, strategy, prices)
        yield (strategy, target), plan(own, strategy, prices), bodies


def emitted(
    model: onnx.ModelProto, masks: Mapping[str, Any] | None, ways: Iterable[Way]
) -> dict[Way, onnx.ModelProto]:
    """What `optimize` emits in each of some ways; it also compares, counts and reports."""
    return {way: apply(own, bodies).model for way, own, bodies in planned(model, masks, ways)}
