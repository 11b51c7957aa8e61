"""Measured latencies beside the original's, which tells when the machine is busy."""

from __future__ import annotations

import functools
import math

from onnx_upscale.benchmark import Comparison, bench
from onnx_upscale.optimizer.load import ModelSource
from onnx_upscale.options import Sizes

# A model is timed for so many seconds where that takes no more runs than the second number.
_LONG_ENOUGH, _MOST_RUNS = 0.3, 600
# The machine is busy while the original takes so many times as long as it can; how often to try.
_BUSY, _TRIES = 1.05, 4
# A measured share whose interval is wider is measured again, in so many times as many runs.
_UNSURE, _MORE = 0.06, 4


class Timer:
    """Times models beside the original.

    Args:
        original: The original.
        runs: How often to time each at least.
        inputs: Shapes of inputs by name, where dimensions are symbolic.
    """

    def __init__(self, original: ModelSource, runs: int, inputs: Sizes | None) -> None:
        self._original, self._least, self._inputs = original, runs, inputs
        self._fastest = math.inf

    def beside(self, model: ModelSource, times: int = 1) -> Comparison:
        """Times the original and another model.

        Where the original takes longer than it did at other times, both are timed again:
        disturbances come in bursts of seconds, and weigh more on small models than on large ones.

        Args:
            model: The other one.
            times: How many times as many runs as usual.

        Returns:
            What was measured when the machine was calmest.
        """
        calmest: Comparison | None = None
        for _ in range(_TRIES):
            found = self._timed([self._original, model], times * self._runs)
            seconds = found.models[0].latency.median
            self._fastest = min(self._fastest, seconds)
            if calmest is None or seconds < calmest.models[0].latency.median:
                calmest = found
            if seconds <= _BUSY * self._fastest:
                break
        assert calmest is not None
        return calmest

    def share(self, model: ModelSource) -> float:
        """The latency of a model as a share of the original's, measured again if unsure."""
        found = self.beside(model).models[1].ratio
        if found.high - found.low > _UNSURE * found.median:
            found = self.beside(model, _MORE).models[1].ratio
        return found.median

    @functools.cached_property
    def _runs(self) -> int:
        """How often a model is timed: more often than asked for where it takes next to no time."""
        seconds = self._timed([self._original], 1).models[0].latency.median
        return max(self._least, min(_MOST_RUNS, math.ceil(_LONG_ENOUGH / seconds)))

    def _timed(self, models: list[ModelSource], runs: int) -> Comparison:
        names = ["original", "pruned"][: len(models)]
        return bench(models, names=names, runs=runs, inputs=self._inputs, memory=False)
