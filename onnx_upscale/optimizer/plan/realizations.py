"""Realizations: how a reader or a writer gets along with the layout it finds, one class each.

A realization of a reader proposes itself (`ways`), knows what it costs (`seconds`), what it changes
on the edge (`edits`) and what it is called in the report (`name`). To add one, write a class and
add it to `READINGS` or `WRITINGS`; nothing else asks which one it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnx_upscale.optimizer.analyze.facts import Read, Write
from onnx_upscale.optimizer.analyze.weights import BoolArray
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.plan.cost import Costs
from onnx_upscale.optimizer.plan.edits import Edit, Select, Widen


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
    def needed(self) -> int:
        """How many of them it needs."""
        return int(self.needs.sum())

    def edits(self) -> tuple[Edit, ...]:
        """What it changes on the edge to the reader."""
        return ()

    def seconds(self, costs: Costs, made: int) -> float:
        """What the layer costs with it, if it makes so many channels."""
        return costs.layer(self.read.layer, len(self.chosen), made)

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
        return (Select(self.read.layer, self.chosen),)

    def seconds(self, costs: Costs, made: int) -> float:
        """The layer and the copy."""
        layer, count = self.read.layer, len(self.chosen)
        tensor, contiguous = layer.node.inputs[layer.data_slot], isinstance(self, Slice)
        copy = costs.copy(tensor, layer.data_axis, len(self.here), count, contiguous)
        return costs.layer(layer, count, made) + copy

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
        size, wanted = len(needs), np.flatnonzero(needs)
        start, end = int(wanted[0]), int(wanted[-1]) + 1
        counts = costs.prices.counts(end - start, read.layer.product)
        for width in dict.fromkeys((counts.least, counts.aligned)):
            if width < size:
                first = min(start, size - width)
                yield cls(read, here, needs, np.arange(first, first + width))


class Gather(_Copy):
    """It reads what it needs, wherever that is."""

    name = "gather"

    @classmethod
    def ways(cls, read: Read, here: IntArray, needs: BoolArray, costs: Costs) -> Iterator[Reading]:
        """Just that, and with others up to a count that the target likes."""
        size, wanted = len(needs), np.flatnonzero(needs)
        counts = costs.prices.counts(len(wanted), read.layer.product)
        for count in dict.fromkeys((counts.least, counts.aligned)):
            missing = min(count, size) - len(wanted)
            filled = np.sort(np.concatenate([wanted, np.flatnonzero(~needs)[:missing]]))
            if len(filled) < size and filled[-1] - filled[0] + 1 != len(filled):
                yield cls(read, here, needs, filled)


READINGS: list[type[Reading]] = [ZeroFill, Slice, Gather]


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
        layer, size, wanted = write.layer, len(here), np.flatnonzero(~zero)
        if layer is None or layer.groups > 1 or layer.output_axis is None:
            return
        start, end = int(wanted[0]), int(wanted[-1]) + 1
        width = min(costs.prices.counts(end - start, layer.product).aligned, size)
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
