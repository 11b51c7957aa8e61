"""Heads that are merged with the batch as they are split off: `torch.nn.MultiheadAttention`.

A Reshape splits channels into heads and merges these with the axis in front, whose size may be
unknown; axes change places; another Reshape parts what was merged. All of it is one split of the
channels, behind which axes change places.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from onnx_upscale.declared import Shape
from onnx_upscale.optimizer.analyze.idioms.packing import Packing, Part, readers_of
from onnx_upscale.optimizer.load.graph import Graph, Node
from onnx_upscale.optimizer.load.polynomials import polynomial, product_of

Merged: TypeAlias = "list[list[int]]"
"""Per axis of a tensor, the axes that were merged into it, of the tensor with heads of its own."""


def find_partitions(graph: Graph) -> Iterator[Packing]:
    """Finds them.

    Args:
        graph: The graph.

    Yields:
        Those of which nobody reads what lies between.
    """
    for first in graph.nodes:
        if first.op == "Reshape" and not first.domain:
            found = _partition(graph, first)
            if found is not None:
                yield found


def _partition(graph: Graph, first: Node) -> Packing | None:
    before, after = (graph.shapes.get(name, ()) for name in (first.inputs[0], first.outputs[0]))
    axis = _split_and_merged(before, after)
    if axis is None:
        return None
    channels, width = before[axis], after[axis]
    assert isinstance(channels, int) and isinstance(width, int)
    parted = (*before[:axis], channels // width, width, *before[axis + 1 :])
    merged = [[place] for place in range(axis - 1)]
    merged += [[axis - 1, axis], *([place] for place in range(axis + 1, len(parted)))]
    inside = [first]
    while max(map(len, merged)) > 1:
        readers = readers_of(graph, inside[-1].outputs[0])
        if not readers or len(readers) > 1:
            return None
        moved = _behind(graph, readers[0], merged, parted)
        if moved is None:
            return None
        merged = moved
        inside.append(readers[0])
    order = tuple(place for (place,) in merged)
    part = Part(
        first, inside[-1], axis, 0, (1, 1, channels), parted, (axis, axis + 1), (True, True), order
    )
    return Packing((part,), tuple(inside[:-1]))


def _split_and_merged(before: Shape, after: Shape) -> int | None:
    """The axis that is split in two, of which the first part is merged with the axis in front."""
    if len(before) != len(after) or None in before:
        return None
    for axis in range(1, len(before)):
        channels, width, lead, merged = before[axis], after[axis], before[axis - 1], after[axis - 1]
        alike = before[: axis - 1] == after[: axis - 1] and before[axis + 1 :] == after[axis + 1 :]
        behind = all(isinstance(size, int) for size in before[axis + 1 :])
        if not alike or not behind or lead in (None, 1) or merged is None:
            continue
        if not isinstance(channels, int) or not isinstance(width, int) or channels % max(width, 1):
            continue
        if width < channels and product_of([lead, channels // width]) == polynomial(merged):
            return axis
    return None


def _behind(graph: Graph, node: Node, merged: Merged, parted: Shape) -> Merged | None:
    """What is merged behind a node that moves axes, or merges and parts them."""
    if node.domain:
        return None
    if node.op == "Transpose":
        return [merged[axis] for axis in node.attributes.get("perm", range(len(merged))[::-1])]
    if node.op != "Reshape":
        return None
    left = [each for axis in merged for each in axis]
    found: Merged = []
    for size in graph.shapes.get(node.outputs[0], ()):
        own: list[int] = []
        count = polynomial(1)
        while size is not None and count != polynomial(size) and left:
            own.append(left.pop(0))
            count = product_of([parted[each] or 0 for each in own])
        if not own or size is None or count != polynomial(size):
            return None
        found.append(own)
    return None if left else found
