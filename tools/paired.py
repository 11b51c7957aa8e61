"""Latencies that can be compared: all models in turn, on one thread, medians."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime

from onnx_upscale.verify import input_sizes, random_inputs

_WARMUP = 3


def paired_medians(
    models: Sequence[onnx.ModelProto], rounds: int = 60, seconds: float = 15.0
) -> list[float]:
    """Median milliseconds per run of each model.

    Args:
        models: Models with inputs of the same shapes, in the same order.
        rounds: How often each is run at most.
        seconds: When to stop before that.

    Returns:
        One median per model.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions, feeds = [], []
    for model in models:
        data = model.SerializeToString()
        sessions.append(onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"]))
        feeds.append(random_inputs(model, input_sizes(model), seed=0))
    times: list[list[float]] = []
    stop = time.perf_counter() + seconds
    while len(times) < rounds + _WARMUP and (time.perf_counter() < stop or len(times) < 10):
        row = []
        for session, feed in zip(sessions, feeds, strict=True):
            started = time.perf_counter()
            session.run(None, feed)
            row.append(time.perf_counter() - started)
        times.append(row)
    medians: list[float] = (np.median(times[_WARMUP:], axis=0) * 1e3).tolist()
    return medians
