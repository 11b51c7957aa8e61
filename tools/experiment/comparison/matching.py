"""How much a method must remove so that the measured latency is what was asked for."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

NEAR, OVER = 0.95, 1.05
"""A latency within these shares of the wanted one will do."""
_TRIES = 7


class Curve:
    """Latency against the share that a method is asked to remove.

    Predicted latencies say where to look first. Then measured ones are bracketed, by interpolation.
    Both are remembered, so that several latencies cost little more than one.

    Args:
        shares: What can be asked for, ascending; predicted latencies fall along them.
        predict: Predicted latency of a share, as a share of the unpruned network's.
        measure: Measured latency, likewise.
    """

    def __init__(
        self,
        shares: Sequence[float],
        predict: Callable[[float], float],
        measure: Callable[[float], float],
    ) -> None:
        self._shares, self._predict, self._measure = shares, predict, measure
        self._predicted: dict[float, float] = {}
        self.measured: dict[float, float] = {}

    def predicted(self, share: float) -> float:
        if share not in self._predicted:
            self._predicted[share] = self._predict(share)
        return self._predicted[share]

    def reach(self, wanted: float) -> float | None:
        """The share whose latency is nearest to the wanted one without being much above it.

        Returns:
            The share, or None where the latency is above even for the last one.
        """
        end = len(self._shares)
        slow, fast = (-1, 1.0), (end, 0.0)
        place = bisect_left(self._shares, True, key=lambda s: self.predicted(s) <= wanted)
        place = min(place, end - 1)
        for _ in range(_TRIES):
            ratio = self._ratio(self._shares[place])
            if NEAR * wanted <= ratio <= OVER * wanted:
                break
            if ratio > wanted:
                slow = place, ratio
            else:
                fast = place, ratio
            if fast[0] - slow[0] <= 1:
                break
            way = (slow[1] - wanted) / max(slow[1] - fast[1], 1e-6)
            place = slow[0] + round(way * (fast[0] - slow[0]))
            place = min(max(place, slow[0] + 1), fast[0] - 1)
        fit = [(ratio, -share) for share, ratio in self.measured.items() if ratio <= OVER * wanted]
        return -max(fit)[1] if fit else None

    def _ratio(self, share: float) -> float:
        if share not in self.measured:
            self.measured[share] = self._measure(share)
        return self.measured[share]
