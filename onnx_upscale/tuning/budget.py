"""Time that may be spent."""

from __future__ import annotations

import time
from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with how many seconds have passed, and of how many."""


class Budget:
    """Some seconds, from now on.

    Args:
        seconds: How many.
        progress: Called now and then.
        clock: What tells the time, in seconds.
    """

    def __init__(
        self,
        seconds: float,
        progress: Progress | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._seconds, self._progress, self._clock = seconds, progress, clock
        self._start = clock()

    def left(self, share: float = 1.0) -> float:
        """How many seconds are left of the first part of the time.

        Args:
            share: How much of it that part is.
        """
        return max(self._start + share * self._seconds - self._clock(), 0.0)

    def tell(self, done: bool = False) -> None:
        """Says how far it is."""
        if self._progress is None:
            return
        total = max(round(self._seconds), 1)
        passed = min(int(self._seconds - self.left()), total - 1)
        self._progress(total if done else passed, total)
