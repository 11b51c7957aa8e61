"""Realizations: how a reader or a writer gets along with the layout it finds, one class each.

A realization of a reader proposes itself (`ways`), knows what it costs (`seconds`), what it changes
on the edge (`edits`) and what it is called in the report (`name`). To add one, write a class and
add it to `READINGS` or `WRITINGS`; nothing else asks which one it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from onnx_upscale.optimizer.analyze.approaches import Approach
from onnx_upscale.optimizer.analyze.facts import Read, Write
from onnx_upscale.optimizer.analyze.weights import BoolArray
from onnx_upscale.optimizer.load.graph import IntArray, Node
from onnx_upscale.optimizer.plan.cost import Costs
from onnx_upscale.optimizer.plan.edits import Convolve, Edit, Select, Unblock, Widen


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


READINGS: list[type[Reading]] = [ZeroFill, Slice, Gather, Moved]


@dataclass(frozen=True)
class Writing:
    """How one writer fills its layout.

    Attributes:
        write: The writer.
        positions: The original output channels that it computes, in order.
        before: Channels of zeros that are put before them.
        after: Channels of zeros that are put behind them.
    """

    name: ClassVar[str]

    write: Write
    positions: IntArray
    before: int = 0
    after: int = 0

    @classmethod
    def ways(cls, write: Write, here: IntArray, zero: BoolArray, costs: Costs) -> Iterator[Writing]:
        """The ways to write so that are worth a price.

        Args:
            write: The writer.
            here: The original channels in the layout of its output, in order.
            zero: Which of these are known to be zero.
            costs: Prices.
        """
        raise NotImplementedError

    @property
    def way(self) -> Way:
        """Which of the ways to write it is."""
        return Way(self.name, len(self.positions))

    def edits(self) -> tuple[Edit, ...]:
        """What it changes on the edge from the writer."""
        return ()

    def seconds(self, costs: Costs, inputs: int) -> float:
        """What the layer costs with it, if it reads so many channels."""
        assert self.write.layer is not None
        return costs.layer(self.write.layer, inputs, len(self.positions))


class WriteWhole(Writing):
    """It computes the whole layout."""

    name = "whole"


class WriteZeros(Writing):
    """It computes the whole layout; zero weights make the channels that are zero."""

    name = "zero-fill"

    @classmethod
    def ways(cls, write: Write, here: IntArray, zero: BoolArray, costs: Costs) -> Iterator[Writing]:
        """One."""
        yield cls(write, here)


class Pad(Writing):
    """It computes what is not zero, and zeros are added."""

    name = "pad"

    @classmethod
    def ways(cls, write: Write, here: IntArray, zero: BoolArray, costs: Costs) -> Iterator[Writing]:
        """A window around what is not zero, of a count that the target likes."""
        layer, size, wanted = write.layer, len(here), (~zero).nonzero()[0]
        if layer is None or layer.groups > 1 or layer.output_axis is None:
            return
        if layer.sum_slot is not None:
            return  # What is added is as wide as the layout.
        if layer.recurrence is not None:
            return  # It makes more than one tensor, and reads itself what it makes.
        if layer.quantization is not None:
            return  # A Pad adds numbers 0, which need not stand for zero.
        reader = costs.structure.graph.only_reader(layer.node.outputs[0])
        if reader is not None and reader.operator == ("", "QuantizeLinear"):
            return  # onnxruntime runs both as one, if nothing is between.
        if layer.scale_blocks is not None and layer.scale_blocks.axis == layer.weight_output_axis:
            return  # A part of a block would be no longer quantized.
        start, end = int(wanted[0]), int(wanted[-1]) + 1
        width = min(costs.counts(end - start, layer.grain).aligned, size)
        start = min(start, size - width)
        if width < size:
            yield cls(write, here[start : start + width], start, size - start - width)

    def edits(self) -> tuple[Edit, ...]:
        """The zeros."""
        assert self.write.layer is not None
        return (Widen(self.write.layer, self.before, self.after),)

    def seconds(self, costs: Costs, inputs: int) -> float:
        """The layer and the copy into the wider tensor."""
        layer, width = self.write.layer, len(self.positions)
        assert layer is not None
        assert layer.output_axis is not None
        size = self.before + width + self.after
        copy = costs.copy(layer.node.outputs[0], layer.output_axis, width, size)
        return costs.layer(layer, inputs, width) + copy


WRITINGS: list[type[Writing]] = [WriteZeros, Pad]
