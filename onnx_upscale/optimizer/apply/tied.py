"""Masks on a weight that others read as it is: zeros for the activations, and no second weight.

A weight of which nothing leaves, and that is masked for one of its readers only, would be there
twice. Instead that reader's channels are multiplied by 0 or 1, which is the same by the meaning of
a mask, where less is multiplied than would be copied.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
import onnx_graphsurgeon as gs

from onnx_upscale.optimizer.apply.surgery import Surgery
from onnx_upscale.optimizer.load.graph import Graph, IntArray, Override, Use
from onnx_upscale.optimizer.load.layers import Layer
from onnx_upscale.optimizer.load.values import Array

_BROADCASTS_SINCE = 7
_OPEN = 16  # What a size that is not known counts as, such as that of a batch or a sequence.


def gate_tied(
    surgery: Surgery,
    layers: Mapping[int, Layer],
    masked: Collection[Use],
    written: Collection[Use],
) -> frozenset[Use]:
    """Multiplies activations where a mask would make a second copy of a weight.

    Args:
        surgery: The graph.
        layers: Its layers, by the index of their node.
        masked: Where a constant is masked and otherwise stays as it is.
        written: Where a constant is to be written anew; `masked` is a part of it.

    Returns:
        Those of `masked` that need no constant any more.
    """
    graph = surgery.graph
    able = {
        use: layer
        for use, layer in ((use, layers.get(use[0])) for use in masked)
        if layer is not None
        and layer.weight == use
        and (use[0], layer.data_slot) not in written
        and _can_be_gated(graph, layer)
    }
    gated = {
        use: layer
        for use, layer in able.items()
        if _is_read_elsewhere(surgery, use, able.keys(), written)
    }
    for use, layer in gated.items():
        override = graph.overrides[use]
        if np.array_equal(override.values, override.original):
            continue  # What is masked is zero already.
        for axis in dict.fromkeys(axis for axis, _ in override.zeroed):
            channels = np.concatenate([gone for own, gone in override.zeroed if own == axis])
            if axis == layer.weight_input_axis:
                _gate_input(surgery, layer, channels)
            else:
                _gate_output(surgery, layer, channels)
    return frozenset(gated)


def _can_be_gated(graph: Graph, layer: Layer) -> bool:
    override = graph.overrides[layer.weight]
    # Who masks an output masks the bias as well, so that both can be multiplied at once.
    return (
        graph.opset >= _BROADCASTS_SINCE
        and not layer.node.domain
        and layer.groups == 1
        and layer.recurrence is None
        and override.stays is None
        and override.original.dtype in (np.float16, np.float32, np.float64)
        and _touched(graph, layer, override) < override.original.size
    )


def _touched(graph: Graph, layer: Layer, override: Override) -> int:
    """How many values would be multiplied."""
    names = {
        layer.node.inputs[layer.data_slot]
        if axis == layer.weight_input_axis
        else layer.node.outputs[0]
        for axis, _ in override.zeroed
    }
    shapes = [graph.shapes.get(name, (_OPEN,) * 2) for name in names]
    return sum(math.prod(s if isinstance(s, int) else _OPEN for s in shape) for shape in shapes)


def _is_read_elsewhere(
    surgery: Surgery, use: Use, able: Collection[Use], written: Collection[Use]
) -> bool:
    """Whether somebody else reads the weight, as it is or under another mask."""
    graph = surgery.graph
    name = graph.nodes[use[0]].inputs[use[1]]
    pending = [name]
    while name in graph.producers and name in graph.constants:
        name = graph.producers[name].input(0)
        pending.append(name)
    seen = set(pending)
    while pending:
        name = pending.pop()
        if name in graph.outputs or name in graph.captured:
            return True
        for other in graph.readers.get(name, ()):
            node = graph.nodes[other[0]]
            made = [each for each in node.outputs if each in graph.constants]
            if made:
                pending += [each for each in made if each not in seen]
                seen.update(made)
            elif node.index in surgery.removed or other == use:
                continue
            elif other not in written or (other in able and not _same_mask(graph, use, other)):
                return True
    return False


def _same_mask(graph: Graph, one: Use, other: Use) -> bool:
    return np.array_equal(graph.overrides[one].values, graph.overrides[other].values)


def _factors(layer: Layer, count: int, gone: IntArray, axis: int, rank: int) -> Array:
    weight = np.ones(count, bool)
    weight[gone] = False
    return weight.reshape(-1, *(1,) * ((rank if axis >= 0 else 0) - 1 - axis))


def _gate_input(surgery: Surgery, layer: Layer, gone: IntArray) -> None:
    graph, index, slot = surgery.graph, layer.node.index, layer.data_slot
    rank = len(graph.shapes.get(layer.node.inputs[slot], ()))
    factors = _factors(layer, layer.inputs, gone, layer.data_axis, rank)
    read = surgery.nodes[index].inputs[slot]
    result = surgery.variable(f"{layer.node.title}.masked")
    new = surgery.node(
        "Mul", f"{result.name}_node", [read, _constant(surgery, layer, factors)], [result]
    )
    surgery.before.setdefault(index, []).append(new)
    surgery.replace_tensor(index, slot, result)


def _gate_output(surgery: Surgery, layer: Layer, gone: IntArray) -> None:
    assert layer.output_axis is not None
    factors = _factors(layer, layer.outputs, gone, layer.output_axis, layer.result_rank)
    stem = f"{layer.node.title}.masked_node"
    surgery.insert_after(layer.node.index, "Mul", stem, [_constant(surgery, layer, factors)])


def _constant(surgery: Surgery, layer: Layer, factors: Array) -> gs.Constant:
    kind = surgery.graph.overrides[layer.weight].original.dtype
    return surgery.constant(surgery.fresh_name(f"{layer.node.title}.mask"), factors.astype(kind))
