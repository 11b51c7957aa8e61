"""The different sets of channels that the axes of a graph hold, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_upscale.optimizer.analyze.facts import Axes, Facts
from onnx_upscale.optimizer.analyze.labels import distinct
from onnx_upscale.optimizer.load.graph import IntArray

# Besides Concat: what runs in the blocked layout, but on whole blocks only.
_POOLS = frozenset({"MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"})


@dataclass(frozen=True)
class ChannelSet:
    """The channels of some axis.

    Attributes:
        places: Their places among the roots of the segment, ascending.
        times: How many channels of a tensor each root stands for: a root of a grouped convolution
            is a whole group.
        in_blocks: Whether a Concat or a pooling takes such an axis.
    """

    places: IntArray
    times: int
    in_blocks: bool


def channel_sets(
    members: IntArray,
    axes: Sequence[IntArray],
    times: Mapping[bytes, int],
    in_blocks: frozenset[bytes],
) -> tuple[ChannelSet, ...]:
    """The different sets of some axes.

    Args:
        members: The roots of the segment, ascending.
        axes: The roots of each axis.
        times: What `roots_stand_for` found.
        in_blocks: What `sets_in_blocks` found.

    Returns:
        The sets, smallest first.
    """
    sets = {roots.tobytes(): roots for roots in map(distinct, axes)}
    return tuple(
        ChannelSet(np.searchsorted(members, roots), times.get(key, 1), key in in_blocks)
        for key, roots in sorted(sets.items(), key=lambda item: len(item[1]))
    )


def sets_in_blocks(roots: IntArray, all_facts: Sequence[Facts]) -> frozenset[bytes]:
    """The sets, as bytes of their roots, that a Concat or a pooling takes."""
    axes: list[IntArray] = []
    for facts in all_facts:
        if facts.concatenation is not None:
            axes += facts.concatenation.parts
        if facts.node.op in _POOLS and 1 in facts.inputs.get(0, {}):
            axes.append(facts.inputs[0][1])
    return frozenset(distinct(roots[axis]).tobytes() for axis in axes)


def roots_stand_for(
    roots: IntArray, axes_of: Mapping[str, Axes], all_facts: Sequence[Facts]
) -> Mapping[bytes, int]:
    """How many channels each root of a set stands for, where that may be more than one.

    Layers say it, where there are some: between them groups may stand on an axis of their own.
    """
    tied = np.zeros(len(roots), bool)
    for tie in (tie for facts in all_facts for tie in facts.ties):
        tied[roots[tie.part]] = True
    for grid in (grid for facts in all_facts if facts.grouped for grid in facts.grids):
        tied[roots[grid.factors[0]]] = True
    all_axes = [labels for axes in axes_of.values() for labels in axes.values()]
    layers = [each for facts in all_facts for each in (facts.read, facts.write) if each is not None]
    sides = [side for each in layers for side in (each.inputs, each.outputs) if side is not None]

    def smallest(axes: Iterable[IntArray]) -> dict[bytes, int]:
        times: dict[bytes, int] = {}
        for labels in axes:
            if not len(labels) or not tied[roots[labels[0]]]:
                continue  # Elsewhere every root is one channel.
            own = distinct(roots[labels])
            count = len(labels) // len(own)
            times[own.tobytes()] = min(times.get(own.tobytes(), count), count)
        return times

    return {**smallest(all_axes), **smallest(sides)}
