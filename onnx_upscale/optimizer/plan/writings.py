"""Realizations of writers: how one fills the layout it finds, one class each.

To add one, write a class and add it to `WRITINGS`; as for readers (`readings`), nothing else asks
which one it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from onnx_upscale.optimizer.analyze.facts import Write
from onnx_upscale.optimizer.analyze.weights import BoolArray
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.plan.cost import Costs
from onnx_upscale.optimizer.plan.edits import Edit, Widen
from onnx_upscale.optimizer.plan.readings import Way


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
