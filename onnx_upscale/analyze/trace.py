"""Runs every node's rule, in order, and collects what they say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from onnx_upscale.analyze.context import Context, UnclearError
from onnx_upscale.analyze.facts import Axes, Demand, Facts
from onnx_upscale.analyze.labels import LabelPool
from onnx_upscale.analyze.rules import RULES
from onnx_upscale.analyze.sizes import Sizes, trace_sizes
from onnx_upscale.load.graph import Graph, IntArray

_OLDEST_OPSET = 7


@dataclass(frozen=True)
class Trace:
    """Labels of a whole graph.

    Attributes:
        facts: What is known of each node, in order.
        axes: The labelled axes of every tensor that has some.
        demands: Every demand: of nodes, of graph outputs, of subgraphs.
        roots: Per label, its root: equal for coupled channels.
    """

    graph: Graph
    facts: tuple[Facts, ...]
    axes: dict[str, Axes]
    demands: tuple[Demand, ...]
    roots: IntArray


def trace(graph: Graph) -> Trace:
    """Labels the axes of every tensor.

    Args:
        graph: The graph.

    Returns:
        The labels, and what each node does with them.
    """
    pool, axes = LabelPool(), dict[str, Axes]()
    sizes, movers = trace_sizes(graph)
    all_facts: list[Facts] = []
    demands: list[Demand] = []
    for node in graph.nodes:
        if all(name in graph.constants for name in node.outputs if name):
            all_facts.append(Facts(node, {}, {}))
            continue
        context = Context(graph, node, pool, axes, sizes)
        rule = RULES.get((node.domain, node.op))
        try:
            if graph.opset < _OLDEST_OPSET:
                raise UnclearError(f"operator set {graph.opset} is older than {_OLDEST_OPSET}")
            if rule is None:
                raise UnclearError("no rule for this operator")
            rule(context)
            facts = context.facts()
        except UnclearError as unclear:
            facts = context.pinned_facts(f"{node.op}: {unclear}")
        all_facts.append(facts)
        demands += facts.demands
        if node.index not in movers:
            demands += context.pin_sizes()
        for output, labelled in facts.outputs.items():
            axes[node.outputs[output]] = labelled
    demands += _demands_from_outside(graph, axes, sizes)
    return Trace(graph, tuple(all_facts), axes, tuple(demands), pool.all_roots())


def _demands_from_outside(
    graph: Graph, axes: dict[str, Axes], sizes: Mapping[str, Sizes]
) -> Iterator[Demand]:
    reasons = {name: "captured by a subgraph" for name in graph.captured}
    reasons.update(dict.fromkeys(graph.outputs, "graph output"))
    for name, reason in reasons.items():
        for axis, labels in axes.get(name, {}).items():
            yield Demand(name, -1, axis, labels, True, reason)
        for size in sizes.get(name, ()):
            measured = axes.get(size.tensor, {}).get(size.axis) if size else None
            if size is not None and measured is not None:
                reason = f"its size is a {reason}" if name in graph.outputs else reason
                yield Demand(size.tensor, -1, size.axis, measured, True, reason)
