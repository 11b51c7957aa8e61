"""Approaches: the nodes before a reader that work for it alone, channel by channel.

What such nodes do is the same whether channels are chosen before or behind them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_upscale.optimizer.analyze.facts import Axes, Facts, Read, Write, same_axis
from onnx_upscale.optimizer.load.graph import Graph, IntArray, Node

_NEGATIVE_AXES_SINCE = 11


@dataclass(frozen=True)
class Edge:
    """An input of a node, and the axis of it that holds the channels."""

    node: Node
    slot: int
    axis: int


@dataclass(frozen=True)
class Approach:
    """The nodes between a reader and a tensor that others may read as well.

    Attributes:
        nodes: The nodes, in order; each makes one tensor, and nothing but these and the reader
            reads it.
        operands: Per node, how many tensors it reads that are not constant.
        places: Per node, how many positions its result has per channel.
        source: The tensor that they take their channels from.
        edges: Where they read it.
        writers: The layers that make what else they read for them alone: one value per channel, as
            the gates of squeeze-and-excite.
        axes: The bytes of the labels of every axis with these channels that nodes and writers make.
        concatenation: The Concat of channels (axis 1) that makes the source for them alone, if
            other Concats read some of the same tensors.
        fresh: The share of the source that falls to that Concat alone: of a tensor that n Concats
            read, the nth part.
    """

    nodes: tuple[Node, ...]
    operands: tuple[int, ...]
    places: tuple[int, ...]
    source: str
    edges: tuple[Edge, ...]
    writers: tuple[Write, ...]
    axes: tuple[bytes, ...]
    concatenation: Node | None
    fresh: float


def find_approaches(
    graph: Graph, facts: Sequence[Facts], axes: Mapping[str, Axes], roots: IntArray
) -> Mapping[int, Approach]:
    """Finds what stands before the readers of a graph.

    Args:
        graph: The graph.
        facts: What is known of each node.
        axes: The labelled axes of every tensor.
        roots: Per label its root.

    Returns:
        By node index, for readers before which there is a node that works for them alone.
    """
    walk = _Walk(graph, facts, axes, roots)
    found = {each.read.layer.node.index: walk.before(each.read) for each in facts if each.read}
    return {index: approach for index, approach in found.items() if approach is not None}


class _Walk:
    """Walks from readers against the direction of the graph."""

    def __init__(
        self, graph: Graph, facts: Sequence[Facts], axes: Mapping[str, Axes], roots: IntArray
    ) -> None:
        self._graph, self._facts, self._axes, self._roots = graph, facts, axes, roots
        self._fixed = graph.outputs | set(graph.captured)

    def before(self, read: Read) -> Approach | None:
        """The approach of a reader: the longest one that reads a single tensor of others."""
        layer = read.layer
        start = Edge(layer.node, layer.data_slot, layer.data_axis)
        # Tensors that are still to be looked at, with the edges that read them. Makers come from
        # the last to the first, so that all who read a tensor are known when it is looked at.
        ahead: dict[str, list[Edge]] = {layer.node.inputs[layer.data_slot]: [start]}
        nodes, writers, axes = list[Facts](), list[Write](), list[bytes]()
        shared: dict[str, list[Edge]] = {}
        found: tuple[int, int, str, list[Edge]] | None = None
        size = math.prod(self._sizes(layer.node.inputs[layer.data_slot]))
        while ahead:
            tensor = max(ahead, key=self._made_at)
            edges = ahead.pop(tensor)
            labels = self._labels(tensor, edges)
            maker = self._graph.producers.get(tensor)
            made = None if maker is None else self._facts[maker.index]
            if labels is None or made is None or not self._alone(tensor, edges):
                shared[tensor] = edges
            elif self._writes(made, labels) and math.prod(self._sizes(tensor)) < size:
                assert made.write is not None
                writers.append(made.write)
                axes.append(labels.tobytes())
            elif (inputs := self._passes(made, labels)) is not None:
                nodes.append(made)
                axes.append(labels.tobytes())
                for edge in inputs:
                    ahead.setdefault(made.node.inputs[edge.slot], []).append(edge)
            else:
                shared[tensor] = edges
            if len(shared) > 1:
                break
            open_edges = {**shared, **ahead}
            if nodes and len(open_edges) == 1:
                source, own = next(iter(open_edges.items()))
                found = len(nodes), len(writers), source, list(own)
        if found is None:
            return None
        count, absorbed, source, own = found
        maker = self._graph.producers.get(source)
        if maker is not None and self._facts[maker.index].write and self._alone(source, own):
            return None  # A layer takes over what follows it, as long as nothing is in between.
        return self._approach(
            [each.node for each in reversed(nodes[:count])],
            source,
            own,
            tuple(writers[:absorbed]),
            tuple(axes[: count + absorbed]),
        )

    def _approach(
        self,
        nodes: list[Node],
        source: str,
        edges: list[Edge],
        writers: tuple[Write, ...],
        axes: tuple[bytes, ...],
    ) -> Approach:
        constants = self._graph.constants
        operands = tuple(sum(name not in constants for name in node.inputs) for node in nodes)
        places = tuple(self._places(node.outputs[0], edges[0].axis) for node in nodes)
        maker = self._graph.producers.get(source)
        concatenation, fresh = None, 1.0
        if maker is not None and maker.op == "Concat" and self._alone(source, edges):
            fresh = self._fresh(maker)
            shared = fresh < 1 and int(maker.attributes["axis"]) == edges[0].axis == 1
            # It leaves the blocked layout by an axis that is counted from the end.
            counts_from_end = self._graph.opset >= _NEGATIVE_AXES_SINCE
            concatenation = maker if shared and counts_from_end else None
        return Approach(
            tuple(nodes), operands, places, source, tuple(edges), writers, axes,
            concatenation, fresh,
        )  # fmt: skip

    def _fresh(self, concat: Node) -> float:
        sizes = [self._size(name, int(concat.attributes.get("axis", 1))) for name in concat.inputs]
        readers = self._graph.readers
        uses = [
            sum(self._graph.nodes[index].op == "Concat" for index, _ in readers[name])
            for name in concat.inputs
        ]
        shares = (size / count for size, count in zip(sizes, uses, strict=True))
        return math.fsum(shares) / max(sum(sizes), 1)

    def _made_at(self, tensor: str) -> int:
        maker = self._graph.producers.get(tensor)
        return -1 if maker is None else maker.index

    def _labels(self, tensor: str, edges: Sequence[Edge]) -> IntArray | None:
        """The channels that edges read, if all of them read the same axis."""
        axes = {edge.axis for edge in edges}
        return self._axes.get(tensor, {}).get(axes.pop()) if len(axes) == 1 else None

    def _alone(self, tensor: str, edges: Sequence[Edge]) -> bool:
        """Whether nobody but these edges reads a tensor."""
        return tensor not in self._fixed and len(self._graph.readers[tensor]) == len(edges)

    def _writes(self, facts: Facts, labels: IntArray) -> bool:
        """Whether a layer makes an axis that may as well be shorter."""
        write = facts.write
        return (
            write is not None
            and write.layer is not None
            and write.layer.groups == 1
            and same_axis(write.outputs, labels)
            and not facts.ties
        )

    def _passes(self, facts: Facts, labels: IntArray) -> list[Edge] | None:
        """Where a node reads the channels of an axis that it makes, each from itself alone."""
        tells = (facts.read, facts.write, facts.concatenation, facts.group_labels)
        if any(each is not None for each in tells):
            return None
        if facts.demands or facts.rewrites or facts.grids:
            return None
        # Pooling takes another kernel in another layout: a copy before it costs more than itself.
        if "kernel_shape" in facts.node.attributes:
            return None
        if set(facts.outputs) != {0} or any(facts.node.outputs[1:]):
            return None
        if any(tie.outer != 1 or tie.inner != 1 for tie in facts.ties):
            return None
        own, constants = self._roots[labels], self._graph.constants
        for param in facts.params:
            strange = param.labels is not labels and not same_axis(param.labels, labels)
            if strange and np.array_equal(self._roots[param.labels], own):
                return None
        edges = []
        for slot, axes in facts.inputs.items():
            same = [axis for axis, each in axes.items() if np.array_equal(self._roots[each], own)]
            # A node that moves channels has the same axis on both sides: only one can be shorter.
            if len(same) > 1 or any(same_axis(axes[axis], labels) for axis in same):
                return None
            edges += [Edge(facts.node, slot, axis) for axis in same]
        # Anything else that is known at run time only may be a size that counts the channels.
        dynamic = sum(bool(name) and name not in constants for name in facts.node.inputs)
        if dynamic != len(edges):
            return None
        made = math.prod(self._sizes(facts.node.outputs[0]))
        larger = any(math.prod(self._sizes(facts.node.inputs[edge.slot])) > made for edge in edges)
        return None if larger else edges

    def _sizes(self, tensor: str) -> list[int]:
        return [max(size, 1) for size in self._graph.counted.get(tensor, ())]

    def _size(self, tensor: str, axis: int) -> int:
        sizes = self._sizes(tensor)
        return sizes[axis] if -len(sizes) <= axis < len(sizes) else 1

    def _places(self, tensor: str, axis: int) -> int:
        return math.prod(self._sizes(tensor)) // max(self._size(tensor, axis), 1)
