"""The choice of a realization for each reader and writer."""

from __future__ import annotations

import numpy as np

from onnx_upscale.optimizer.analyze import Analysis, Needs
from onnx_upscale.optimizer.analyze.facts import Read, Write
from onnx_upscale.optimizer.plan.cost import Costs
from onnx_upscale.optimizer.plan.layout import Layout
from onnx_upscale.optimizer.plan.realizations import (
    READINGS,
    WRITINGS,
    Gather,
    Reading,
    Whole,
    WriteWhole,
    WriteZeros,
    Writing,
    ZeroFill,
    copied,
)
from onnx_upscale.optimizer.plan.strategy import Strategy


def realize_reader(
    kept: Needs, layout: Layout, costs: Costs, read: Read, strategy: Strategy
) -> Reading | None:
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
    needs = kept.reads[read.layer.node.index][here]
    if needs.all():
        return Whole(read, here, needs, np.arange(len(here)))
    if strategy is Strategy.CONSTRAINED or not needs.any():
        return ZeroFill(read, here, needs, np.arange(len(here)))
    if strategy is Strategy.AUTO:
        ways = [way for kind in READINGS for way in kind.ways(read, here, needs, costs)]
        return min(ways, key=lambda way: way.seconds(costs, made))
    wanted = np.flatnonzero(needs)
    if strategy is Strategy.UPSCALE:
        return copied(read, here, needs, wanted)
    return Gather(read, here, needs, wanted)


def realize_writer(
    analysis: Analysis, layout: Layout, costs: Costs, write: Write, strategy: Strategy
) -> Writing:
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
    here, layer = layout.positions(write.outputs), write.layer
    zero = analysis.values[write.outputs[here]] == 0
    if not zero.any():
        return WriteWhole(write, here)
    if strategy is not Strategy.AUTO or layer is None or layer.groups > 1 or zero.all():
        return WriteZeros(write, here)
    inputs = layer.inputs if write.inputs is None else len(layout.positions(write.inputs))
    ways = [way for kind in WRITINGS for way in kind.ways(write, here, zero, costs)]
    return min(ways, key=lambda way: way.seconds(costs, inputs))
