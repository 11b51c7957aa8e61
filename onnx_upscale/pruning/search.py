"""search: masks that reach a goal at the least cost, as far as a greedy choice finds them."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_upscale.arguments import check_known
from onnx_upscale.choices import MODES
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
from onnx_upscale.pruning.goals import within
from onnx_upscale.pruning.moves import Move, best_move, levels_of
from onnx_upscale.pruning.state import Depth, State, Stock

_LEAST_FACTOR, _MOST_FACTOR = 0.02, 8.0  # A plan that saves nothing must not divide by zero.
_DEARER = 1.1  # Than the next: that much is worth another look at the others.
_TRIES = 40


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
    layers: Collection[int] | None = None,
) -> Iterator[Choice]:
    """Chooses masks for goals, the mildest first; each continues from the one before.

    1. All readers of a family give up the next units of their common order, or one of them those
       of its own. What that saves is estimated from the layers around; the move with the least
       cost per saving is next (lazily, in a heap).
    2. The real plan then says what the move saves. One that saves nothing is passed over for the
       next count; one that is dearer than the next in the heap goes back there, once, and further
       estimates for it are scaled by what was seen.
    3. When the plan says that the goal is reached, the last move gives way to the cheapest that
       reaches it as well, and moves are taken back, the dearest first, as long as it still holds.

    Args:
        structure: The structure of the model.
        families: Its families.
        curves: Their curves.
        prices: What work costs on the target.
        goals: Shares of the unpruned model, between 0 and 1.
        measure: `latency`, `macs` or `params`: of what.
        mode: One of `MODES`.
        layers: By node index, the layers that may give up what they read; None for all. Where
            others read the same channels, each of them does so by itself.

    Yields:
        A choice per goal, in descending order.

    Raises:
        UsageError: A goal cannot be reached or meant.
    """
    for goal in goals:
        if not 0 < goal <= 1:
            raise UsageError(f"`{measure}` {goal:g}: must be above 0 and at most 1")
    check_known("mode", mode, MODES)
    stocks = [Stock(family, curves[family.id]) for family in families]
    searching = _Search(structure, stocks, prices, measure, mode, layers)
    for goal in sorted(goals, reverse=True):
        yield searching.reach(goal)


class _Search:
    def __init__(
        self,
        structure: Structure,
        stocks: Sequence[Stock],
        prices: Prices,
        measure: str,
        mode: str,
        layers: Collection[int] | None,
    ) -> None:
        self._structure, self._measure = structure, measure
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
        self._blocked: set[tuple[int, int | None, int]] = set()
        self._tried: set[tuple[int, int | None]] = set()
        self._mode, self._layers, self._strict = mode, layers, True
        self._before = self._seen = self._real(self._state.depths)
        for number in range(len(stocks)):
            self._offer_all(number)

    def reach(self, goal: float) -> Choice:
        """Goes on until a goal is reached, and refines what it found."""
        wanted = goal * self._before * (1 + 1e-9)
        while self._seen > wanted:
            if not self._next():
                least = min(self._known.values()) / self._before
                raise UsageError(
                    f"`{self._measure}` {goal:g}: cannot be reached: with all channels gone that "
                    f"may go, {within(least, up=True)} of the unpruned model is left; give that "
                    "or more"
                )
        return self._choice(goal, *self._refined(wanted))

    def _offer_all(self, number: int) -> None:
        readers = self._stocks[number].family.readers
        may = [p for p, party in enumerate(readers) if self._may(party.layer.node.index)]
        if len(may) == len(readers) and (self._mode != "freedom" or len(readers) == 1):
            self._offer(number, None)
        if self._mode != "agreement" and len(readers) > 1:
            for place in may:
                self._offer(number, place)

    def _may(self, index: int) -> bool:
        """Whether a layer may give up what it reads."""
        return self._layers is None or index in self._layers

    def _best(self, number: int, place: int | None) -> Move | None:
        levels = [
            level for level in self._levels[number] if (number, place, level) not in self._blocked
        ]
        return best_move(self._state, number, place, levels)

    def _offer(self, number: int, place: int | None) -> None:
        """Puts the best next move of a reader, or of all, into the heap in place of the last."""
        version = self._versions[number, place] = self._versions.get((number, place), 0) + 1
        move = self._best(number, place)
        if move is not None:
            order = -1 if place is None else place
            heapq.heappush(self._heap, (self._ratio(move), number, order, version, move))

    def _ratio(self, move: Move) -> float:
        return move.ratio / self._factors.get((move.number, move.place is None), 1.0)

    def _next(self) -> bool:
        """Makes the next move; says whether there was one."""
        while True:
            while self._heap:
                *_, version, move = heapq.heappop(self._heap)
                if version != self._versions[move.number, move.place]:
                    continue
                fresh = self._best(move.number, move.place)  # Its neighbours may have changed.
                if fresh is None:
                    continue
                if self._heap and self._ratio(fresh) > self._heap[0][0] * (1 + 1e-9):
                    self._offer(move.number, move.place)
                elif self._make(fresh):
                    return True
            if not self._strict:
                return False
            # What saved nothing by itself may save something together with others.
            self._strict = False
            self._blocked.clear()
            for number in range(len(self._stocks)):
                self._offer_all(number)

    def _make(self, move: Move) -> bool:
        """Makes a move, unless the plan says that it is not worth it."""
        number, place = move.number, move.place
        before = self._state.depths[number]
        self._state.go(number, before.moved(place, move.level))
        real = self._real(self._state.depths)
        saved = self._seen - real
        factor = min(max(saved / move.gain, _LEAST_FACTOR), _MOST_FACTOR)
        self._factors[number, place is None] = factor
        useless = saved <= 0 and self._strict
        dear = (number, place) not in self._tried and bool(self._heap)
        if useless or (dear and self._ratio(move) > self._heap[0][0] * _DEARER):
            if useless:
                self._blocked.add((number, place, move.level))
            self._tried.add((number, place))
            self._state.go(number, before)
            self._offer(number, place)
            return False
        self._seen = real
        self._tried.clear()
        self._moves.append(dataclasses.replace(move, gain=saved))
        self._offer_all(number)
        return True

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
            planned = plan(analyze(graph, self._structure), "auto", self._gauge.costs)
            self._known[key] = self._gauge.total(planned)
        return self._known[key]

    def _pruned(self, state: State) -> dict[int, IntArray]:
        roots = self._structure.roots
        return {
            index: np.flatnonzero(np.isin(roots[self._reads[index].inputs], gone))
            for index, gone in state.gone().items()
        }

    def _ended(self, wanted: float) -> tuple[list[Move], list[Depth]]:
        """The moves so far, the last one replaced by the cheapest that reaches the goal as well."""
        moves, depths = list(self._moves), list(self._state.depths)
        if not moves:
            return moves, depths
        state, last = State(self._stocks, self._gauge), moves[-1]
        start = [Depth(0, (0,) * len(depth.own)) for depth in depths]
        for move in moves[:-1]:
            start[move.number] = start[move.number].moved(move.place, move.level)
        for number, depth in enumerate(start):
            state.go(number, depth)
        # Keys in the order of the model; a stable sort keeps it among equal costs.
        cheaper = [
            found
            for number, place in self._versions
            for level in self._levels[number]
            if (found := best_move(state, number, place, [level])) is not None
            if found.cost < last.cost
        ]
        for move in sorted(cheaper, key=lambda each: each.cost)[-_TRIES:]:
            ended = list(start)
            ended[move.number] = start[move.number].moved(move.place, move.level)
            if self._real(ended) <= wanted:
                gain = self._real(start) - self._real(ended)
                return [*moves[:-1], dataclasses.replace(move, gain=gain)], ended
        return moves, depths

    def _refined(self, wanted: float) -> tuple[list[Depth], list[Move]]:
        """Takes moves back that a goal does not need."""
        moves, depths = self._ended(wanted)
        slack, tried = wanted - self._real(depths), 0
        for move in sorted(moves, key=lambda each: -each.cost):
            if tried == _TRIES:
                break
            left = Depth(0, (0,) * len(depths[move.number].own))
            for each in moves:
                if each.number == move.number and each is not move:
                    left = left.moved(each.place, each.level)
            if left == depths[move.number] or move.gain > 2 * slack:
                continue
            tried += 1
            without = [*depths[: move.number], left, *depths[move.number + 1 :]]
            if self._real(without) <= wanted:
                depths, slack = without, wanted - self._real(without)
                moves = [each for each in moves if each is not move]
        return depths, moves

    def _choice(self, goal: float, depths: Sequence[Depth], moves: Sequence[Move]) -> Choice:
        state = State(self._stocks, self._gauge)
        for number, depth in enumerate(depths):
            state.go(number, depth)
        pruned = {index: gone for index, gone in self._pruned(state).items() if self._may(index)}
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
