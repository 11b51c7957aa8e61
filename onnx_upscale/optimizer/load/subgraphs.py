"""Subgraphs of a node (If, Loop, Scan) and the names in them."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

_OWNERS = frozenset({"If", "Loop", "Scan"})
"""What other operators do with their subgraphs is not known here."""
_MAY_HOLD_GRAPHS = frozenset(
    {
        onnx.AttributeProto.UNDEFINED,  # Old files say nothing of types.
        onnx.AttributeProto.GRAPH,
        onnx.AttributeProto.GRAPHS,
    }
)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs among a node's attributes."""
    for attribute in node.attribute:
        if attribute.type not in _MAY_HOLD_GRAPHS:
            continue
        yield from attribute.graphs
        if attribute.HasField("g"):
            yield attribute.g


def bodies_of(node: onnx.NodeProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    """The bodies of an If, Loop or Scan, by the attribute that holds them; others have none."""
    if node.domain in ("", "ai.onnx") and node.op_type in _OWNERS:
        yield from ((each.name, each.g) for each in node.attribute if each.HasField("g"))


def names_read(graph: onnx.GraphProto) -> set[str]:
    """Every name read in a graph or below, wherever it is made."""
    names = {name for node in graph.node for name in node.input if name}
    names.update(value.name for value in graph.output)
    for node in graph.node:
        for inner in subgraphs(node):
            names |= names_read(inner)
    return names


def names_given(graph: onnx.GraphProto) -> set[str]:
    """The names that a graph has before any of its nodes runs; the empty one is always there."""
    names = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    return names | {tensor.values.name for tensor in graph.sparse_initializer} | {""}


def names_captured(graph: onnx.GraphProto) -> set[str]:
    """The names that a graph reads, or one below does, and that neither of them makes."""
    names = {value.name for value in graph.output}.union(*map(reads, graph.node))
    return names - names_given(graph) - {name for node in graph.node for name in node.output}


def reads(node: onnx.NodeProto) -> list[str]:
    """The names that must be there before a node runs, in a fixed order."""
    names = dict.fromkeys(node.input)
    for graph in subgraphs(node):
        names.update(dict.fromkeys(sorted(names_captured(graph))))
    return list(names)


def all_names(graph: onnx.GraphProto) -> set[str]:
    """Every name of a node or a tensor in a graph or below."""
    names = names_given(graph) | {value.name for value in graph.output}
    for node in graph.node:
        names.update((node.name, *node.input, *node.output))
        for inner in subgraphs(node):
            names |= all_names(inner)
    return names
