"""Layers that are in a model and that no mask can act on, and why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import onnx

from onnx_upscale.optimizer.load.graph import Graph, Node
from onnx_upscale.optimizer.load.layers import LAYER_OPERATORS
from onnx_upscale.optimizer.load.packed import PRODUCT_OF_BITS
from onnx_upscale.optimizer.load.subgraphs import bodies_of, subgraphs
from onnx_upscale.words import some

_CONVERTS = ("Cast", "DequantizeLinear", "Identity", "Transpose")
_OVERRIDABLE = (
    "a caller may override {}: it is listed among the inputs of the model, which makes it no more "
    "than a default (IR version 4 and newer); take it out of the inputs"
)


def overridable_weight(graph: Graph, node: Node) -> str | None:
    """The weight that makes a node no layer, because a caller may override it."""
    operator = LAYER_OPERATORS.get((node.domain, node.op))
    for slot in operator.weight_slots if operator is not None else ():
        name = node.input(slot)
        while name in graph.producers and graph.producers[name].op in _CONVERTS:
            name = graph.producers[name].input(0)
        if name in graph.overridable:
            return name
    return None


def why_no_layer(graph: Graph, node: Node) -> str:
    """Why a node, whose operator could be one, is no layer."""
    weight = overridable_weight(graph, node)
    if weight is not None:
        return _OVERRIDABLE.format(f"weight '{weight}' of node '{node.title}' ({node.op})")
    if node.operator == PRODUCT_OF_BITS:
        return (
            f"node '{node.title}' ({node.op}) has inputs that only a run shows, a g_idx, or zero "
            "points that are no whole numbers, so that no number of its matrix stands for zero"
        )
    return (
        f"the weight of node '{node.title}' ({node.op}) is not constant, "
        "or the shapes it works on are not known"
    )


def why_no_layers(graph: Graph) -> str | None:
    """Why nothing in a model is a layer; None where weights that can be overridden do not do it."""
    for node in graph.nodes:
        weight = overridable_weight(graph, node)
        if weight is not None:
            return _OVERRIDABLE.format(f"its weights, as '{weight}'")
    return None


def why_not_found(graph: Graph, key: str) -> str | None:
    """Why a name that is in a model names no layer; None where it is not in it."""
    if key in graph.overridable:
        return _OVERRIDABLE.format("this weight")
    paths = sorted(set(_paths_inside((node.proto for node in graph.nodes), key)))
    if paths:
        return f"it is inside the body of a node, and called {some(paths)}"
    for node in graph.nodes:
        if key in set(_all_names([node.proto])):
            return f"it is inside node '{node.title}' ({node.op}), where no mask can act"
    own = re.compile(rf"{re.escape(key)}__\d+")  # As onnx names what it takes out of a function.
    names = [name for node in graph.nodes for name in (node.proto.name, *node.outputs)]
    inlined = sorted(set(filter(own.fullmatch, names)))
    if inlined:
        return f"functions are inlined, and there it is called {some(inlined)}"
    for function in graph.model.functions:
        if key in set(_all_names(function.node)):
            name = f"{function.domain}.{function.name}"
            return (
                f"it is inside function '{name}', where no mask can act, as it is written in "
                "another operator set than the model"
            )
    return None


def _paths_inside(nodes: Iterable[onnx.NodeProto], key: str) -> Iterator[str]:
    """What masks call the things of a name that are in the bodies of nodes."""
    for node in nodes:
        for attribute, body in bodies_of(node):
            path = f"{node.name or next(filter(None, node.output), '')}/{attribute}"
            if key in _names(body):
                yield f"{path}/{key}"
            yield from (f"{path}/{rest}" for rest in _paths_inside(body.node, key))


def _names(graph: onnx.GraphProto) -> set[str]:
    """What a key of a mask file could mean."""
    named = {name for node in graph.node for name in (node.name, *node.output)}
    return named.union(tensor.name for tensor in graph.initializer) - {""}


def _all_names(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    """The same, in subgraphs as well."""
    for node in nodes:
        yield from filter(None, (node.name, *node.output))
        for inner in subgraphs(node):
            yield from _names(inner)
            yield from _all_names(inner.node)
