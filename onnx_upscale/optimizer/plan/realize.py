"""The choice of a realization for each reader and writer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from onnx_upscale.optimizer.analyze import Analysis, Needs
from onnx_upscale.optimizer.analyze.facts import Read, Write
from onnx_upscale.optimizer.analyze.weights import BoolArray
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.plan.cost import Costs
from onnx_upscale.optimizer.plan.layout import Layout
from onnx_upscale.optimizer.plan.readings import (
    READINGS,
    Gather,
    Reading,
    Way,
    Whole,
    ZeroFill,
    copied,
)
from onnx_upscale.optimizer.plan.strategy import Strategy
from onnx_upscale.optimizer.plan.writings import WRITINGS, WriteWhole, WriteZeros, Writing

_W = TypeVar("_W", Reading, Writing)


@dataclass(frozen=True)
class Preferred:
    """Ways that `auto` takes whatever they cost, where there are such.

    Attributes:
        readers: By the index of the reader's node.
        writers: By the index of the writer's node.
    """

    readers: Mapping[int, Way] = field(default_factory=dict)
    writers: Mapping[int, Way] = field(default_factory=dict)


def ways_to_read(read: Read, here: IntArray, needs: BoolArray, costs: Costs) -> list[Reading]:
    """The ways in which a reader can get what it needs, where that is not all there is.

    Args:
        read: The reader.
        here: The original channels in the layout of its input, in order.
        needs: Which of these it needs.
        costs: Prices.

    Returns:
        All that are worth a price.
    """
    return [way for kind in READINGS for way in kind.ways(read, here, needs, costs)]


def ways_to_write(write: Write, here: IntArray, zero: BoolArray, costs: Costs) -> list[Writing]:
    """The ways in which a writer can fill a layout of which some is zero.

    Args:
        write: The writer.
        here: The original channels in the layout of its output, in order.
        zero: Which of these are known to be zero.
        costs: Prices.

    Returns:
        All that are worth a price.
    """
    layer = write.layer
    if layer is None or layer.groups > 1 or zero.all():
        return [WriteZeros(write, here)]
    return [way for kind in WRITINGS for way in kind.ways(write, here, zero, costs)]


def realize_reader(
    kept: Needs,
    layout: Layout,
    costs: Costs,
    read: Read,
    strategy: Strategy,
    preferred: Way | None = None,
) -> Reading | None:
    """Chooses how a reader gets its channels.

    Args:
        kept: What is computed.
        layout: The layout.
        costs: Prices, which `auto` goes by.
        read: The reader.
        strategy: The strategy.
        preferred: What `auto` takes if it is among the ways.

    Returns:
        The choice, or None where the reader is not computed at all.
    """
    here = layout.positions(read.inputs)
    made = len(layout.positions(read.outputs)) if read.outputs is not None else read.layer.outputs
    if not len(here) or not made:
        return None
    needs = kept.reads[read.layer.node.index][here]
    count = np.count_nonzero(needs)
    if count == len(here):
        return Whole(read, here, needs, np.arange(len(here)))
    if strategy is Strategy.CONSTRAINED or not count:
        return ZeroFill(read, here, needs, np.arange(len(here)))
    if strategy is Strategy.AUTO:
        ways = ways_to_read(read, here, needs, costs)
        return _cheapest(ways, preferred, lambda each: each.seconds(costs, made))
    wanted = np.flatnonzero(needs)
    if strategy is Strategy.UPSCALE:
        return copied(read, here, needs, wanted)
    return Gather(read, here, needs, wanted)


def realize_writer(
    analysis: Analysis,
    layout: Layout,
    costs: Costs,
    write: Write,
    strategy: Strategy,
    preferred: Way | None = None,
) -> Writing:
    """Chooses how a writer fills its layout.

    Args:
        analysis: The analysis.
        layout: The layout.
        costs: Prices, which `auto` goes by.
        write: The writer.
        strategy: The strategy.
        preferred: What `auto` takes if it is among the ways.

    Returns:
        The choice.
    """
    here, layer = layout.positions(write.outputs), write.layer
    if not analysis.any_known:
        return WriteWhole(write, here)
    zero = analysis.values[write.outputs[here]] == 0
    if not np.count_nonzero(zero):
        return WriteWhole(write, here)
    if strategy is not Strategy.AUTO or layer is None:
        return WriteZeros(write, here)
    inputs = layer.inputs if write.inputs is None else len(layout.positions(write.inputs))
    ways = ways_to_write(write, here, zero, costs)
    return _cheapest(ways, preferred, lambda each: each.seconds(costs, inputs))


def _cheapest(ways: list[_W], preferred: Way | None, seconds: Callable[[_W], float]) -> _W:
    """The one that is preferred, or else takes the least; a single one has no need of a price."""
    if preferred is not None:
        ways = [each for each in ways if each.way == preferred] or ways
    return min(ways, key=seconds) if len(ways) > 1 else ways[0]
