"""Moves: who gives up how many channels next, down to counts that the target likes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx_upscale.prices import Prices
from onnx_upscale.pruning.families import Family
from onnx_upscale.pruning.state import Depth, State

_MOST_LEVELS = 64
_LEVELS_WITHOUT_BLOCKS = 32


@dataclass(frozen=True)
class Move:
    """Some channels leave.

    Attributes:
        number: Number of the family.
        place: Which of its readers gives them up; None for all.
        level: How many units are gone then.
        cost: What the outputs lose.
        gain: What is saved, in the unit of the goal, as far as the layers around tell.
    """

    number: int
    place: int | None
    level: int
    cost: float
    gain: float

    @property
    def ratio(self) -> float:
        """Cost per gain."""
        return self.cost / self.gain


def levels_of(family: Family, prices: Prices) -> tuple[int, ...]:
    """How many units of a family may be gone: what stays is whole blocks where there are some.

    Args:
        family: The family.
        prices: Of the target.

    Returns:
        Counts, ascending; one unit stays in any case.
    """
    units, stretch = family.units, family.stretch
    left = range(units - 1, 0, -1)
    counts = [(each, prices.counts(each * stretch, family.grain)) for each in left]
    fitting = [each for each, count in counts if count.whole == each * stretch]
    fitting = fitting or [each for each, count in counts if count.aligned == each * stretch]
    fitting = fitting or list(left)
    step = max(1, units // (_MOST_LEVELS if family.grain else _LEVELS_WITHOUT_BLOCKS))
    levels: list[int] = []
    for each in fitting:
        if units - each >= (levels[-1] if levels else 0) + step:
            levels.append(units - each)
    return tuple(levels)


def best_move(state: State, number: int, place: int | None, levels: Sequence[int]) -> Move | None:
    """The next move of a reader, or of all: that of 1, 2, 4, ... levels with the best ratio.

    Looking some levels ahead passes over counts that save nothing: it walks along the convex hull.

    Args:
        state: What is gone so far.
        number: Number of the family.
        place: The reader, or None.
        levels: Those of the family.

    Returns:
        The move, or None if none saves anything.
    """
    depth, stock = state.depths[number], state.stocks[number]
    ahead = [level for level in levels if level > _level(depth, place)]
    if not ahead:
        return None
    cost, price = stock.cost(depth), state.price(number, depth)
    best: Move | None = None
    step = 1
    while step <= len(ahead):
        level = ahead[step - 1]
        after = depth.moved(place, level)
        gain = price - state.price(number, after)
        if gain > 0:
            move = Move(number, place, level, max(stock.cost(after) - cost, 0.0), gain)
            if best is None or move.ratio < best.ratio:
                best = move
        step *= 2
    return best


def _level(depth: Depth, place: int | None) -> int:
    return depth.joint if place is None else depth.own[place]
