"""Medians and how far they can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_upscale.benchmark.measure import Seconds

_LEVEL = 0.95
# On a quiet machine the ends of an interval are a few percent apart.
_WIDEST = 1.25
FEWEST = 6
"""With fewer values than this, not even their whole range is a 95% interval of the median."""


@dataclass(frozen=True)
class Estimate:
    """A median and its confidence interval.

    Attributes:
        median: The median of what was measured.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    median: float
    low: float
    high: float

    def contains(self, value: float) -> bool:
        """Whether the interval contains a value."""
        return self.low <= value <= self.high


def median_interval(values: npt.ArrayLike, level: float = _LEVEL) -> Estimate:
    """The median and a confidence interval that assumes nothing about the distribution.

    Each value lies below the true median with probability one half, so the number that do is
    binomial: the k-th smallest and the k-th largest value enclose the median unless fewer than k
    values fall on one side of it. k is the largest for which that is unlikely enough. Timings are
    skewed and have outliers; neither matters to this interval.

    Args:
        values: What was measured, at least one value.
        level: How often the interval contains the true median. With fewer than six values it is
            their whole range, which contains the median less often than 95%.

    Returns:
        The median and the interval.
    """
    ordered = np.sort(np.asarray(values, np.float64))
    count = len(ordered)
    rank = max(_largest_rank(count, (1 - level) / 2), 1)
    return Estimate(
        median=float(np.median(ordered)),
        low=float(ordered[rank - 1]),
        high=float(ordered[count - rank]),
    )


def latencies(sittings: Sequence[Seconds]) -> list[Estimate]:
    """Seconds per call of each model.

    A sitting is a row per round and a column per model, measured with models loaded for it. Rounds
    of one sitting are alike in ways that more of them do not average out: where the weights lie in
    memory (two loads of one model may differ by a percent), what else the machine does meanwhile.
    So each sitting counts as one value, the median of its rounds.

    Args:
        sittings: What was measured.

    Returns:
        An estimate per model.
    """
    medians = np.array([np.median(sitting, axis=0) for sitting in sittings])
    return [median_interval(column) for column in medians.T]


def paired_ratios(sittings: Sequence[Seconds]) -> list[Estimate]:
    """Latencies as shares of the first model's, taken round by round.

    What disturbs a whole round (another process, a change of the clock rate) is in both values and
    cancels, so these intervals are narrower than what those of the latencies would allow.

    Args:
        sittings: As for `latencies`.

    Returns:
        An estimate per model; the first model's is 1.
    """
    return latencies([sitting / sitting[:, :1] for sitting in sittings])


def indistinct(names: Sequence[str], ratios: Sequence[Estimate]) -> tuple[str, ...]:
    """A warning for every model that cannot be told from the first.

    Args:
        names: The models' names.
        ratios: Their ratios to the first; the first's own is skipped.

    Returns:
        One line for each whose interval contains 1.
    """
    return tuple(
        f"no difference can be told between '{names[0]}' and '{name}': the noise is larger "
        f"(ratio {ratio.median:.3f}, 95% interval {ratio.low:.3f} to {ratio.high:.3f}); "
        "more `runs` may tell"
        for name, ratio in list(zip(names, ratios, strict=True))[1:]
        if ratio.contains(1.0)
    )


def disturbed(ratios: Sequence[Estimate]) -> tuple[str, ...]:
    """A warning if the machine was too busy for any ratio to mean much.

    Args:
        ratios: Models' ratios to the first.

    Returns:
        One line, or none.
    """
    widest = max(ratios, key=lambda ratio: ratio.high / ratio.low)
    if widest.high < _WIDEST * widest.low:
        return ()
    return (
        f"the machine was busy with something else: a ratio lies anywhere from {widest.low:.3f} "
        f"to {widest.high:.3f}; repeat when it is quiet",
    )


def _largest_rank(count: int, tail: float) -> int:
    """The largest k with P(fewer than k of `count` fair coins fall on one side) <= tail."""
    # Through logarithms, as 2 ** -count is no float for large counts.
    logs = [
        math.lgamma(count + 1)
        - math.lgamma(below + 1)
        - math.lgamma(count - below + 1)
        - count * math.log(2)
        for below in range(count)
    ]
    return int(np.count_nonzero(np.cumsum(np.exp(logs)) <= tail))
