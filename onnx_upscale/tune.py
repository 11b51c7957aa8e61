"""Letting `auto` measure: several plans for one model, timed side by side on this machine."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx

from onnx_upscale.analyze import Analysis
from onnx_upscale.apply import apply
from onnx_upscale.plan import Plan, Profile, plan
from onnx_upscale.verify import Session, random_inputs

_WARMUP, _ROUNDS, _FEWEST, _SECONDS = 3, 60, 10, 15.0
# Prices of copies to try, as multiples of the profile's: from never mind them to never copy.
_COPY_PRICES = (0.3, 3.0, 1e9)


def paired_medians(
    models: Sequence[onnx.ModelProto], sizes: Mapping[str, tuple[int, ...]]
) -> list[float]:
    """Times models in turn, on one thread each.

    Args:
        models: Models with the same inputs.
        sizes: Shapes of the inputs.

    Returns:
        Median milliseconds of each.
    """
    sessions = [Session(model, threads=1) for model in models]
    feed = random_inputs(models[0], sizes, seed=0)
    rows: list[list[float]] = []
    stop = time.perf_counter() + _SECONDS
    while len(rows) < _ROUNDS + _WARMUP and (time.perf_counter() < stop or len(rows) < _FEWEST):
        row = []
        for session in sessions:
            started = time.perf_counter()
            session.run(feed)
            row.append(time.perf_counter() - started)
        rows.append(row)
    medians: list[float] = (np.median(rows[_WARMUP:], axis=0) * 1e3).tolist()
    return medians


def tuned_plan(analysis: Analysis, profile: Profile, sizes: Mapping[str, tuple[int, ...]]) -> Plan:
    """The fastest of several plans on this machine.

    Args:
        analysis: The analysis.
        profile: The profile to start from.
        sizes: Shapes of the inputs to time with.

    Returns:
        The plan whose model had the lowest median latency.
    """
    plans = list(_candidates(analysis, profile))
    medians = paired_medians([apply(candidate).model for candidate in plans], sizes)
    return plans[int(np.argmin(medians))]


def _candidates(analysis: Analysis, profile: Profile) -> Iterator[Plan]:
    yield plan(analysis, "auto", profile)
    for factor in _COPY_PRICES:
        priced = dataclasses.replace(
            profile,
            seconds_per_source_byte=profile.seconds_per_source_byte * factor,
            seconds_per_copied_byte=profile.seconds_per_copied_byte * factor,
            seconds_per_node=profile.seconds_per_node * factor,
        )
        yield plan(analysis, "auto", priced)
    for strategy in ("upscale", "gather"):
        yield plan(analysis, strategy, profile)
