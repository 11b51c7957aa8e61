"""Realizations: how each reader and writer gets along with the layout it finds.

Readers: `whole` (the tensor is what it needs), `zero-fill` (it reads more, with zero weights
there), `slice` and `gather` (a copy). Writers: `whole`, `zero-fill` (zero weights make the
channels that are zero), `pad` (only the others are computed and zeros are added).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnx_upscale.analyze import Analysis, Needs
from onnx_upscale.analyze.facts import Read, Write
from onnx_upscale.analyze.weights import BoolArray
from onnx_upscale.load.graph import IntArray
from onnx_upscale.plan.cost import Costs, is_product
from onnx_upscale.plan.layout import Layout
from onnx_upscale.prices import Prices


@dataclass(frozen=True)
class ReaderPlan:
    """How one reader gets its channels.

    Attributes:
        realization: `whole`, `zero-fill`, `slice` or `gather`.
        chosen: What it reads, as places in the layout of its input, in the order read.
        positions: The same as positions of the original axis.
        needed: How many of them it needs.
        bytes_copied: What a copy writes per inference.
    """

    read: Read
    realization: str
    chosen: IntArray
    positions: IntArray
    needed: int
    bytes_copied: int

    @property
    def copies(self) -> bool:
        """Whether it takes a copy."""
        return self.realization in ("slice", "gather")


@dataclass(frozen=True)
class WriterPlan:
    """How one writer fills its layout.

    Attributes:
        realization: `whole`, `zero-fill` or `pad`.
        positions: The original output channels that it computes, in order.
        pads: Zero channels added before and after them.
        bytes_copied: What adding them writes per inference.
    """

    write: Write
    realization: str
    positions: IntArray
    pads: tuple[int, int]
    bytes_copied: int


def realize_reader(
    kept: Needs, layout: Layout, costs: Costs, read: Read, strategy: str
) -> ReaderPlan | None:
    """Chooses how a reader gets its channels.

    Args:
        kept: What is computed.
        layout: The layout.
        costs: Prices, which `auto` goes by.
        read: The reader.
        strategy: The strategy.

    Returns:
        The choice, or None where the reader is not computed at all.
    """
    here = layout.positions(read.inputs)
    made = len(layout.positions(read.outputs)) if read.outputs is not None else read.layer.outputs
    if not len(here) or not made:
        return None
    needed = kept.reads[read.layer.node.index][here]
    layer = read.layer
    tensor = layer.node.inputs[layer.data_slot]

    def plan(realization: str, chosen: IntArray) -> ReaderPlan:
        copied = 0
        if realization in ("slice", "gather"):
            copied = costs.copied_bytes(tensor, layer.data_axis, len(chosen))
        return ReaderPlan(read, realization, chosen, here[chosen], int(needed.sum()), copied)

    everything = np.arange(len(here))
    if needed.all():
        return plan("whole", everything)
    if strategy == "constrained" or not needed.any():
        return plan("zero-fill", everything)
    wanted = np.flatnonzero(needed)
    if strategy != "auto":
        contiguous = strategy == "upscale" and wanted[-1] - wanted[0] + 1 == len(wanted)
        return plan("slice" if contiguous else "gather", wanted)
    candidates = [plan("zero-fill", everything)]
    candidates += [plan(*each) for each in _copies(needed, costs.prices, is_product(layer))]

    def seconds(candidate: ReaderPlan) -> float:
        price = costs.layer(layer, len(candidate.chosen), made)
        if candidate.copies:
            contiguous = candidate.realization == "slice"
            count = len(candidate.chosen)
            price += costs.copy(tensor, layer.data_axis, len(here), count, contiguous)
        return price

    return min(candidates, key=seconds)


def _copies(needed: BoolArray, prices: Prices, product: bool) -> Iterator[tuple[str, IntArray]]:
    """A window around what is needed, or just that; as it is, and in counts the target likes."""
    size, wanted = len(needed), np.flatnonzero(needed)
    start, end = int(wanted[0]), int(wanted[-1]) + 1
    windows, picks = (prices.counts(least, product) for least in (end - start, len(wanted)))
    for width, count in ((windows.least, picks.least), (windows.aligned, picks.aligned)):
        width = min(width, size)
        first = min(start, size - width)
        if width < size:
            yield "slice", np.arange(first, first + width)
        missing = min(count, size) - len(wanted)
        filled = np.sort(np.concatenate([wanted, np.flatnonzero(~needed)[:missing]]))
        if len(filled) < size and filled[-1] - filled[0] + 1 != len(filled):
            yield "gather", filled


def realize_writer(
    analysis: Analysis, layout: Layout, costs: Costs, write: Write, strategy: str
) -> WriterPlan:
    """Chooses how a writer fills its layout.

    Args:
        analysis: The analysis.
        layout: The layout.
        costs: Prices, which `auto` goes by.
        write: The writer.
        strategy: The strategy.

    Returns:
        The choice.
    """
    here = layout.positions(write.labels)
    zero = analysis.values[write.labels[here]] == 0
    whole = WriterPlan(write, "zero-fill" if zero.any() else "whole", here, (0, 0), 0)
    layer = write.layer
    if strategy != "auto" or layer is None or layer.groups > 1 or not zero.any() or zero.all():
        return whole
    wanted = np.flatnonzero(~zero)
    size = len(here)
    start, end = int(wanted[0]), int(wanted[-1]) + 1
    width = min(costs.prices.counts(end - start, is_product(layer)).aligned, size)
    start = min(start, size - width)
    if width == size or layer.output_axis is None:
        return whole
    tensor, axis = layer.node.outputs[0], layer.output_axis
    inputs = layer.inputs if write.inputs is None else len(layout.positions(write.inputs))
    copy = costs.copy(tensor, axis, width, size)
    if costs.layer(layer, inputs, width) + copy >= costs.layer(layer, inputs, size):
        return whole
    chosen, pads = here[start : start + width], (start, size - start - width)
    return WriterPlan(write, "pad", chosen, pads, costs.copied_bytes(tensor, axis, size))
