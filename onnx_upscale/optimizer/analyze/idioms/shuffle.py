"""A channel shuffle: channels are split into a grid, its axes change places, and are merged again.

To the channels that is a permutation. Those of the result have an order of their own, so that
whatever takes a part of them is free to lose any; where channels leave, one Gather does the whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from onnx_upscale.optimizer.analyze.context import Context
from onnx_upscale.optimizer.analyze.idioms.packing import split_axis
from onnx_upscale.optimizer.analyze.idioms.transposition import only_source
from onnx_upscale.optimizer.analyze.rewrites import Editor, Positions, Taken, changed
from onnx_upscale.optimizer.load.graph import Graph, IntArray, Node


@dataclass(frozen=True)
class Shuffle:
    """Three nodes that put the channels of one axis into another order.

    Attributes:
        first: The Reshape that splits the axis.
        between: The Transpose.
        last: The Reshape that makes the result.
        axis: The axis.
        order: Per place of the result, which channel it holds.
    """

    first: Node
    between: Node
    last: Node
    axis: int
    order: IntArray

    def __call__(self, node: Context) -> None:
        """The same channels, each in another place; all other axes pass."""
        source = dict(node.axes_of(self.first.inputs[0]))
        channels = source.pop(self.axis, None)
        made: IntArray | None = None
        for axis, labels in source.items():
            node.move(axis, labels)
        if channels is not None:
            made = node.make(self.axis, len(channels))
            node.grid(channels[self.order], [made], splits=True, ordered=False)
        beside = list(source.values())
        node.rewrite(partial(self._fit, channels, made, beside))

    def _fit(
        self,
        channels: IntArray | None,
        made: IntArray | None,
        beside: list[IntArray],
        editor: Editor,
        positions: Positions,
    ) -> None:
        axes = [each for each in (channels, made, *beside) if each is not None]
        if not any(changed(labels, positions) for labels in axes):
            return
        every = np.arange(len(self.order))
        kept, left = (every if own is None else positions(own) for own in (channels, made))
        place = np.full(len(every), -1, np.int64)
        place[kept] = np.arange(len(kept))
        picks = place[self.order[left]]
        if np.array_equal(picks, np.arange(len(kept))):
            editor.read_as(self.first, 0)
            editor.bypass()  # Of a graph output nothing leaves, so that a Reshape may stay.
        else:
            editor.replace_by(self.first, [Taken(self.axis, picks)])


def find_shuffles(graph: Graph) -> Iterator[Shuffle]:
    """Finds them.

    Args:
        graph: The graph.

    Yields:
        Those of which nobody else reads what lies between.
    """
    for last in graph.nodes:
        if last.op != "Reshape" or last.domain:
            continue
        between = only_source(graph, last, "Transpose")
        first = between and only_source(graph, between, "Reshape")
        if between is None or first is None:
            continue
        result = last.outputs[0]
        shapes = (
            graph.shapes.get(name, ()) for name in (first.inputs[0], first.outputs[0], result)
        )
        before, parted, after = shapes
        axis = split_axis(before, parted, least=2)
        if axis is None or before != after:
            continue
        wide = len(parted) - len(before) + 1
        turned = between.attributes.get("perm", list(reversed(range(len(parted)))))
        inner = turned[axis : axis + wide]
        others = [each for each in turned if each not in inner]
        if sorted(inner) == list(range(axis, axis + wide)) and others == sorted(others):
            grid = [int(size or 1) for size in parted[axis : axis + wide]]
            places = np.arange(math.prod(grid)).reshape(grid)
            order = places.transpose([each - axis for each in inner]).ravel()
            yield Shuffle(first, between, last, axis, order)
