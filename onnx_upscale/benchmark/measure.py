"""Timing several things in turn: the one loop behind every latency this project reports."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Task = Callable[[], object]
Seconds = npt.NDArray[np.float64]

_FEWEST_ROUNDS = 10
# A warm-up ends after this many rounds and this much time, so that a model of a few microseconds
# also finds caches filled and the processor awake, but not after more rounds than the last number.
_WARMUP_ROUNDS, _WARMUP_SECONDS, _WARMUP_LIMIT = 3, 0.05, 50
# A sample is at least this long: reading the clock takes about a thousandth of it.
_SHORTEST_SAMPLE = 200e-6


def interleave(
    tasks: Sequence[Task],
    rounds: int,
    *,
    done_before: int = 0,
    limit: float = math.inf,
    fewest: int = _FEWEST_ROUNDS,
    clock: Callable[[], float] = time.perf_counter,
) -> Seconds:
    """Times tasks in turn.

    A round takes one sample of every task, so that a disturbance meets all of them, and rounds
    differ in their order (`orders`), so that place and predecessor favour nobody. A sample of a
    task that is too short for the clock is several calls in a row; as many of every task, so that
    all find equally warm caches.

    Args:
        tasks: What to time, at least one.
        rounds: How many rounds to time, after the warm-up.
        done_before: Rounds of earlier sittings, so that the order goes on where they stopped.
        limit: Seconds after which no round is begun any more.
        fewest: Rounds that are timed whatever the limit.
        clock: What tells the time, in seconds.

    Returns:
        Seconds per call: a row per round, a column per task.
    """
    turns = orders(len(tasks))
    started = clock()
    fastest = math.inf
    for done in range(_WARMUP_LIMIT):
        if done >= _WARMUP_ROUNDS and clock() - started >= _WARMUP_SECONDS:
            break
        fastest = min(fastest, float(_round(tasks, turns[done % len(turns)], 1, clock).min()))
    calls = max(1, math.ceil(_SHORTEST_SAMPLE / max(fastest, 1e-9)))
    rows: list[Seconds] = []
    for number in range(done_before, done_before + rounds):
        if len(rows) >= fewest and clock() - started >= limit:
            break
        rows.append(_round(tasks, turns[number % len(turns)], calls, clock))
    return np.array(rows)


def shares(rounds: int, most: int) -> list[int]:
    """Divides rounds among sittings as evenly as possible, none of them empty.

    Args:
        rounds: How many rounds there are.
        most: The largest number of sittings.

    Returns:
        Rounds per sitting.
    """
    count = min(rounds, most)
    return [rounds // count + (number < rounds % count) for number in range(count)]


def orders(count: int) -> list[tuple[int, ...]]:
    """Orders in which each of `count` comes equally often in every place and after every other.

    These are the rows of a Williams square: a zigzag from both ends of 0, 1, ..., shifted by every
    amount; an odd count needs the mirrored rows as well.

    Args:
        count: How many things to order.

    Returns:
        `count` orders, or twice as many.
    """
    zigzag = [place // 2 if place % 2 == 0 else count - (place + 1) // 2 for place in range(count)]
    rows = [tuple((item + shift) % count for item in zigzag) for shift in range(count)]
    return rows + [row[::-1] for row in rows] if count % 2 and count > 1 else rows


def _round(
    tasks: Sequence[Task], order: Sequence[int], calls: int, clock: Callable[[], float]
) -> Seconds:
    seconds = np.empty(len(tasks))
    for index in order:
        task = tasks[index]
        started = clock()
        for _ in range(calls):
            task()
        seconds[index] = (clock() - started) / calls
    return seconds
