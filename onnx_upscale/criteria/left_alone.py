"""Layers that are left alone unless somebody names them: arithmetic, and those before an output."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnx_upscale.optimizer.analyze import Structure
from onnx_upscale.optimizer.load.graph import Graph, Node
from onnx_upscale.optimizer.load.layers import Layer

_RECURRENT = frozenset(("GRU", "LSTM", "RNN"))
"""Operators with weights of their own, which are no layers where these are not constant."""


def is_arithmetic(weight: npt.NDArray[np.generic]) -> bool:
    """Whether a weight is a row of numbers with equal steps (0, 1, ..., 15), or all the same."""
    flat = weight.ravel()
    # Most weights show on their first values that they were learned.
    return flat.size > 2 and _in_steps(flat[:64]) and _in_steps(flat)


def _in_steps(flat: npt.NDArray[np.generic]) -> bool:
    values = flat.astype(np.float64)
    with np.errstate(invalid="ignore"):  # Infinities.
        return bool(np.ptp(np.diff(values)) <= 1e-6 * np.abs(values).max())


def computes(graph: Graph, layer: Layer) -> bool:
    """Whether a layer is arithmetic rather than learned."""
    weight = graph.value(layer.node, layer.weight_slot)
    return weight is not None and weight.dtype.kind == "f" and is_arithmetic(weight)


def before_outputs(structure: Structure) -> frozenset[int]:
    """Layers whose results go to outputs of the model and to no other learned layer.

    What such a layer loses is lost in the outputs: nothing behind it can make up for that.

    Args:
        structure: The structure of the model.

    Returns:
        Indices of their nodes.
    """
    graph = structure.graph
    learned = {index for index, layer in structure.layers.items() if not computes(graph, layer)} | {
        node.index for node in graph.nodes if node.op in _RECURRENT
    }
    becoming, read = set(graph.outputs), set(graph.captured)
    found = set()
    for node in reversed(graph.nodes):
        ends, goes_on = (any(name in names for name in node.outputs) for names in (becoming, read))
        if node.index in structure.layers and ends and not goes_on:
            found.add(node.index)
        inputs = _data(graph, node)
        if node.index in learned:
            read.update(inputs)
            continue
        if ends:
            becoming.update(inputs)
        if goes_on:
            read.update(inputs)
    return frozenset(found)


def _data(graph: Graph, node: Node) -> list[str]:
    """What a node computes with; a shape says nothing of values."""
    if node.op in ("Shape", "Size"):
        return []
    return [name for name in node.inputs if name and name not in graph.constants]
