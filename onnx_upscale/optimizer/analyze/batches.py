"""Which axes a product of activations takes apart: the same one of all its operands."""

from __future__ import annotations

from onnx_upscale.optimizer.load.einsum import equation_of, equation_text
from onnx_upscale.optimizer.load.graph import Graph, Node


def batch_axis(graph: Graph, node: Node, slot: int, axis: int) -> int | str | None:
    """What names an axis that a product does one by one.

    Args:
        graph: The graph.
        node: A product of matrices, or an Einsum.
        slot: The input slot of an operand.
        axis: An axis of it, counted from the end.

    Returns:
        The same for the same axis of other operands; None for rows, columns and what is summed.
    """
    if node.op != "Einsum":
        return axis if axis < -2 else None
    ranks = [len(graph.shapes[name]) for name in node.inputs]
    equation = equation_of(equation_text(node.attributes), ranks)
    if equation is None:
        return None
    letter = equation.terms[slot][axis]
    return letter if all(letter in term for term in (*equation.terms, equation.result)) else None
