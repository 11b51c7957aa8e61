"""What a mask file calls a layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from onnx_upscale.errors import MaskError
from onnx_upscale.optimizer.load.graph import Graph
from onnx_upscale.optimizer.load.layers import Layer
from onnx_upscale.optimizer.load.masking import LayerMask, resolve_masks
from onnx_upscale.optimizer.load.masks import Mask, document
from onnx_upscale.optimizer.load.sides import Side


def layer_key(graph: Graph, layer: Layer) -> str:
    """The first name that means a layer alone: of its weight, its node, or its output.

    Args:
        graph: The graph.
        layer: The layer.

    Returns:
        The name; for most models exported from torch the name of the parameter.

    Raises:
        MaskError: Every name means other layers as well.
    """
    node, stored = layer.node, layer.node.input(layer.weight_slot)
    while not graph.constants.is_initializer(stored) and stored in graph.producers:
        stored = graph.producers[stored].input(0)  # Behind Transpose, DequantizeLinear and so on.
    for name in (stored, node.proto.name, node.outputs[0]):
        if graph.constants.is_initializer(name) and _is_lent(graph, name):
            continue
        try:
            named = layers_of(graph, name)
        except MaskError:
            continue
        if [found.node.index for found in named] == [node.index]:
            return name
    raise MaskError(
        f"no name means node '{node.title}' alone, so that no mask can: give it a name of its own"
    )


def _is_lent(graph: Graph, weight: str) -> bool:
    """Whether a body reads a weight or what is made from it, so that its name may mean more."""
    pending = [weight]
    while pending:
        name = pending.pop()
        if name in graph.captured:
            return True
        readers = (graph.nodes[index] for index, _ in graph.readers.get(name, ()))
        pending += [made for node in readers for made in node.outputs if made in graph.constants]
    return False


def united(graph: Graph, masks: Iterable[LayerMask]) -> dict[str, Any]:
    """Masks in the form of a mask file, those of the same side of a layer as one.

    Args:
        graph: The graph.
        masks: The masks.

    Returns:
        What `read_masks` reads.

    Raises:
        MaskError: No name means a layer alone.
    """
    found: dict[str, dict[str, list[int]]] = {}
    for mask in masks:
        sides = found.setdefault(layer_key(graph, mask.layer), {})
        before = sides.get(mask.side.value, [])
        sides[mask.side.value] = sorted({*before, *mask.pruned.tolist()})
    return document(found)


def layers_of(graph: Graph, key: str) -> tuple[Layer, ...]:
    """The layers that a key of a mask file means.

    Args:
        graph: The graph.
        key: Name of a weight, a node or a tensor.

    Returns:
        The layers, in order.

    Raises:
        MaskError: There are none; the message lists the closest names.
    """
    nothing = Mask(key, Side.INPUT, "prune", np.empty(0, np.int64))
    return tuple(mask.layer for mask in resolve_masks(graph, [nothing]))
