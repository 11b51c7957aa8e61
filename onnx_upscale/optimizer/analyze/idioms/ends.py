"""What one recurrent layer ends as, taken from what all layers of a stack end as.

Exporters lay what the layers end as one behind another, and most models take that of the last one
out again. The Concat would have all layers agree on their units, which nothing else does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from onnx_upscale.optimizer.analyze.context import Context
from onnx_upscale.optimizer.analyze.rewrites import Editor, Positions, changed
from onnx_upscale.optimizer.load.graph import Graph, IntArray, Node

_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})


@dataclass(frozen=True)
class End:
    """What one layer ends as in one direction.

    Attributes:
        concat: The Concat of what all layers end as.
        last: The Gather that takes it.
        part: Which input of the Concat holds it.
        place: Its place in that, in the shape of the index of the Gather.
    """

    concat: Node
    last: Node
    part: int
    place: IntArray

    def __call__(self, node: Context) -> None:
        """Takes a place of one part."""
        sources = [node.axes_of(name) for name in self.concat.inputs]
        for axis, labels in sources[self.part].items():
            node.move(axis + self.place.ndim - 1, labels)
        every = tuple(labels for axes in sources for labels in axes.values())
        node.rewrite(partial(self._fit, every))

    def _fit(self, axes: tuple[IntArray, ...], editor: Editor, positions: Positions) -> None:
        if any(changed(labels, positions) for labels in axes):
            editor.read_as(self.concat, self.part)
            editor.set_integers(1, f"{editor.node.outputs[0]}.index", self.place)


def find_ends(graph: Graph) -> Iterator[End]:
    """Finds them.

    Args:
        graph: The graph.

    Yields:
        Those of Concats of which nobody reads more than single places.
    """
    for concat in graph.nodes:
        made = concat.outputs[0]
        if (
            concat.op != "Concat"
            or concat.domain
            or made in graph.outputs
            or made in graph.captured
        ):
            continue
        if concat.attributes.get("axis") != 0 or not all(_is_end(graph, n) for n in concat.inputs):
            continue
        sizes = [graph.shapes[name][0] for name in concat.inputs]
        readers = [graph.nodes[index] for index, _ in graph.readers.get(made, ())]
        found = [_end(graph, concat, node, sizes) for node in readers]
        ends = [end for end in found if end is not None]
        if len(ends) == len(found):
            yield from ends


def _is_end(graph: Graph, tensor: str) -> bool:
    """Whether a tensor is what a recurrent layer ends as, with directions on its first axis."""
    maker = graph.producers.get(tensor)
    if maker is None or maker.domain or maker.op not in _RECURRENT:
        return False
    known = graph.shapes.get(tensor, ())
    first = not maker.attributes.get("layout", 0) and bool(known) and isinstance(known[0], int)
    return tensor in maker.outputs[1:] and first


def _end(graph: Graph, concat: Node, node: Node, sizes: list[int | str | None]) -> End | None:
    index = graph.value(node, 1)
    if node.op != "Gather" or node.domain or node.attributes.get("axis", 0) != 0:
        return None
    if node.inputs[0] != concat.outputs[0] or index is None or index.size != 1 or index.ndim > 1:
        return None
    starts = np.cumsum([0, *(size for size in sizes if isinstance(size, int))])
    at = int(index.item()) % int(starts[-1])
    part = int(np.searchsorted(starts, at, side="right")) - 1
    return End(concat, node, part, np.asarray(at - starts[part]).reshape(index.shape))
