"""What was removed so far: per family how far all readers went, and each reader by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.load.layers import Layer
from onnx_upscale.pruning.curves import Curves
from onnx_upscale.pruning.families import Family
from onnx_upscale.pruning.gauge import Gauge

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Depth:
    """How many units of a family are gone.

    Attributes:
        joint: For all its readers, in their common order.
        own: Per reader, in total: the common ones, then the next of its own order.
    """

    joint: int
    own: tuple[int, ...]

    def moved(self, place: int | None, level: int) -> Depth:
        """With so many units gone for the reader at a place, or for all (None)."""
        if place is None:
            return Depth(level, tuple(max(level, count) for count in self.own))
        own = list(self.own)
        own[place] = level
        return Depth(self.joint, tuple(own))


@dataclass(frozen=True)
class Stock:
    """A family with its curves: what is gone at some depth, and what that costs."""

    family: Family
    curves: Curves

    def gone(self, depth: Depth) -> Flags:
        """Which units each reader gave up, shape (readers, units)."""
        gone = np.zeros((len(depth.own), self.family.units), bool)
        gone[:, self.curves.joint.order[: depth.joint]] = True
        for flags, count, own in zip(gone, depth.own, self.curves.own, strict=True):
            left = own.order[~flags[own.order]]
            flags[left[: count - depth.joint]] = True
        return gone

    def cost(self, depth: Depth) -> float:
        """What the outputs lose by it: a reader's own units add to the common ones.

        No set of as many units is cheaper than about the reader's own order says, so that is what
        a reader pays at least.
        """
        total, gone = 0.0, self.gone(depth)
        common = np.zeros(self.family.units, bool)
        common[self.curves.joint.order[: depth.joint]] = True
        for place, (flags, count) in enumerate(zip(gone, depth.own, strict=True)):
            own = self.curves.own[place]
            steps = np.diff(own.errors[0])[(flags & ~common)[own.order]]
            paid = self.curves.joint.errors[place, depth.joint] + float(steps.sum())
            total += max(paid, float(own.errors[0, count]))
        return total


@dataclass
class State:
    """Depths of all families, and the counts of channels that follow.

    Attributes:
        stocks: The families.
        depths: Their depths.
    """

    stocks: Sequence[Stock]
    gauge: Gauge
    depths: list[Depth] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._less: list[Mapping[int, tuple[int, int, int]]] = []
        self._families_of: dict[int, list[int]] = {}
        self._layers: dict[int, Layer] = {}
        for number, stock in enumerate(self.stocks):
            for party in (*stock.family.readers, *stock.family.writers):
                index = party.layer.node.index
                self._layers[index] = party.layer
                around = self._families_of.setdefault(index, [])
                if number not in around:
                    around.append(number)
        self.depths = [Depth(0, (0,) * len(stock.family.readers)) for stock in self.stocks]
        self._less = [
            self._loss(stock, depth) for stock, depth in zip(self.stocks, self.depths, strict=True)
        ]

    def go(self, number: int, depth: Depth) -> None:
        """Sets the depth of a family."""
        self.depths[number] = depth
        self._less[number] = self._loss(self.stocks[number], depth)

    def price(self, number: int, depth: Depth) -> float:
        """What all layers around a family take, at another depth of it."""
        family, less = self.stocks[number].family, self._loss(self.stocks[number], depth)
        indices = {party.layer.node.index for party in (*family.readers, *family.writers)}
        together = sum(count > depth.joint for count in depth.own) <= 2
        return sum(self._layer(index, number, less, together) for index in sorted(indices))

    def _layer(
        self, index: int, number: int, less: Mapping[int, tuple[int, int, int]], together: bool
    ) -> float:
        layer = self._layers[index]
        there, kept, outputs = layer.inputs, layer.inputs, layer.outputs
        for other in self._families_of[index]:
            losses = less if other == number else self._less[other]
            missing, unread, unmade = losses.get(index, (0, 0, 0))
            there, kept, outputs = there - missing, kept - unread, outputs - unmade
        return self.gauge.layer(layer, there, kept, outputs, together)

    @staticmethod
    def _loss(stock: Stock, depth: Depth) -> Mapping[int, tuple[int, int, int]]:
        """By layer: how many channels its input lacks, it does not read, and it does not make."""
        family, gone = stock.family, stock.gone(depth)
        nowhere = int(gone.all(axis=0).sum())
        found: dict[int, tuple[int, int, int]] = {}
        for party, count in zip(family.readers, gone.sum(axis=1).tolist(), strict=True):
            index = party.layer.node.index
            found[index] = (nowhere * party.times, count * party.times, 0)
        for party in family.writers:
            index = party.layer.node.index
            missing, unread, _ = found.get(index, (0, 0, 0))
            found[index] = (missing, unread, nowhere * party.times)
        return found

    def gone(self) -> dict[int, IntArray]:
        """By node index of each reader, the roots of the channels that it gave up."""
        taken: dict[int, list[IntArray]] = {}
        for stock, depth in zip(self.stocks, self.depths, strict=True):
            for party, flags in zip(stock.family.readers, stock.gone(depth), strict=True):
                taken.setdefault(party.layer.node.index, []).append(stock.family.roots[flags])
        return {index: np.concatenate(taken[index]) for index in sorted(taken)}
