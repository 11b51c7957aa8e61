"""The order of a segment's channels, by strategy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnx_upscale.optimizer.analyze import Needs, Segment, Structure
from onnx_upscale.optimizer.analyze.weights import BoolArray
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.plan.order import first_alike, perfect_order_of
from onnx_upscale.optimizer.plan.paths import membership, order_of
from onnx_upscale.optimizer.plan.strategy import Strategy


def arrange(structure: Structure, kept: Needs, segment: Segment, strategy: Strategy) -> IntArray:
    """Orders the channels of a segment.

    Args:
        structure: Labels and facts.
        kept: What is computed.
        segment: The segment.
        strategy: `auto` asks the PQ-tree, `upscale` the paper's paths; any other keeps the order
            of the model.

    Returns:
        All roots of the segment in their order.
    """
    there = kept.labels[segment.roots]
    original = segment.unchanged if np.count_nonzero(there) == len(there) else segment.original
    wanted = _reader_sets(kept, segment, there)
    ordered = strategy in (Strategy.AUTO, Strategy.UPSCALE) and not segment.in_grid
    if not ordered or not wanted:
        return segment.roots[original]
    staying = there[original]
    stay = original[staying]
    if len(wanted) == 1 and not segment.parts and strategy is Strategy.AUTO:
        order = first_alike(wanted[0][stay])  # As most segments are: no need for a tree.
    else:
        try:
            order = _ordered(segment, stay, np.array([each[stay] for each in wanted]), strategy)
        except ValueError:  # Parts that overlap without nesting: no order keeps each together.
            return segment.roots[original]
    arranged = np.concatenate([stay[order], original[~staying]])
    return _restore(structure, segment, segment.roots[arranged])


def _ordered(segment: Segment, stay: IntArray, wanted: BoolArray, strategy: Strategy) -> IntArray:
    """The order of what stays, as places in it; raises ValueError where parts forbid any."""
    number = np.full(len(segment.original), -1)
    number[stay] = np.arange(len(stay))
    parts = _parts(segment, number)
    if strategy is Strategy.UPSCALE:
        return _grouped(order_of(wanted), parts)
    sizes = np.count_nonzero(wanted, axis=1).tolist()
    return perfect_order_of(membership(len(stay), parts), wanted, sizes)[0]


def _reader_sets(kept: Needs, segment: Segment, there: BoolArray) -> list[BoolArray]:
    """What each reader needs of the segment, if it needs some but not all there is."""
    found: list[BoolArray] = []
    for read, places in zip(segment.readers, segment.reads, strict=True):
        needed = kept.reads[read.layer.node.index]
        if 0 < np.count_nonzero(needed) < np.count_nonzero(there[places]):
            chosen = np.zeros(len(there), bool)
            chosen[places[needed]] = True
            found.append(chosen)
    return found


def _parts(segment: Segment, number: IntArray) -> list[IntArray]:
    """The parts of Concats, each of which must stay together."""
    there = [own[own >= 0] for own in (number[places] for places in segment.parts)]
    return list({own.tobytes(): own for own in there if len(own) > 1}.values())


def _grouped(order: IntArray, parts: Sequence[IntArray]) -> IntArray:
    """An order in which parts stay together and in place, and follow `order` inside."""
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    keys = [rank]
    for part in sorted(parts, key=len):
        first = np.arange(len(order))
        first[part] = part.min()
        keys.append(first)
    return np.lexsort(keys)


def _restore(structure: Structure, segment: Segment, order: IntArray) -> IntArray:
    """Puts axes whose order matters back in it, in the places that their channels hold."""
    for demand in segment.demands:
        if demand.ordered:
            own = structure.roots[demand.labels]
            places = np.flatnonzero(np.isin(order, own))
            if len(places) == len(own):
                order = order.copy()
                order[places] = own
    return order
