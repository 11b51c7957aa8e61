"""Queries, keys and values that one layer makes, and that are taken from an axis of their own.

The channels are split into kinds, heads, and channels of a head, in any order, the axes may change
places, and each kind is taken out: with Gather, with Split and Squeeze, or with Slice and Squeeze.
As one tensor all kinds have the same heads and channels; seen as three parts of the channels, each
goes its own way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from onnx_upscale.declared import Shape
from onnx_upscale.optimizer.analyze.context import Context
from onnx_upscale.optimizer.analyze.facts import How
from onnx_upscale.optimizer.analyze.rewrites import (
    Editor,
    Positions,
    Reshaped,
    Step,
    Taken,
    Transposed,
    changed,
)
from onnx_upscale.optimizer.load.graph import Graph, IntArray, Node


@dataclass(frozen=True)
class Part:
    """One kind.

    Attributes:
        first: The Reshape that splits the channels of all.
        last: The node that makes this kind.
        axis: The axis of all channels, in front of the Reshape.
        number: Which kind it is.
        sizes: How often all kinds follow each other, how many there are, and how many channels of
            one lie in a row.
        shape: The shape of a kind before axes change places.
        factors: Which of these axes its channels are split into.
        same: Whether the axes in front, and those behind, are what they were.
        order: The order of axes behind the Reshape, as for a Transpose.
    """

    first: Node
    last: Node
    axis: int
    number: int
    sizes: tuple[int, int, int]
    shape: Shape
    factors: tuple[int, ...]
    same: tuple[bool, bool]
    order: tuple[int, ...]

    def __call__(self, node: Context) -> None:
        """Takes a part of the channels, splits it, and lets axes change places."""
        source = node.axes_of(self.first.inputs[0])
        shift = self.factors[-1] - self.axis
        beside: dict[int, IntArray] = {}
        for axis, labels in source.items():
            behind = axis > self.axis
            if axis != self.axis and not self.same[behind]:
                node.pin_before(self.first.inputs[0], axis, "merged or split beside heads")
            elif axis != self.axis:
                beside[axis + shift if behind else axis] = labels
        for axis, labels in beside.items():
            node.move(self.order.index(axis), labels)
        channels = source.get(self.axis)
        factors = {} if channels is None else self._split(node, channels)
        node.rewrite(partial(self._fit, channels, {**beside, **factors}))

    def _split(self, node: Context, channels: IntArray) -> dict[int, IntArray]:
        """The channels of this kind, by the axes that they are split into."""
        own = channels.reshape(self.sizes)[:, self.number].ravel()
        several = [axis for axis in self.factors if self.shape[axis] != 1] or self.factors[-1:]
        if len(several) == 1:  # Those of a single head are the channels themselves, in their order.
            (axis,) = several
            return {axis: node.pass_on(self.order.index(axis), own, How.SAME)}
        factors = {
            axis: node.make(self.order.index(axis), int(self.shape[axis] or 1)) for axis in several
        }
        node.grid(own, list(factors.values()), splits=True)
        return factors

    def _fit(
        self,
        channels: IntArray | None,
        axes: dict[int, IntArray],
        editor: Editor,
        positions: Positions,
    ) -> None:
        """Takes this kind of the channels that are left, and splits it into axes as they are now.

        Args:
            channels: All channels, if that is what the axis holds.
            axes: Of those in `shape`, the ones that may lose channels.
            editor: Of the node that makes this kind.
            positions: What is left.
        """
        sources = [*axes.values()] if channels is None else [channels, *axes.values()]
        if not any(changed(labels, positions) for labels in sources):
            return
        kept = np.arange(math.prod(self.sizes)) if channels is None else positions(channels)
        _, kinds, in_a_row = self.sizes
        places = np.flatnonzero(kept // in_a_row % kinds == self.number)
        # Zero says that a size is the one at its place before, and -1 that all others tell it.
        sizes = [
            size if isinstance(size, int) else 0 if self.same[0] else -1 for size in self.shape
        ]
        for axis, labels in axes.items():
            sizes[axis] = len(positions(labels))
        steps: list[Step] = []
        if kinds > 1:
            steps.append(Taken(self.axis, places))
        if len(self.factors) > 1 or not all(self.same):
            steps.append(Reshaped(tuple(sizes)))
        if self.order != tuple(sorted(self.order)):
            steps.append(Transposed(self.order))
        if steps:
            editor.replace_by(self.first, steps)
        else:
            editor.read_as(self.first, 0)
            editor.bypass()  # Of a graph output nothing leaves.


@dataclass(frozen=True)
class Packing:
    """All kinds that are taken from a tensor.

    Attributes:
        parts: Those that are read.
        inside: The nodes between the Reshape and those that make the kinds, the Reshape included.
    """

    parts: tuple[Part, ...]
    inside: tuple[Node, ...]


def find_packings(graph: Graph) -> Iterator[Packing]:
    """Finds them.

    Args:
        graph: The graph.

    Yields:
        Those of which nobody reads anything else.
    """
    for first in graph.nodes:
        if first.op == "Reshape" and not first.domain:
            found = _packing(graph, first)
            if found is not None:
                yield found


def _packing(graph: Graph, first: Node) -> Packing | None:
    before, after = (graph.shapes.get(name, ()) for name in (first.inputs[0], first.outputs[0]))
    found = _split(before, after)
    if found is None:
        return None
    axis, start, wide = found
    moved = _moved(graph, first, len(after))
    if moved is None:
        return None
    inside, order, readers = moved
    for kinds in range(start, start + wide):
        taken = [_taken(graph, reader, order.index(kinds)) for reader in readers]
        if all(taken):
            break
    else:
        return None
    all_taken = [each for found in taken for each in found or ()]
    lasts = [node for _, node in all_taken]
    inside += [reader for reader in readers if reader not in lasts]
    rest = tuple(each - (each > kinds) for each in order if each != kinds)
    known = [int(size or 1) for size in after[start : start + wide]]
    at = kinds - start
    sizes = math.prod(known[:at]), known[at], math.prod(known[at + 1 :])
    shape = (*after[:kinds], *after[kinds + 1 :])
    factors = tuple(range(start, start + wide - 1))
    same = before[:axis] == after[:start], before[axis + 1 :] == after[start + wide :]
    if not same[0] and sum(not isinstance(size, int) for size in shape) > 1:
        return None
    parts = tuple(
        Part(first, last, axis, number, sizes, shape, factors, same, rest)
        for number, last in all_taken
    )
    return Packing(parts, tuple(inside))


def _moved(
    graph: Graph, first: Node, rank: int
) -> tuple[list[Node], tuple[int, ...], list[Node]] | None:
    """The nodes that move axes behind a Reshape, the order that they make, and who reads that.

    Axes of one may come in between, as long as they go again.
    """
    inside, order = [first], list[int | None](range(rank))
    while readers := readers_of(graph, inside[-1].outputs[0]):
        node = readers[0]
        if len(readers) > 1 or node.domain or node.op not in ("Transpose", "Unsqueeze", "Squeeze"):
            known = [axis for axis in order if axis is not None]
            return (inside, tuple(known), readers) if len(known) == len(order) == rank else None
        if node.op == "Transpose":
            perm = node.attributes.get("perm", range(len(order))[::-1])
            order = [order[axis] for axis in perm]
        elif node.op == "Unsqueeze":
            for axis in sorted(_named_axes(graph, node, len(order), added=True)):
                order.insert(axis, None)
        else:
            gone = _named_axes(graph, node, len(order))
            if not gone:  # All axes of one.
                return None
            order = [each for axis, each in enumerate(order) if axis not in gone]
        inside.append(node)
    return None


def _named_axes(graph: Graph, node: Node, rank: int, added: bool = False) -> list[int]:
    """The axes that a Squeeze or Unsqueeze names, counted from the start."""
    value = graph.value(node, 1)
    axes = node.attributes.get("axes", () if value is None else value.ravel().tolist())
    return [int(axis) % (rank + len(axes) * added) for axis in axes]


def _split(before: Shape, after: Shape) -> tuple[int, int, int] | None:
    """The axis that is split, the first of the axes it is split into, and how many there are.

    The axes around it may be split or merged as well, as those of windows and of images are.
    """
    axis = split_axis(before, after, least=2)
    if axis is not None:
        return axis, axis, len(after) - len(before) + 1
    for axis in reversed(range(len(before))):
        behind = _count(before[axis + 1 :])
        for end in reversed(range(3, len(after) + 1)):
            if not behind or _count(after[end:]) != behind:
                continue
            for start in reversed(range(end - 2)):
                if _count(after[start:end]) == before[axis]:
                    return axis, start, end - start
    return None


def _count(shape: Shape) -> int | None:
    """How many positions axes have, if their sizes are known."""
    known = [size for size in shape if isinstance(size, int)]
    return math.prod(known) if len(known) == len(shape) else None


def split_axis(before: Shape, after: Shape, least: int) -> int | None:
    """The axis that is split, with all others as they were; None without one.

    Args:
        before: The shape of a tensor.
        after: The shape that a Reshape gives it.
        least: In how many axes at least.
    """
    wide = len(after) - len(before) + 1
    if wide < least:
        return None
    for axis, size in enumerate(before):
        parts = after[axis : axis + wide]
        known = [each for each in parts if isinstance(each, int)]
        others_stay = before[:axis] == after[:axis] and before[axis + 1 :] == after[axis + wide :]
        ahead = all(each is not None for each in before[:axis])
        behind = all(isinstance(each, int) for each in before[axis + 1 :])
        if others_stay and ahead and behind and len(known) == wide and math.prod(known) == size:
            return axis
    return None


def readers_of(graph: Graph, name: str) -> list[Node] | None:
    """The nodes that read a tensor first; None if it is read in any other way."""
    uses = graph.readers.get(name, ())
    if name in graph.outputs or name in graph.captured or any(slot for _, slot in uses):
        return None
    return [graph.nodes[index] for index, _ in uses]


def _taken(graph: Graph, node: Node, axis: int) -> list[tuple[int, Node]] | None:
    """Which kinds a node takes from an axis, and the nodes that make them; None if it does not."""
    shape = graph.shapes.get(node.inputs[0], ())
    size = shape[axis] if axis < len(shape) else None
    if node.domain or not isinstance(size, int):
        return None
    along = node.attributes.get("axis", 0) % len(shape)
    if node.op == "Gather" and along == axis:
        index = graph.value(node, 1)
        return [(int(index) % size, node)] if index is not None and index.ndim == 0 else None
    if node.op == "Split" and along == axis and len(node.outputs) == size:
        starts = list(range(size))
    elif node.op == "Slice":
        starts = _single(graph, node, axis, size)
    else:
        return None
    squeezed = [_squeezed(graph, name, axis) for name in node.outputs]
    if not starts or not all(squeezed):
        return None
    return [(start, each) for start, each in zip(starts, squeezed, strict=True) if each is not None]


def _single(graph: Graph, node: Node, axis: int, size: int) -> list[int]:
    """The one place that a Slice takes, of this axis alone; empty if it takes anything else."""
    bounds = [graph.value(node, slot) for slot in (1, 2, 3)]
    if any(bound is None or bound.size != 1 for bound in bounds):
        return []
    start, end, along = (int(bound.item()) for bound in bounds if bound is not None)
    places = list(range(size))[start:end]
    rank = len(graph.shapes[node.inputs[0]])
    return places if along % rank == axis and len(places) == 1 else []


def _squeezed(graph: Graph, name: str, axis: int) -> Node | None:
    """The Squeeze of this axis that alone reads a tensor."""
    readers = readers_of(graph, name)
    if not readers or len(readers) > 1 or readers[0].op != "Squeeze" or readers[0].domain:
        return None
    rank = len(graph.shapes[name])
    return readers[0] if _named_axes(graph, readers[0], rank) == [axis] else None
