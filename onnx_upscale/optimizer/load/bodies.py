"""The bodies of If, Loop and Scan, each as a model of its own.

A body reads what is around it. Constants come along with the nodes that make them, so that they are
folded, named and cut as any other; all else that it reads is an input. Nothing is said of its own
inputs and outputs but what it declares: they stay as they are, for what a loop carries and what two
branches make must agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import onnx

from onnx_upscale.optimizer.load.graph import Graph, Node, build_graph
from onnx_upscale.optimizer.load.layers import LAYER_OPERATORS
from onnx_upscale.optimizer.load.masking import LayerMask
from onnx_upscale.optimizer.load.subgraphs import bodies_of, names_captured, subgraphs
from onnx_upscale.protobuf import copy_fields

_INPUTS_OVERRIDE_SINCE = 4
_RANKED = ("Conv", "ConvTranspose", "Gemm")
"""Layers that read something of the rank of their weight."""

Place: TypeAlias = "tuple[tuple[int, str], ...]"
"""Where a body is: from the outside in, the index of a node in its graph, and its attribute."""


@dataclass(frozen=True)
class Body:
    """A body as a model of its own.

    Attributes:
        place: Where it is; that of the main graph is ().
        path: What masks call it: the titles of the nodes and their attributes, joined by slashes.
        own: It as it was read.
        graph: The model, as it is or seen through masks.
        lent: Names of constants in it that belong to the graphs around it.
        offset: How many nodes, ahead of its own, only make such constants.
        masks: The masks on its layers.
    """

    place: Place
    path: str
    own: onnx.GraphProto
    graph: Graph
    lent: frozenset[str]
    offset: int
    masks: tuple[LayerMask, ...] = ()


def find_bodies(graph: Graph, around: Body | None = None) -> Iterator[Body]:
    """The bodies in a graph that have layers, and those in them, each behind the one around it.

    Args:
        graph: The graph, without masks.
        around: The body that it is, or None for the main graph.
    """
    offset = 0 if around is None else around.offset
    for node in graph.nodes[offset:]:
        for attribute, own in bodies_of(node.proto):
            if _has_layers(own):
                step, path = (node.index - offset, attribute), f"{node.title}/{attribute}"
                place: Place = (step,)
                if around is not None:
                    place, path = (*around.place, step), f"{around.path}/{path}"
                body = _body(graph, own, place, path)
                yield body
                yield from find_bodies(body.graph, body)


def _has_layers(graph: onnx.GraphProto) -> bool:
    return any(
        (node.domain.removeprefix("ai.onnx"), node.op_type) in LAYER_OPERATORS
        or any(map(_has_layers, subgraphs(node)))
        for node in graph.node
    )


def _body(outer: Graph, own: onnx.GraphProto, place: Place, path: str) -> Body:
    captured = sorted(names_captured(own))
    known = [name for name in captured if name in outer.constants]
    nodes, stored = _constants_behind(outer, known)
    around = outer.model
    # Below this version, what is an initializer and an input would be one constant.
    version = max(around.ir_version, _INPUTS_OVERRIDE_SINCE)
    model = onnx.ModelProto(ir_version=version, opset_import=around.opset_import)
    model.functions.extend(around.functions)
    copy_fields(own, model.graph, leave={"node"})
    model.graph.node.extend(node.proto for node in nodes)
    model.graph.node.extend(own.node)
    model.graph.initializer.extend(t for t in around.graph.initializer if t.name in stored)
    _declare_ranks(model.graph, own)
    given = (name for name in captured if name not in outer.constants)
    model.graph.input.extend(_as_input(outer, name) for name in given)
    lent = stored.union(*(node.outputs for node in nodes)) - {""}
    # A run of a body alone, on inputs that no caller gives it, would be no witness.
    graph = build_graph(model, runs=False)
    return Body(place, path, own, graph, frozenset(lent), len(nodes))


def _declare_ranks(graph: onnx.GraphProto, own: onnx.GraphProto) -> None:
    """Gives inputs without a shape the rank without which a layer that reads them would not run."""
    ranks = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    read = {
        node.input[0]: ranks[node.input[1]]
        for node in own.node
        if node.op_type in _RANKED and not node.domain and node.input[1] in ranks
    }
    for value in graph.input:
        kind = value.type.tensor_type
        if kind.elem_type and not kind.HasField("shape"):
            for _ in range(read.get(value.name, 0)):
                kind.shape.dim.add()


def _constants_behind(outer: Graph, names: Iterable[str]) -> tuple[list[Node], set[str]]:
    """The nodes that make constants, in order, and the initializers that these come from."""
    nodes: dict[int, Node] = {}
    stored: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if outer.constants.is_initializer(name):
            stored.add(name)
        elif name and outer.producers[name].index not in nodes:
            node = outer.producers[name]
            nodes[node.index] = node
            pending += node.inputs
    return [nodes[index] for index in sorted(nodes)], stored


def _as_input(outer: Graph, name: str) -> onnx.ValueInfoProto:
    """A captured tensor as an input: sizes with names stay open, for a body has its own names."""
    value, kind = onnx.ValueInfoProto(name=name), outer.types.get(name)
    if kind:
        value.type.tensor_type.elem_type = kind
        shape = outer.shapes.get(name)
        if shape is not None:
            value.type.tensor_type.shape.SetInParent()
            for size in shape:
                dim = value.type.tensor_type.shape.dim.add()
                if isinstance(size, int):
                    dim.dim_value = size
    return value
