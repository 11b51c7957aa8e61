"""Reaching what can only be found out by trying: a measured latency, or how near a model stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from onnx_upscale.errors import UsageError
from onnx_upscale.pruning.goals import Goal, within

T = TypeVar("T")

_CORRECTIONS = 7
_NEAR, _OVER = 0.95, 1.02  # A measured latency within these shares of the goal will do.
_STEP = 0.01  # Between the shares that are tried for a model that stays near.
_STEPS = 85  # Down to 0.16: nobody is offered less of a model than that.
_ALIKE, _MEASURED = 1.08, 4  # Predictions within this are told apart by measuring so many.


def aim(
    goal: Goal,
    wanted: float,
    choose: Callable[[float], T],
    measure: Callable[[T], float],
) -> T:
    """Finds what to ask for so that a certain latency is measured.

    Args:
        goal: The goal, for messages.
        wanted: The share of the original's latency to be measured.
        choose: What comes of asking for a share; a UsageError where that cannot be reached.
        measure: The share that it has when it is measured.

    Returns:
        What comes nearest.

    Raises:
        UsageError: It cannot be reached.
    """
    asked, tried = wanted, list[tuple[float, T]]()
    # What is asked for, and what was measured then: too fast and too slow.
    below, above, lost = (0.0, 0.0), (1.0, 1.0), None
    for _ in range(_CORRECTIONS):
        try:
            choice = choose(asked)
        except UsageError as error:  # By the prices, which need not be right.
            lost, below = error, (asked, below[1])
            asked = (asked + above[0]) / 2
            continue
        measured = measure(choice)
        tried.append((measured, choice))
        if _NEAR * wanted <= measured <= _OVER * wanted:
            break
        if measured < wanted:
            below = asked, measured
        else:
            above = asked, max(measured, wanted)
        slope = (above[0] - below[0]) / max(above[1] - below[1], 1e-6)
        asked = below[0] + (wanted - below[1]) * slope
        if not below[0] < asked < above[0]:
            asked = (below[0] + above[0]) / 2
    if not tried:
        assert lost is not None
        raise lost
    measured, choice = min(tried, key=lambda e: (e[0] > 1.05 * wanted, abs(e[0] - wanted)))
    if measured > 1.05 * wanted and lost is not None:
        raise UsageError(
            f"{goal}: cannot be reached: {within(measured, up=True)} of the latency is left; give "
            "that or more"
        )
    return choice


def good_enough(
    choose: Callable[[float], T],
    nearly: Callable[[T], bool],
    good: Callable[[T], bool],
    same: Callable[[T, T], bool],
) -> tuple[list[T], list[T]]:
    """Finds the fastest that is good enough, among shares in small steps.

    How good models are falls with their share for the most part only: by chance, some are better
    than slower ones. So bisection finds the fastest that is nearly good, as if all slower ones were
    as well, and from there steps lead back to the first that is good.

    Args:
        choose: What comes of asking for a share; a UsageError where that cannot be reached.
        nearly: Whether it lacks so little that a faster one may be good.
        good: Whether it is good enough; takes long.
        same: Whether two are the same, so that the second need not be looked at.

    Returns:
        Those that are good, and those that are not, each in the order tried.
    """
    yes, no, known = list[T](), list[T](), dict[int, T | None]()

    def at(step: int) -> T | None:
        """What comes of a step; the same as before where it is no other model."""
        if step not in known:
            try:
                found = choose(1 - step * _STEP)
            except UsageError:
                known[step] = None
            else:
                known[step] = next((each for each in (*yes, *no) if same(each, found)), found)
                if known[step] is found:
                    (yes if good(found) else no).append(found)
        return known[step]

    last, beyond = 0, _STEPS
    while beyond - last > 1:
        middle = (last + beyond) // 2
        found = at(middle)
        if found is not None and nearly(found):
            last = middle
        else:
            beyond = middle
    for step in range(last, 0, -1):
        if at(step) in yes:
            break
    return yes, no


def fastest(
    found: Sequence[T], predicted: Callable[[T], float], measure: Callable[[T], float]
) -> T:
    """The fastest of those that are predicted to be about as fast as the fastest.

    Args:
        found: At least one.
        predicted: The predicted share of the latency.
        measure: The measured one; takes long.
    """
    near = sorted(found, key=predicted)[:_MEASURED]
    near = [each for each in near if predicted(each) <= _ALIKE * predicted(near[0])]
    return min(near, key=measure) if len(near) > 1 else near[0]
