"""The order of a segment's channels, by strategy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnx_upscale.optimizer.analyze import Needs, Segment, Structure
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.plan.order import perfect_order
from onnx_upscale.optimizer.plan.paths import path_order
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
    original = segment.original
    wanted = _reader_sets(structure, kept, segment)
    if strategy not in (Strategy.AUTO, Strategy.UPSCALE) or not wanted:
        return original
    stay = original[kept.labels[original]]
    number = np.full(int(original.max()) + 1, -1, np.int64)
    number[stay] = np.arange(len(stay))
    readers = [number[roots] for roots in wanted]
    parts = _parts(structure, segment, number)
    if strategy is Strategy.UPSCALE:
        order = _grouped(path_order(len(stay), readers), parts)
    else:
        try:
            order, _ = perfect_order(len(stay), parts, readers, [float(len(r)) for r in readers])
        except ValueError:  # Parts that overlap without nesting: no order keeps each together.
            return original
    arranged = np.concatenate([stay[order], original[~kept.labels[original]]])
    return _restore(structure, segment, arranged)


def _reader_sets(structure: Structure, kept: Needs, segment: Segment) -> list[IntArray]:
    """The roots that each reader needs, for readers that need some but not all there are."""
    roots, found = structure.roots, []
    for read in segment.readers:
        needed = kept.reads[read.layer.node.index]
        there = kept.labels[read.inputs]
        if needed.any() and (there & ~needed).any():
            found.append(np.unique(roots[read.inputs[needed & there]]))
    return found


def _parts(structure: Structure, segment: Segment, number: IntArray) -> list[IntArray]:
    """The parts of Concats, each of which must stay together."""
    roots = structure.roots
    found: dict[bytes, IntArray] = {}
    for concatenation in segment.concatenations:
        for part in concatenation.parts:
            own = number[np.unique(roots[part])]
            own = own[own >= 0]
            if len(own) > 1:
                found.setdefault(own.tobytes(), own)
    return list(found.values())


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
