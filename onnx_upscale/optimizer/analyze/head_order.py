"""Which channels of one head lie beside which of another.

A head's channels are summed over, or go to the projection that reads them all: nobody asks which
number one has in its head. So each head may have an order of its own, if all that is made of the
same channels has it too. Where masks take other channels from every head, those that nobody needs
go to the end of each; then the same places of every head hold them, and leave. That goes band by
band (see `bands`): what a rotary embedding turns keeps its order, and what stands beside it has one
of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from onnx_upscale.optimizer.analyze.bands import Band
from onnx_upscale.optimizer.analyze.constants import Values
from onnx_upscale.optimizer.analyze.crossing import crossed
from onnx_upscale.optimizer.analyze.facts import Facts
from onnx_upscale.optimizer.analyze.needs import Needs
from onnx_upscale.optimizer.analyze.structure import HeadOrder, Structure
from onnx_upscale.optimizer.analyze.weights import BoolArray
from onnx_upscale.optimizer.load.graph import IntArray


def with_own_orders(
    structure: Structure, values: Values, needs: Needs, in_step: frozenset[int]
) -> Structure:
    """Gives heads orders of their own, where more can leave then.

    Args:
        structure: The structure.
        values: Known values per label.
        needs: What is needed while heads have the orders that they have.
        in_step: Roots of channels that have the same order in all heads, whatever it gains.

    Returns:
        The structure, with other cells in its grids; the same where that gains nothing.
    """
    if not structure.grids:
        return structure
    wanted = _wanted(structure, values, needs)
    chosen: list[tuple[Band, IntArray]] = []
    for band in structure.free_bands:
        order = _order(structure, band, values, needs, wanted)
        if order is not None and in_step.isdisjoint(band.roots.tolist()):
            chosen.append((band, order))
    moved: dict[bytes, IntArray] = {}
    orders: list[HeadOrder] = []
    for band, order in chosen:
        flats = _move(structure, band, order, moved)
        for heads in band.family.heads:
            times = len(heads) // len(order)
            orders.append(HeadOrder(heads, band.roots, order.repeat(times, axis=0), flats))
    if orders:
        facts = tuple(_moved(structure, each, moved) for each in structure.facts)
        structure = replace(structure, facts=facts, head_orders=tuple(orders))
    gone = crossed(structure, values)
    return replace(structure, crossed=gone) if gone.size else structure


def _order(
    structure: Structure, band: Band, values: Values, needs: Needs, wanted: BoolArray
) -> IntArray | None:
    """Per head a band's channels, those that may leave last; None if that gains nothing."""
    heads = band.family.heads[0]
    dead = np.zeros((len(heads), len(band.roots)), bool)
    for member in band.family.members:
        grid = member.grid
        gone = (
            values[grid.flat] == grid.zero if grid.splits else ~wanted[structure.roots[grid.flat]]
        ).reshape(len(heads), member.times, -1)
        shared: BoolArray = np.logical_and.reduce(gone, axis=1)
        for columns in band.columns(structure.roots[grid.factors[-1]]):
            dead |= shared[:, columns]
    live = ~dead[needs.labels[heads]]
    most, together = live.sum(1).max(initial=0), np.count_nonzero(live.any(0))
    return np.argsort(dead, axis=1, kind="stable") if 0 < most < together else None


def _wanted(structure: Structure, values: Values, needs: Needs) -> BoolArray:
    """Per root, whether somebody wants it for itself, not to make a grid whole."""
    wanted = np.zeros(len(structure.roots), bool)
    for demand in structure.demands:
        labels = demand.labels
        nonzero = labels[values[labels] != 0] if demand.unless_zero else labels
        wanted[structure.roots[nonzero]] = True
    for read, _, inputs in structure.backward:
        wanted[inputs[needs.reads[read.layer.node.index]]] = True
    return wanted


def _move(
    structure: Structure, band: Band, order: IntArray, moved: dict[bytes, IntArray]
) -> IntArray:
    """Takes a band's channels in another order, in every grid; the roots of all their flat axes.

    Args:
        structure: The structure.
        band: The band.
        order: Per head of its family, the channel that will lie in each place.
        moved: By the roots of a flat axis, which of its places lies in each cell; changed in place.
    """
    flats: list[IntArray] = []
    for member in band.family.members:
        grid = member.grid
        columns, flat = band.columns(structure.roots[grid.factors[-1]]), structure.roots[grid.flat]
        if not columns.size or any(np.array_equal(flat, other) for other in flats):
            continue
        cells = moved.setdefault(flat.tobytes(), np.arange(len(flat))).reshape(grid.shape)
        for places in columns:
            own = order.repeat(member.times, axis=0)
            cells[:, places] = np.take_along_axis(cells[:, places], own, axis=1)
        flats.append(flat)
    return np.concatenate(flats)


def _moved(structure: Structure, facts: Facts, moved: Mapping[bytes, IntArray]) -> Facts:
    if not facts.grids:
        return facts
    grids = []
    for grid in facts.grids:
        cells = moved.get(structure.roots[grid.flat].tobytes())
        grids.append(grid if cells is None else replace(grid, flat=grid.flat[cells]))
    return replace(facts, grids=tuple(grids))
