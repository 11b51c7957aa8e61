"""Families: the channels of a segment that the same layers make and read, as units to remove."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_upscale.criteria.left_alone import computes
from onnx_upscale.grain import Grain
from onnx_upscale.optimizer.analyze import Segment, Structure
from onnx_upscale.optimizer.analyze.facts import Read
from onnx_upscale.optimizer.load.graph import Graph, IntArray
from onnx_upscale.optimizer.load.layers import Layer


@dataclass(frozen=True)
class Party:
    """A reader or a writer of a family.

    Attributes:
        layer: The layer.
        times: How many of its channels each unit stands for.
    """

    layer: Layer
    times: int


@dataclass(frozen=True)
class Family:
    """Channels that the same layers make and read. A unit is a root: what is coupled leaves as one.

    Attributes:
        id: Number of the family.
        segment: Number of its segment.
        roots: The units, ascending.
        readers: The layers that read them.
        writers: The ungrouped layers that make them.
        stretch: How many channels of a tensor a unit stands for at most.
        grain: The largest grain of a layer that has to do with it.
    """

    id: int
    segment: int
    roots: IntArray
    readers: tuple[Party, ...]
    writers: tuple[Party, ...]
    stretch: int
    grain: Grain

    @property
    def units(self) -> int:
        """How many units there are."""
        return len(self.roots)


def find_families(
    structure: Structure, left_alone: Collection[int] = (), named: Collection[int] = ()
) -> tuple[Family, ...]:
    """Finds the channels that can leave.

    These stay: channels of the model's inputs, which have no labels; those that a node or an output
    needs whole; those that a layer reads which is left alone, or whose weight is arithmetic (equal
    steps) and was not learned, or is a batch of matrices, or is recurrent, or lies inside an
    attention, or which reads some channels more often than others; hidden units, which read each
    other.

    Args:
        structure: The structure of the model.
        left_alone: Layers, by node index, that keep what they read.
        named: Those that somebody asked for: they do not, even if they are arithmetic.

    Returns:
        Families in the order of the model.
    """
    roots, graph = structure.roots, structure.graph
    stay = structure.demanded.copy()
    for facts in structure.facts:
        read = facts.read
        if read is not None and (
            facts.node.index in left_alone
            or (facts.node.index not in named and computes(graph, read.layer))
            or _stays(graph, read, roots[read.inputs])
        ):
            stay[roots[read.inputs]] = True
        if facts.recurrence is not None:  # No mask of those who read a unit frees it of the others.
            stay[roots[facts.recurrence.inputs]] = True
    found: list[Family] = []
    for segment in structure.segments:
        found += _families(structure, segment, stay, len(found))
    return tuple(found)


def _stays(graph: Graph, read: Read, inputs: IntArray) -> bool:
    layer = read.layer
    weight = graph.value(layer.node, layer.weight_slot)
    if weight is None or weight.dtype.kind != "f" or (layer.product and layer.window > 1):
        return True
    if layer.recurrence is not None or layer.is_inside:
        return True  # What its errors do is not seen in what its node makes.
    counts = np.bincount(inputs)
    return len(np.unique(counts[counts > 0])) != 1


def _families(
    structure: Structure, segment: Segment, stay: npt.NDArray[np.bool_], start: int
) -> list[Family]:
    roots = structure.roots
    writes = [writer.write for writer in segment.writers]
    layers = [read.layer for read in segment.readers]
    axes = [read.inputs for read in segment.readers]
    layers += [write.layer for write in writes if write.layer is not None]
    axes += [write.outputs for write in writes if write.layer is not None]
    free = segment.roots[~stay[segment.roots]]
    if not axes or not len(free):
        return []
    counts = np.stack([np.bincount(roots[labels], minlength=len(roots))[free] for labels in axes])
    kinds, kind_of = np.unique(counts, axis=1, return_inverse=True)
    found: list[Family] = []
    for kind in np.argsort(np.unique(kind_of.ravel(), return_index=True)[1]).tolist():
        times, own = kinds[:, kind].tolist(), free[kind_of.ravel() == kind]
        parties = [Party(*each) for each in zip(layers, times, strict=True) if each[1]]
        split = sum(count > 0 for count in times[: len(segment.readers)])
        readers, writers = parties[:split], parties[split:]
        if readers and len(own) > 1:
            found.append(
                Family(
                    start + len(found),
                    segment.id,
                    own,
                    tuple(readers),
                    tuple(party for party in writers if party.layer.groups == 1),
                    max(party.times for party in parties),
                    max(party.layer.grain for party in parties),
                )
            )
    return found
