"""Where the entries of shape vectors come from: sizes read from tensors at run time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from onnx_upscale.optimizer.load.graph import Graph, Node

_LONGEST = 64


@dataclass(frozen=True)
class Size:
    """The size of one axis of one tensor."""

    tensor: str
    axis: int


Sizes = tuple[Size | None, ...]
"""Per entry of a vector: the axis it is the size of, or None for anything else."""


def _shape(graph: Graph, node: Node, known: Mapping[str, Sizes]) -> Sizes | None:
    shape = graph.shapes.get(node.inputs[0])
    if shape is None:
        return None
    axes = range(len(shape))[node.attributes.get("start", 0) : node.attributes.get("end", None)]
    return tuple(Size(node.inputs[0], axis) for axis in axes)


def _same(graph: Graph, node: Node, known: Mapping[str, Sizes]) -> Sizes | None:
    return known.get(node.inputs[0])


def _take(graph: Graph, node: Node, known: Mapping[str, Sizes]) -> Sizes | None:
    source, indices = known.get(node.inputs[0]), graph.value(node, 1)
    if source is None or indices is None or indices.ndim > 1:
        return None
    return tuple(source[index] for index in np.atleast_1d(indices))


def _range(graph: Graph, node: Node, known: Mapping[str, Sizes]) -> Sizes | None:
    source = known.get(node.inputs[0])
    bounds = [graph.value(node, slot) for slot in (1, 2)]
    if source is None or len(node.inputs) < 3 or any(bound is None for bound in bounds):
        return None
    steps = graph.value(node, 4)
    start, end = (int(bound.item()) for bound in bounds if bound is not None)
    return source[start : end : 1 if steps is None else int(steps.item())]


def _concat(graph: Graph, node: Node, known: Mapping[str, Sizes]) -> Sizes | None:
    parts: list[Size | None] = []
    for slot, name in enumerate(node.inputs):
        if name in known:
            parts += known[name]
            continue
        constant = graph.value(node, slot)
        shape = graph.shapes.get(name, ()) if constant is None else constant.shape
        if len(shape) != 1 or not isinstance(shape[0], int):
            return None
        parts += (None,) * shape[0]
    return tuple(parts)


# The operators of shape arithmetic that only move entries. Any other use of a size fixes it.
_RULES: dict[str, Callable[[Graph, Node, Mapping[str, Sizes]], Sizes | None]] = {
    "Shape": _shape,
    "Identity": _same,
    "Reshape": _same,
    "Cast": _same,
    "Squeeze": _same,
    "Unsqueeze": _same,
    "Gather": _take,
    "Slice": _range,
    "Concat": _concat,
}


def trace_sizes(graph: Graph) -> tuple[Mapping[str, Sizes], frozenset[int]]:
    """Follows the sizes that Shape nodes read through shape arithmetic.

    Args:
        graph: The graph.

    Returns:
        The sizes in each vector (or scalar) that holds some, by tensor name; and the nodes that
        did no more than move entries.
    """
    known: dict[str, Sizes] = {}
    movers: set[int] = set()
    for node in graph.nodes:
        if node.domain or node.op not in _RULES or not node.outputs:
            continue
        if node.op != "Shape" and not any(name in known for name in node.inputs):
            continue
        sizes = _RULES[node.op](graph, node, known)
        if sizes is not None and len(sizes) <= _LONGEST:
            known[node.outputs[0]] = sizes
            movers.add(node.index)
    return known, frozenset(movers)
