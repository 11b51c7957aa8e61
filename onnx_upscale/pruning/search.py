"""search: masks that reach a goal at the least cost, as far as a greedy choice finds them."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_upscale.errors import UsageError
from onnx_upscale.optimizer.analyze import Structure, analyze
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.load.keys import layer_key
from onnx_upscale.optimizer.load.masking import LayerMask, mask_graph
from onnx_upscale.optimizer.load.masks import document
from onnx_upscale.optimizer.load.sides import Side
from onnx_upscale.optimizer.plan import plan
from onnx_upscale.prices import Prices
from onnx_upscale.pruning.curves import Curves
from onnx_upscale.pruning.families import Family
from onnx_upscale.pruning.gauge import gauge_of
from onnx_upscale.pruning.moves import Move, best_move, levels_of
from onnx_upscale.pruning.state import Depth, State, Stock

MODES = ("joint", "agreement", "freedom")
"""Whether readers of a segment may give up channels each by itself, must all give up the same, or
only do so each by itself."""

_DRIFT = 0.005  # Of the unpruned model, between two looks at the real plan.
_LEAST_FACTOR, _MOST_FACTOR = 0.02, 8.0
_TRIES = 12


@dataclass(frozen=True)
class Choice:
    """What was chosen for one goal.

    Attributes:
        goal: The share that was asked for.
        masks: In the form of a mask file.
        before: Seconds (or multiply-adds, or weights) of the unpruned model as it is planned.
        after: The same with the masks.
        cost: What the outputs lose, as far as the curves tell.
        kept: By key of each layer that was considered, its input channels and those kept.
        moves: How it came about.
    """

    goal: float
    masks: dict[str, Any]
    before: float
    after: float
    cost: float
    kept: Mapping[str, tuple[int, int]]
    moves: tuple[Move, ...]

    @property
    def share(self) -> float:
        """What is left of the unpruned model."""
        return self.after / self.before if self.before else 1.0


def search(
    structure: Structure,
    families: Sequence[Family],
    curves: Mapping[int, Curves],
    prices: Prices,
    goals: Sequence[float],
    measure: str = "latency",
    mode: str = "joint",
) -> Iterator[Choice]:
    """Chooses masks for goals, the mildest first; each continues from the one before.

    1. All readers of a family give up the next units of their common order, or one of them those
       of its own. What that saves is estimated from the layers around; the move with the least
       cost per saving is next (lazily, in a heap).
    2. The real plan says what the first move of each family really saves, and all further
       estimates for it are scaled by that; a move that turns out dear goes back into the heap.
       The plan is asked again whenever some more was saved, and it says when a goal is reached.
    3. Then the fewest of the last moves that reach the goal are found by bisection, and single
       moves are taken back, the dearest first, as long as the goal still holds.

    Args:
        structure: The structure of the model.
        families: Its families.
        curves: Their curves.
        prices: What work costs on the target.
        goals: Shares of the unpruned model, between 0 and 1.
        measure: `latency`, `macs` or `params`: of what.
        mode: One of `MODES`.

    Yields:
        A choice per goal, in descending order.

    Raises:
        UsageError: A goal cannot be reached or meant.
    """
    for goal in goals:
        if not 0 < goal <= 1:
            raise UsageError(f"`{measure}` {goal:g}: must be above 0 and at most 1")
    if mode not in MODES:
        raise UsageError(f"unknown mode '{mode}' (known: {', '.join(MODES)})")
    stocks = [Stock(family, curves[family.id]) for family in families]
    searching = _Search(structure, stocks, prices, measure, mode)
    for goal in sorted(goals, reverse=True):
        yield searching.reach(goal)


class _Search:
    def __init__(
        self, structure: Structure, stocks: Sequence[Stock], prices: Prices, measure: str, mode: str
    ) -> None:
        self._structure, self._prices, self._measure = structure, prices, measure
        self._stocks = stocks
        self._gauge = gauge_of(measure, structure, prices)
        self._state = State(stocks, self._gauge)
        self._levels = [levels_of(stock.family, prices) for stock in stocks]
        self._reads = {
            facts.node.index: facts.read for facts in structure.facts if facts.read is not None
        }
        self._known: dict[tuple[Depth, ...], float] = {}
        self._moves: list[Move] = []
        self._factors: dict[tuple[int, bool], float] = {}
        self._versions: dict[tuple[int, int | None], int] = {}
        self._heap: list[tuple[float, int, int, int, Move]] = []
        self._before = self._expected = self._seen = self._real(self._state.depths)
        for number, stock in enumerate(stocks):
            self._offer_all(number, mode, len(stock.family.readers))
        self._mode = mode

    def reach(self, goal: float) -> Choice:
        """Goes on until a goal is reached, and refines what it found."""
        wanted = goal * self._before * (1 + 1e-9)
        start = len(self._moves)
        while self._seen > wanted:
            move = self._next()
            if move is None:
                self._look()
                if self._seen <= wanted:
                    break
                raise UsageError(
                    f"`{self._measure}` {goal:g}: cannot be reached: with all channels gone that "
                    f"may go, {min(self._known.values()) / self._before:.3f} is left of the unpruned model"
                )
            if self._expected <= wanted or self._seen - self._expected > _DRIFT * self._before:
                self._look()
        return self._choice(goal, *self._refined(start, wanted))

    def _offer_all(self, number: int, mode: str, readers: int) -> None:
        if mode != "freedom" or readers == 1:
            self._offer(number, None)
        if mode != "agreement" and readers > 1:
            for place in range(readers):
                self._offer(number, place)

    def _offer(self, number: int, place: int | None) -> None:
        """Puts the best next move of a reader, or of all, into the heap in place of the last."""
        version = self._versions[number, place] = self._versions.get((number, place), 0) + 1
        move = best_move(self._state, number, place, self._levels[number])
        if move is not None:
            order = -1 if place is None else place
            heapq.heappush(self._heap, (self._ratio(move), number, order, version, move))

    def _ratio(self, move: Move) -> float:
        return move.ratio / self._factors.get((move.number, move.place is None), 1.0)

    def _next(self) -> Move | None:
        """Makes the next move; None if there is none."""
        while self._heap:
            *_, version, move = heapq.heappop(self._heap)
            if version != self._versions[move.number, move.place]:
                continue
            fresh = best_move(self._state, move.number, move.place, self._levels[move.number])
            if fresh is None:
                continue
            if self._heap and self._ratio(fresh) > self._heap[0][0] * (1 + 1e-9):
                self._offer(move.number, move.place)
                continue
            if self._make(fresh):
                return fresh
        return None

    def _make(self, move: Move) -> bool:
        """Makes a move; where it is a first one that saves too little, takes it back."""
        key, before = (move.number, move.place is None), self._state.depths[move.number]
        first = key not in self._factors
        if first:
            self._look()
        self._state.go(move.number, before.moved(move.place, move.level))
        if first:
            saved = self._seen - self._real(self._state.depths)
            factor = min(max(saved / move.gain, _LEAST_FACTOR), _MOST_FACTOR)
            self._factors[key] = factor
            if saved <= 0 or (self._heap and self._ratio(move) > self._heap[0][0] * (1 + 1e-9)):
                self._state.go(move.number, before)
                self._offer(move.number, move.place)
                return False
        self._expected -= move.gain * self._factors[key]
        self._moves.append(move)
        self._offer_all(move.number, self._mode, len(self._stocks[move.number].family.readers))
        return True

    def _look(self) -> None:
        """Asks the real plan."""
        self._expected = self._seen = self._real(self._state.depths)

    def _real(self, depths: Sequence[Depth]) -> float:
        key = tuple(depths)
        if key not in self._known:
            state = State(self._stocks, self._gauge)
            for number, depth in enumerate(depths):
                state.go(number, depth)
            pruned = self._pruned(state)
            masks = [
                LayerMask(self._reads[index].layer, Side.INPUT, channels)
                for index, channels in pruned.items()
            ]
            graph = mask_graph(self._structure.graph, masks)
            planned = plan(analyze(graph, self._structure), "auto", self._prices)
            self._known[key] = self._gauge.total(planned)
        return self._known[key]

    def _pruned(self, state: State) -> dict[int, IntArray]:
        roots = self._structure.roots
        return {
            index: np.flatnonzero(np.isin(roots[self._reads[index].inputs], gone))
            for index, gone in state.gone().items()
        }

    def _replayed(self, count: int) -> list[Depth]:
        """The depths after so many moves."""
        depths = [Depth(0, (0,) * len(stock.family.readers)) for stock in self._stocks]
        for move in self._moves[:count]:
            depths[move.number] = depths[move.number].moved(move.place, move.level)
        return depths

    def _refined(self, start: int, wanted: float) -> tuple[list[Depth], list[Move]]:
        """The fewest moves that reach a goal, without those that are not needed for it."""
        low, high = start, len(self._moves)
        while low < high:
            middle = (low + high) // 2
            if self._real(self._replayed(middle)) <= wanted:
                high = middle
            else:
                low = middle + 1
        moves, depths = list(self._moves[:high]), self._replayed(high)
        slack = wanted - self._real(depths)
        tried = 0
        for move in sorted(moves, key=lambda each: -each.cost):
            saving = move.gain * self._factors[move.number, move.place is None]
            if tried >= _TRIES:
                break
            if move.cost <= 0 or saving > 1.5 * slack:
                continue
            without = list(depths)
            last = [each for each in moves if each.number == move.number and each is not move]
            own = Depth(0, (0,) * len(self._stocks[move.number].family.readers))
            for each in last:
                own = own.moved(each.place, each.level)
            without[move.number] = own
            if own == depths[move.number]:
                continue
            tried += 1
            if self._real(without) <= wanted:
                depths = without
                moves = [each for each in moves if each is not move]
                slack = wanted - self._real(depths)
        return depths, moves

    def _choice(self, goal: float, depths: Sequence[Depth], moves: Sequence[Move]) -> Choice:
        state = State(self._stocks, self._gauge)
        for number, depth in enumerate(depths):
            state.go(number, depth)
        pruned = self._pruned(state)
        graph = self._structure.graph
        keys = {index: layer_key(graph, self._reads[index].layer) for index in pruned}
        return Choice(
            goal,
            document({keys[index]: {"input": gone.tolist()} for index, gone in pruned.items()}),
            self._before,
            self._real(depths),
            sum(stock.cost(depth) for stock, depth in zip(self._stocks, depths, strict=True)),
            {
                keys[index]: (
                    self._reads[index].layer.inputs,
                    self._reads[index].layer.inputs - len(gone),
                )
                for index, gone in pruned.items()
            },
            tuple(moves),
        )
