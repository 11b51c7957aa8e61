"""The order of nodes: each behind those that make what it reads.

Some converters write nodes in any order, for runtimes sort them. Nodes that are in order stay as
they are; otherwise a node moves only as far as in front of the first one that reads it.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from onnx_upscale.errors import ModelError
from onnx_upscale.optimizer.load.subgraphs import names_given, reads, subgraphs

_SHOWN = 4


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Puts the nodes of a graph, and of the graphs below, in an order in which they can run.

    Args:
        graph: The main graph of a model; it is changed in place, and only if it must be.

    Raises:
        ModelError: A node or a graph output reads what nothing makes, or nodes wait for each other.
    """
    _check(graph)
    _sort(graph)


def _check(graph: onnx.GraphProto) -> None:
    known = names_given(graph).union(*(node.output for node in graph.node))
    for node in graph.node:
        # What a subgraph of another domain may read without capturing it is not ours to know.
        missing = next((name for name in node.input if name not in known), None)
        if missing is not None:
            raise ModelError(
                f"node '{_called(node)}' ({node.op_type}) reads tensor '{missing}', which nothing "
                "makes: the model is broken"
            )
    lost = next((value.name for value in graph.output if value.name not in known), None)
    if lost is not None:
        raise ModelError(f"graph output '{lost}' is made by no node: the model is broken")


def _sort(graph: onnx.GraphProto) -> None:
    nodes = list(graph.node)
    makers: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in node.output:
            makers.setdefault(name, index)
    for name in names_given(graph):
        makers.pop(name, None)
    needs = [[makers[name] for name in reads(node) if name in makers] for node in nodes]
    order = _order(nodes, needs)
    if order != list(range(len(nodes))):
        del graph.node[:]
        graph.node.extend(nodes[index] for index in order)
    for node in graph.node:
        for below in subgraphs(node):
            _sort(below)


def _order(nodes: Sequence[onnx.NodeProto], needs: Sequence[Sequence[int]]) -> list[int]:
    """Depth first, from each node in turn: linear, and what is in order stays so."""
    order: list[int] = []
    begun, done = [False] * len(nodes), [False] * len(nodes)
    untried = [iter(each) for each in needs]
    for first in range(len(nodes)):
        path = [] if done[first] else [first]  # Each waits for the next one.
        while path:
            node = path[-1]
            begun[node] = True
            before = next((each for each in untried[node] if not done[each]), None)
            if before is None:
                done[node] = True
                order.append(path.pop())
            elif begun[before]:
                raise _cycle([nodes[index] for index in path[path.index(before) :]])
            else:
                path.append(before)
    return order


def _cycle(nodes: Sequence[onnx.NodeProto]) -> ModelError:
    shown = ", ".join(f"'{_called(node)}' ({node.op_type})" for node in nodes[:_SHOWN])
    more = f" and {len(nodes) - _SHOWN} more" if len(nodes) > _SHOWN else ""
    return ModelError(f"nodes {shown}{more} form a cycle, so none can run: the model is broken")


def _called(node: onnx.NodeProto) -> str:
    return node.name or next(filter(None, node.output), "without a name")
