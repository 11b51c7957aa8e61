"""Layers that work on constants, such as small networks that make tables of relative positions.

What they make is known before run time, but were it folded, no mask could act on them. A product
of two constants is a layer if

1. the second of them is a stored matrix, or one that is only turned or converted, and
2. what follows from it is nobody's weight: it ends in operators that take it for one tensor more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx

_PRODUCTS = ("MatMul", "Gemm")
_CONVERTS = ("Cast", "DequantizeLinear", "Identity", "Transpose")
_TAKES = ("Add", "Concat", "Div", "Expand", "Gather", "Mul", "Sub", "Where")


def layers_on_constants(
    initializers: Mapping[str, onnx.TensorProto],
    producers: Mapping[str, onnx.NodeProto],
    constants: Collection[str],
) -> frozenset[str]:
    """Finds products of constants that are layers.

    Args:
        initializers: Initializer tensors by name.
        producers: The node that makes each tensor.
        constants: Names of the tensors that follow from constants alone.

    Returns:
        The names of what they make.
    """
    products = {
        name: node
        for name, node in producers.items()
        if node.op_type in _PRODUCTS
        and name in constants
        and _is_matrix(node, initializers, producers)
    }
    if not products:
        return frozenset()
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in producers.values():
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return frozenset(name for name in products if _is_table(name, products, readers, constants))


def _is_matrix(
    node: onnx.NodeProto,
    initializers: Mapping[str, onnx.TensorProto],
    producers: Mapping[str, onnx.NodeProto],
) -> bool:
    name = node.input[1]
    while name in producers and producers[name].op_type in _CONVERTS:
        name = producers[name].input[0]
    return name in initializers and len(initializers[name].dims) == 2


def _is_table(
    product: str,
    products: Mapping[str, onnx.NodeProto],
    readers: Mapping[str, list[onnx.NodeProto]],
    constants: Collection[str],
) -> bool:
    """Whether all that follows from a product is taken for one tensor more."""
    pending, seen = [product], {product}
    while pending:
        name = pending.pop()
        for node in readers.get(name, ()):
            made = node.output[0]
            if made in constants:
                if made in products and name in node.input[1:]:
                    return False
                pending += {made} - seen
                seen.add(made)
            elif node.op_type not in _TAKES or node.domain not in ("", "ai.onnx"):
                return False
    return True
