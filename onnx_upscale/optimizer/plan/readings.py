"""Realizations of readers: how one gets along with the layout it finds, one class each.

A realization proposes itself (`ways`), knows what it costs (`seconds`), what it changes on the edge
(`edits`) and what it is called in the report (`name`). To add one, write a class and add it to
`READINGS`; nothing else asks which one it is. Those of writers are in `writings`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from onnx_upscale.optimizer.analyze.approaches import Approach
from onnx_upscale.optimizer.analyze.facts import Read
from onnx_upscale.optimizer.analyze.weights import BoolArray
from onnx_upscale.optimizer.load.graph import IntArray, Node
from onnx_upscale.optimizer.plan.cost import Costs
from onnx_upscale.optimizer.plan.edits import Convolve, Edit, Select, SelectParts, Unblock


class Way(NamedTuple):
    """What tells one way to read or to write from the others of the same layer.

    Attributes:
        name: The realization.
        channels: How many the layer reads or computes with it.
    """

    name: str
    channels: int


@dataclass(frozen=True)
class Reading:
    """How one reader gets its channels.

    Attributes:
        read: The reader.
        here: The original channels in the layout of its input, in order.
        needs: Which of these it needs.
        chosen: What it reads, as places in the layout, in the order read.
    """

    name: ClassVar[str]

    read: Read
    here: IntArray
    needs: BoolArray
    chosen: IntArray

    @classmethod
    def ways(cls, read: Read, here: IntArray, needs: BoolArray, costs: Costs) -> Iterator[Reading]:
        """The ways to read so that are worth a price."""
        raise NotImplementedError

    @property
    def positions(self) -> IntArray:
        """The original channels that it reads, in order."""
        return self.here[self.chosen]

    @property
    def way(self) -> Way:
        """Which of the ways to read it is."""
        return Way(self.name, len(self.chosen))

    @property
    def needed(self) -> int:
        """How many of them it needs."""
        return int(self.needs.sum())

    def edits(self) -> tuple[Edit, ...]:
        """What it changes on the edge to the reader."""
        return ()

    def narrow(self) -> tuple[bytes, ...]:
        """By the bytes of labels, axes that hold no more than it reads where others hold more."""
        return ()

    def seconds(self, costs: Costs, made: int) -> float:
        """What the layer costs with it, if it makes so many channels."""
        layer = self.read.layer
        plain = costs.is_plain(layer.node.inputs[layer.data_slot])
        return costs.layer(layer, len(self.chosen), made, plain)

    def seconds_copying(self, costs: Costs) -> float:
        """What its copy costs."""
        return 0.0

    def bytes_copied(self, costs: Costs) -> int:
        """What it copies per inference."""
        return 0


class Whole(Reading):
    """The tensor is what the reader needs."""

    name = "whole"

    @classmethod
    def ways(cls, read: Read, here: IntArray, needs: BoolArray, costs: Costs) -> Iterator[Reading]:
        """One, where it is so."""
        if needs.all():
            yield cls(read, here, needs, np.arange(len(here)))


class ZeroFill(Reading):
    """It reads more than it needs, with zero weights there."""

    name = "zero-fill"

    @classmethod
    def ways(cls, read: Read, here: IntArray, needs: BoolArray, costs: Costs) -> Iterator[Reading]:
        """One."""
        yield cls(read, here, needs, np.arange(len(here)))


class _Copy(Reading):
    """It reads a copy."""

    def edits(self) -> tuple[Edit, ...]:
        """The copy."""
        layer = self.read.layer
        return (Select(layer.node, layer.data_slot, layer.data_axis, self.chosen),)

    def seconds(self, costs: Costs, made: int) -> float:
        """The layer and the copy."""
        layer = costs.layer(self.read.layer, len(self.chosen), made)
        return layer + self.seconds_copying(costs)

    def seconds_copying(self, costs: Costs) -> float:
        """The copy of what the reader reads."""
        layer, count = self.read.layer, len(self.chosen)
        tensor, contiguous = layer.node.inputs[layer.data_slot], isinstance(self, Slice)
        reordered = 0 if costs.is_plain(tensor) else None
        return costs.copy(tensor, layer.data_axis, len(self.here), count, contiguous, reordered)

    def bytes_copied(self, costs: Costs) -> int:
        """What the copy writes."""
        layer = self.read.layer
        tensor = layer.node.inputs[layer.data_slot]
        return costs.copied_bytes(tensor, layer.data_axis, len(self.chosen))


class Slice(_Copy):
    """It reads a window around what it needs."""

    name = "slice"

    @classmethod
    def ways(cls, read: Read, here: IntArray, needs: BoolArray, costs: Costs) -> Iterator[Reading]:
        """The narrowest window, and one of a count that the target likes."""
        size, wanted = len(needs), needs.nonzero()[0]
        start, end = int(wanted[0]), int(wanted[-1]) + 1
        liked = costs.liked(read.layer, end - start)
        for width in dict.fromkeys((end - start, *liked)):
            if width < size:
                yield cls(read, here, needs, _window(start, width, size))


class Gather(_Copy):
    """It reads what it needs, wherever that is."""

    name = "gather"

    @classmethod
    def ways(cls, read: Read, here: IntArray, needs: BoolArray, costs: Costs) -> Iterator[Reading]:
        """Just that, and with others up to a count that the target likes."""
        size, wanted = len(needs), needs.nonzero()[0]
        liked = costs.liked(read.layer, len(wanted))
        for count in dict.fromkeys((len(wanted), *liked)):
            filled = _filled(needs, wanted, count)
            if len(filled) < size and not _is_window(filled):
                yield cls(read, here, needs, filled)


def copied(read: Read, here: IntArray, needs: BoolArray, chosen: IntArray) -> Reading:
    """A copy of just some places, at least one: a slice where they stand side by side."""
    return (Slice if _is_window(chosen) else Gather)(read, here, needs, chosen)


def _is_window(places: IntArray) -> bool:
    return bool(places[-1] - places[0] + 1 == len(places))


def _window(start: int, width: int, size: int) -> IntArray:
    """A range of places of a layout of some size."""
    first = min(start, size - width)
    return np.arange(first, first + width)


def _filled(needs: BoolArray, wanted: IntArray, count: int) -> IntArray:
    """The places that are wanted, and the first others up to a count."""
    missing = min(count, len(needs)) - len(wanted)
    if not missing:
        return wanted
    filled = needs.copy()
    filled[(~needs).nonzero()[0][:missing]] = True
    return filled.nonzero()[0]


@dataclass(frozen=True)
class Parts(_Copy):
    """Two convolutions read a copy each, whole blocks and the rest, and their sums are added.

    Kernels compute whole blocks of what they read; few channels have one of their own.

    Attributes:
        first: How many of what it reads are whole blocks.
    """

    name = "parts"

    first: int

    @classmethod
    def ways(cls, read: Read, here: IntArray, needs: BoolArray, costs: Costs) -> Iterator[Reading]:
        """Just what it needs, where some whole blocks are not all of it."""
        wanted = needs.nonzero()[0]
        first = costs.whole_blocks(read.layer, len(wanted))
        if 0 < first < len(wanted):
            yield cls(read, here, needs, wanted, first)

    def edits(self) -> tuple[Edit, ...]:
        """The copies, and the second convolution."""
        layer = self.read.layer
        return (SelectParts(layer.node, layer.data_slot, layer.data_axis, self.chosen, self.first),)

    def seconds(self, costs: Costs, made: int) -> float:
        """Both layers, their sum, and the copies."""
        rest = len(self.chosen) - self.first
        return costs.in_parts(self.read.layer, self.first, rest, made) + self.seconds_copying(costs)

    def seconds_copying(self, costs: Costs) -> float:
        """The two copies; what they are copied from is reordered for the first."""
        layer, there = self.read.layer, len(self.here)
        tensor, axis = layer.node.inputs[layer.data_slot], layer.data_axis
        reordered = (0 if costs.is_plain(tensor) else None), 0
        parts = self.chosen[: self.first], self.chosen[self.first :]
        return sum(
            costs.copy(tensor, axis, there, len(part), _is_window(part), again)
            for part, again in zip(parts, reordered, strict=True)
        )


@dataclass(frozen=True)
class Moved(_Copy):
    """Nodes before it read the copy, and do less.

    Attributes:
        approach: These nodes.
        blocked: Whether what they read could be in the blocked layout.
        scaling: Those of them that scale channels of what is in the blocked layout otherwise.
    """

    name = "moved"

    approach: Approach
    blocked: bool
    scaling: tuple[Node, ...]

    @classmethod
    def ways(cls, read: Read, here: IntArray, needs: BoolArray, costs: Costs) -> Iterator[Reading]:
        """As many as the target likes: a window of them, if all that it needs is in it."""
        approach = costs.approaches.get(read.layer.node.index)
        if approach is None or read.layer.in_bytes:
            return  # Rounding costs nothing there, as long as nothing stands before it.
        size, wanted = len(needs), needs.nonzero()[0]
        start, end = int(wanted[0]), int(wanted[-1]) + 1
        blocked = costs.reorders(approach.source)
        scaling = filter(_scales_channels, approach.nodes if blocked else ())
        images = tuple(node for node in scaling if costs.reorders(node.inputs[0]))
        for count in dict.fromkeys(costs.liked(read.layer, len(wanted))):
            if count < size:
                fits = end - start <= count
                chosen = _window(start, count, size) if fits else _filled(needs, wanted, count)
                yield cls(read, here, needs, chosen, approach, blocked, images)

    def narrow(self) -> tuple[bytes, ...]:
        """What the nodes make."""
        return self.approach.axes

    def edits(self) -> tuple[Edit, ...]:
        """The copies, and what suits the layout that they leave."""
        approach = self.approach
        found: list[Edit] = []
        if self.blocked and approach.concatenation is not None:
            found.append(Unblock(approach.concatenation, rank=4))
        found += [Select(e.node, e.slot, e.axis, self.chosen) for e in approach.edges]
        found += map(Convolve, self.scaling)
        return tuple(found)

    def seconds(self, costs: Costs, made: int) -> float:
        """The layer, the copy, and less what the nodes before it save."""
        count = len(self.chosen)
        layer = costs.layer(self.read.layer, count, made)
        saved = costs.saved(self.approach, len(self.here), count)
        return layer + self.seconds_copying(costs) - saved

    def seconds_copying(self, costs: Costs) -> float:
        """The copy of what the nodes before the reader read."""
        approach, reordered = self.approach, None
        if costs.is_plain(approach.source):
            reordered = 0
        elif self.blocked and approach.concatenation is not None:
            reordered = max(round(approach.fresh * len(self.here)), 1)
        axis, there, count = approach.edges[0].axis, len(self.here), len(self.chosen)
        contiguous = _is_window(self.chosen)
        return costs.copy(approach.source, axis, there, count, contiguous, reordered)

    def bytes_copied(self, costs: Costs) -> int:
        """What the copy writes."""
        edge = self.approach.edges[0]
        return costs.copied_bytes(self.approach.source, edge.axis, len(self.chosen))


def _scales_channels(node: Node) -> bool:
    # Old ones may have a factor per element instead.
    return node.op == "BatchNormalization" and bool(node.attributes.get("spatial", 1))


READINGS: list[type[Reading]] = [ZeroFill, Slice, Gather, Parts, Moved]
