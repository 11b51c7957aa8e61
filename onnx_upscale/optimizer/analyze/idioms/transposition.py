"""A transposition of the last two axes that is written as Reshape, Transpose and Reshape.

Exporters of attention write the keys' so, as they once had to for want of a product of batches. The
Reshapes merge the batch, whose size may be unknown, with the heads, and part them again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from onnx_upscale.optimizer.analyze.context import Context
from onnx_upscale.optimizer.analyze.rewrites import Editor, Positions, Transposed, changed
from onnx_upscale.optimizer.analyze.sizes import Size, Sizes
from onnx_upscale.optimizer.load.graph import Graph, IntArray, Node


@dataclass(frozen=True)
class Transposition:
    """Three nodes that transpose the last two axes of a tensor.

    Attributes:
        first: The Reshape that reads it.
        between: The Transpose.
        last: The Reshape that makes the result.
        order: The order of axes, as for a Transpose.
    """

    first: Node
    between: Node
    last: Node
    order: tuple[int, ...]

    def __call__(self, node: Context) -> None:
        """Axes change places."""
        source = node.axes_of(self.first.inputs[0])
        for place, axis in enumerate(self.order):
            if axis in source:
                node.move(place, source[axis])
        node.rewrite(partial(self._fit, tuple(source.values())))

    def _fit(self, axes: tuple[IntArray, ...], editor: Editor, positions: Positions) -> None:
        if any(changed(labels, positions) for labels in axes):
            editor.replace_by(self.first, [Transposed(self.order)])


def find_transpositions(graph: Graph, sizes: Mapping[str, Sizes]) -> Iterator[Transposition]:
    """Finds them.

    Args:
        graph: The graph.
        sizes: Which sizes the entries of shape vectors are.

    Yields:
        Those whose shapes are certainly those of the transposed tensor, and of which nobody else
        reads what lies between.
    """
    for last in graph.nodes:
        if last.op != "Reshape" or last.domain:
            continue
        between = only_source(graph, last, "Transpose")
        first = between and only_source(graph, between, "Reshape")
        if between is None or first is None or between.attributes.get("perm") != [0, 2, 1]:
            continue
        rank = len(graph.shapes.get(first.inputs[0], ()))
        if rank < 3:
            continue
        *batch, rows, columns = range(rank)
        order = (*batch, columns, rows)
        merged, parted = (_shape(sizes, node, first.inputs[0]) for node in (first, last))
        named = len(merged) == 3 and merged[1:] == (rows, columns) and parted == order
        if named or _merges_numbers(graph, first, last):
            yield Transposition(first, between, last, order)


def _merges_numbers(graph: Graph, first: Node, last: Node) -> bool:
    """Whether Reshapes to fixed sizes merge several axes before the last two, and part them again.

    Where no more than one of them is longer than one, the Reshapes mean the same by themselves.
    """
    names = (first.inputs[0], first.outputs[0], last.outputs[0])
    source, merged, parted = (graph.shapes.get(name) or () for name in names)
    *batch, rows, columns = source
    if not all(isinstance(size, int) for size in source) or sum(size != 1 for size in batch) < 2:
        return False
    whole = math.prod(size for size in batch if isinstance(size, int))
    return merged == (whole, rows, columns) and parted == (*batch, columns, rows)


def only_source(graph: Graph, node: Node, op: str) -> Node | None:
    """The node that makes a node's first input, if it is of a kind and nobody else reads that."""
    name = node.inputs[0]
    made = graph.producers.get(name)
    if made is None or made.op != op or made.domain or len(graph.readers[name]) > 1:
        return None
    return None if name in graph.outputs or name in graph.captured else made


def _shape(sizes: Mapping[str, Sizes], reshape: Node, source: str) -> tuple[int | None, ...]:
    """Per entry of a Reshape's shape, which axis of the source it is the size of, or None."""
    return tuple(
        entry.axis if isinstance(entry, Size) and entry.tensor == source else None
        for entry in sizes.get(reshape.input(1), ())
    )
