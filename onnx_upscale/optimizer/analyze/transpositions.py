"""Transpositions of the last two axes that are written as Reshape, Transpose and Reshape.

Exporters of attention write the keys so, as they once had to for want of a product of batches. The
Reshapes merge the batch, whose size may be unknown, with the heads, and part them again; so no
label would get through, though every channel stays what it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnx_upscale.optimizer.analyze.facts import Axes, Facts
from onnx_upscale.optimizer.analyze.rewrites import Editor, Positions
from onnx_upscale.optimizer.analyze.sizes import Size, Sizes
from onnx_upscale.optimizer.load.graph import Graph, Node


@dataclass(frozen=True)
class Transposition:
    """Three nodes that transpose the last two axes of a tensor.

    Attributes:
        first: The Reshape that reads it.
        between: The Transpose.
        last: The Reshape that makes the result.
        rank: The rank of both.
    """

    first: Node
    between: Node
    last: Node
    rank: int

    @property
    def order(self) -> tuple[int, ...]:
        """The order of axes, as for a Transpose."""
        return (*range(self.rank - 2), self.rank - 1, self.rank - 2)

    def facts(self, axes: Mapping[str, Axes]) -> Facts:
        """What is known of the last node; what lies between has no axes that are known."""
        source = axes.get(self.first.inputs[0], {})
        moved = {place: source[axis] for place, axis in enumerate(self.order) if axis in source}
        return Facts(self.last, {}, {0: moved}, rewrites=(_Transpose(self, moved),))


@dataclass(frozen=True)
class _Transpose:
    """Where channels leave, a Transpose takes the place of all three."""

    transposition: Transposition
    axes: Axes

    def __call__(self, editor: Editor, positions: Positions) -> None:
        """Replaces them."""
        if any(
            not np.array_equal(positions(labels), np.arange(len(labels)))
            for labels in self.axes.values()
        ):
            found = self.transposition
            editor.replace_by_transpose(found.first, found.order)


def find_transpositions(graph: Graph, sizes: Mapping[str, Sizes]) -> tuple[Transposition, ...]:
    """Finds them.

    Args:
        graph: The graph.
        sizes: Which sizes the entries of shape vectors are.

    Returns:
        Those whose shapes are certainly those of the transposed tensor, and of which nobody else
        reads what lies between.
    """
    found = (_transposition(graph, sizes, node) for node in graph.nodes if node.op == "Reshape")
    return tuple(each for each in found if each is not None)


def _transposition(graph: Graph, sizes: Mapping[str, Sizes], last: Node) -> Transposition | None:
    between = _only_source(graph, last, "Transpose")
    first = between and _only_source(graph, between, "Reshape")
    if between is None or first is None or between.attributes.get("perm") not in ([0, 2, 1],):
        return None
    source = first.inputs[0]
    rank = len(graph.shapes.get(source, ()))
    if rank < 3:
        return None
    merged = _shape(graph, sizes, first, source)
    parted = _shape(graph, sizes, last, source)
    *batch, rows, columns = range(rank)
    if len(merged) != 3 or merged[1:] != (rows, columns) or parted != (*batch, columns, rows):
        return None
    return Transposition(first, between, last, rank)


def _only_source(graph: Graph, node: Node, op: str) -> Node | None:
    """The node that makes a node's first input, if it is of a kind and nobody else reads that."""
    name = node.inputs[0]
    made = graph.producers.get(name)
    alone = len(graph.readers.get(name, ())) == 1
    if made is None or made.op != op or not alone or name in graph.outputs | graph.captured.keys():
        return None
    return made


def _shape(
    graph: Graph, sizes: Mapping[str, Sizes], reshape: Node, source: str
) -> tuple[int | None, ...]:
    """Per entry of a Reshape's shape, which axis of the source it is the size of, or None."""
    entries = sizes.get(reshape.input(1), ())
    return tuple(
        entry.axis if isinstance(entry, Size) and entry.tensor == source else None
        for entry in entries
    )
