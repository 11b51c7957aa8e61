"""The graphs of a model: the main one, and the bodies of If, Loop and Scan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx


@dataclass(frozen=True)
class Scope:
    """A graph, with all that is around it.

    Attributes:
        place: From the outside in, the position of a node in its graph, and the attribute that
            holds the graph; () for the main graph.
        path: What keys of masks in it begin with.
        graphs: The main graph, those in it around this one, and this one.
        nodes: Its nodes, behind all those that run before it.
        first: Where in `nodes` its own begin.
        defaults: Initializers that a caller may override.
    """

    place: tuple[tuple[int, str], ...]
    path: str
    graphs: tuple[onnx.GraphProto, ...]
    nodes: Sequence[onnx.NodeProto]
    first: int
    defaults: frozenset[str]

    @property
    def own(self) -> Sequence[onnx.NodeProto]:
        """Its nodes."""
        return self.nodes[self.first :]


def main_scope(model: onnx.ModelProto) -> Scope:
    """The main graph of a model."""
    defaults = {value.name for value in model.graph.input} if model.ir_version >= 4 else set()
    return Scope((), "", (model.graph,), model.graph.node, 0, frozenset(defaults))


def with_bodies(scope: Scope) -> Iterator[Scope]:
    """A graph, and the bodies in it, each in front of those in it."""
    yield scope
    for at, node in enumerate(scope.own):
        if node.op_type not in ("If", "Loop", "Scan") or node.domain not in ("", "ai.onnx"):
            continue
        title = node.name or next(filter(None, node.output), "")
        for attribute in node.attribute:
            if attribute.HasField("g"):
                before = scope.nodes[: scope.first + at]
                body = Scope(
                    (*scope.place, (at, attribute.name)),
                    f"{scope.path}{title}/{attribute.name}/",
                    (*scope.graphs, attribute.g),
                    [*before, *attribute.g.node],
                    len(before),
                    scope.defaults,
                )
                yield from with_bodies(body)
