"""Backward pass: which channels anybody needs, cascading through the whole model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnx_upscale.optimizer.analyze.constants import Values
from onnx_upscale.optimizer.analyze.facts import Grid, Read
from onnx_upscale.optimizer.analyze.structure import Structure
from onnx_upscale.optimizer.analyze.weights import BoolArray, MaskedWeights
from onnx_upscale.optimizer.load.graph import IntArray, Use


@dataclass(frozen=True)
class Needs:
    """A set of channels that is closed: all that it takes to compute each is in it.

    Attributes:
        labels: Per label, whether its channel is in it.
        reads: Per reader (by node index), which of its input channels it takes to compute those of
            its output channels that are in it.
    """

    labels: BoolArray
    reads: Mapping[int, BoolArray]


def find_needs(
    structure: Structure, values: Values, weights: MaskedWeights, wanted: IntArray | None = None
) -> Needs:
    """Finds what is needed, from the outputs back.

    A reader needs an input channel if a weight that is not zero connects it with an output
    channel that is needed itself, and its value is not one the bias can absorb. Channels that are
    coupled are needed together, so that every kept channel is computed exactly. Hidden units are
    readers of each other in the same sense.

    Args:
        structure: Labels and facts.
        values: Known values per label.
        weights: The weights under masks.
        wanted: Roots to keep in any case.

    Returns:
        What is needed, and by whom.
    """
    roots = structure.roots
    needed = np.zeros(len(roots), bool)
    if wanted is not None:
        needed[wanted] = True
    for demand in structure.demands:
        labels = demand.labels
        if demand.unless_zero:
            nonzero = labels[values[labels] != 0]
            labels = nonzero if nonzero.size else labels[:1]
        needed[roots[labels]] = True
    known = None if np.isnan(values).all() else values
    live_before: dict[Use, int] = {}
    columns: dict[Use, BoolArray] = {}
    while True:
        for read, made, inputs in structure.asked:
            use = read.layer.weight
            live = np.ones(read.layer.outputs, bool) if made is None else needed[made]
            count = int(np.count_nonzero(live))
            if live_before.get(use) == count:
                continue  # What is needed only grows, so that equal counts are equal sets.
            live_before[use] = count
            columns[use] = own = _needed_inputs(read, live, known, weights)
            if np.count_nonzero(own):
                needed[inputs[own]] = True
            elif count and not needed[inputs].any():
                needed[inputs[0]] = True  # ONNX has no useful tensors of width zero.
        more = [_close(grid, needed) for grid in structure.grids]
        more += [
            int(np.count_nonzero(needed[made])) > live_before[read.layer.weight]
            for read, made in structure.asked_early
        ]
        if any(more):
            continue
        # A tensor of which nobody wants more than its other sizes must be there all the same.
        for axis in structure.measured:
            if not needed[axis].any():
                needed[axis[0]] = True
                more.append(True)
        if not any(more):
            break
    reads = {read.layer.node.index: columns[read.layer.weight] for read, _, _ in structure.backward}
    return Needs(needed[roots], reads)


def _close(grid: Grid, needed: BoolArray) -> bool:
    """Makes what is needed of a grid a grid; whether that was anything new.

    Args:
        grid: The grid, of roots.
        needed: Per root whether it is needed; changed in place.
    """
    before = np.count_nonzero(needed)
    cells = needed[grid.flat].reshape(grid.shape)
    whole = np.ones(grid.shape, bool)
    for axis, factor in enumerate(grid.factors):
        needed[factor[np.moveaxis(cells, axis, 0).reshape(len(factor), -1).any(1)]] = True
        np.moveaxis(whole, axis, -1)[...] &= needed[factor]
    needed[grid.flat[whole.ravel()]] = True
    return bool(np.count_nonzero(needed) > before)


def _needed_inputs(
    read: Read, live: BoolArray, values: Values | None, weights: MaskedWeights
) -> BoolArray:
    """Which inputs a reader needs for outputs that are live; `values` is None if none is known."""
    reaching = weights.reaching(read.layer, live)
    if values is not None:
        seen = read.seen(values)
        reaching = reaching & (np.isnan(seen) if read.absorbs else seen != 0)
    return read.layer.with_whole_blocks(reaching)
