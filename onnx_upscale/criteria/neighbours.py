"""What follows a layer on its own: its normalization and its activation."""

from __future__ import annotations

from collections.abc import Iterator

from onnx_upscale.optimizer.load.graph import Graph, Node
from onnx_upscale.optimizer.load.layers import Layer

_UNARY = frozenset(
    (
        "BatchNormalization",
        "Celu",
        "Clip",
        "Elu",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "Mish",
        "PRelu",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Softsign",
        "Swish",
        "Tanh",
        "ThresholdedRelu",
    )
)
_WITH_CONSTANT = frozenset(("Add", "Div", "Mul", "Sub"))


def follow(graph: Graph, layer: Layer) -> Iterator[Node]:
    """The nodes behind a layer that work on its result alone, channel by channel.

    They end where another tensor comes in (a residual Add), where the result is read twice, and
    where it is a graph output. An activation that multiplies its input with a function of it
    (x * Sigmoid(x)) counts as one that reads it once.

    Args:
        graph: The graph.
        layer: The layer; behind one whose node goes on with what it makes there is nothing.

    Yields:
        Normalizations, activations and constant scales or shifts, in order; the first output of
        the last one is what the layer and they make.
    """
    if layer.is_inside:
        return
    tensor = layer.node.outputs[0]
    while tensor not in graph.outputs and tensor not in graph.captured:
        found = _next(graph, tensor)
        if found is None:
            return
        yield found
        tensor = found.outputs[0]


def _next(graph: Graph, tensor: str) -> Node | None:
    readers = list(dict.fromkeys(index for index, _ in graph.readers.get(tensor, ())))
    nodes = [graph.nodes[index] for index in readers]
    if any(node.domain for node in nodes):
        return None
    if len(nodes) == 1:
        return nodes[0] if _works_alone(graph, nodes[0], tensor) else None
    if len(nodes) == 2:
        gate, product = nodes  # In topological order.
        gated = {tensor, gate.outputs[0]}
        alone = len(graph.readers.get(gate.outputs[0], ())) == 1
        if gate.op in _UNARY and product.op == "Mul" and set(product.inputs) == gated and alone:
            return product
    return None


def _works_alone(graph: Graph, node: Node, tensor: str) -> bool:
    if node.op not in _UNARY and node.op not in _WITH_CONSTANT:
        return False
    others = [name for name in node.inputs if name and name != tensor]
    same_shape = graph.shapes.get(node.outputs[0]) == graph.shapes.get(tensor)
    return same_shape and all(name in graph.constants for name in others)
