"""Masks from zeros: what the weights of a model prune by themselves.

1. A channel whose whole slice of a layer's weight is zero is pruned on that side.
2. On the input side that is all there is to it: the mask says what the weight does.
3. An output mask also zeroes the bias and the affine operations behind the layer. So a channel is
   pruned on the output side only where it is zero behind all of these already: where it is not, it
   is a constant, and the mask would change the function. The zeros in the weight remain, and the
   optimizer makes use of them whether a mask names them or not.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from onnx_upscale.optimizer.load import Loaded
from onnx_upscale.optimizer.load.affine import addends
from onnx_upscale.optimizer.load.graph import Graph, IntArray
from onnx_upscale.optimizer.load.keys import layer_key
from onnx_upscale.optimizer.load.layers import Layer, layers
from onnx_upscale.optimizer.load.masking import LayerMask
from onnx_upscale.optimizer.load.masks import document
from onnx_upscale.optimizer.load.sides import Side


def found_masks(loaded: Loaded) -> dict[str, Any]:
    """Masks for the zeros in the weights of a model, together with others.

    Args:
        loaded: The model, and masks that the user gave in addition.

    Returns:
        All masks, in the form of a mask file.
    """
    graph = dataclasses.replace(loaded.graph, overrides={})
    pruned: dict[tuple[int, str], IntArray] = {}
    found = [mask for layer in layers(graph) for mask in _masks_of(graph, layer)]
    for mask in [*found, *loaded.masks]:
        key = mask.layer.node.index, mask.side.value
        pruned[key] = np.union1d(pruned.get(key, mask.pruned), mask.pruned)
    keys = {layer.node.index: layer_key(graph, layer) for layer in layers(graph)}
    masks: dict[str, dict[str, list[int]]] = {}
    for (index, side), channels in sorted(pruned.items()):
        if len(channels):
            masks.setdefault(keys[index], {})[side] = channels.tolist()
    for body in loaded.bodies:
        for mask in body.masks:
            name = f"{body.path}/{layer_key(body.graph, mask.layer)}"
            masks.setdefault(name, {})[mask.side.value] = mask.pruned.tolist()
    return document(masks)


def _masks_of(graph: Graph, layer: Layer) -> list[LayerMask]:
    weight = graph.value(layer.node, layer.weight_slot)
    assert weight is not None
    nonzero = layer.by_group(layer.factors(weight)).astype(bool)
    inputs = LayerMask(layer, Side.INPUT, np.flatnonzero(~nonzero.any(axis=(1, 3))))
    outputs = LayerMask(layer, Side.OUTPUT, np.flatnonzero(~nonzero.any(axis=(2, 3))))
    # A hidden unit has more weights than these.
    if layer.weight_output_axis is None or layer.recurrence is not None:
        return [inputs]
    return [inputs, _without_constants(graph, outputs)]


def _without_constants(graph: Graph, mask: LayerMask) -> LayerMask:
    """The mask without channels that something behind the weight makes other than zero."""
    layer, stays = mask.layer, np.zeros(mask.layer.outputs, bool)
    for addend in addends(graph, layer):
        stays |= addend.nonzero(graph, layer.outputs)
    return LayerMask(layer, mask.side, mask.pruned[~stays[mask.pruned]])
