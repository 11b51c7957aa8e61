"""Forward pass: which channels hold one known value everywhere, whatever the input."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx

from onnx_upscale.analyze.facts import Carry, Facts, Write
from onnx_upscale.analyze.trace import Trace
from onnx_upscale.analyze.weights import UsedWeights
from onnx_upscale.load.folding import evaluate
from onnx_upscale.load.graph import Graph
from onnx_upscale.load.layers import Layer
from onnx_upscale.load.values import Array

Values = npt.NDArray[np.float64]
"""Per label the value of its channel; NaN where it is not known."""


def find_constants(traced: Trace, used: UsedWeights) -> Values:
    """Finds the channels whose value does not depend on the model's input.

    Args:
        traced: Labels and facts.
        used: The non-zero weights.

    Returns:
        Values per label, shape (labels,).
    """
    values = np.full(len(traced.roots), np.nan)
    for facts in traced.facts:
        if facts.write is not None and facts.write.layer is not None:
            values[facts.write.labels] = _written(traced.graph, facts.write, values, used)
        for carry in facts.carries:
            values[carry.outputs] = _carried(traced.graph, facts, carry, values)
    values[~np.isfinite(values)] = np.nan
    return values


def _written(graph: Graph, write: Write, values: Values, used: UsedWeights) -> Values:
    layer = write.layer
    assert layer is not None
    connected = used[layer]
    groups, _, ins = connected.shape
    inputs = np.full(layer.inputs, np.nan) if write.inputs is None else values[write.inputs]
    variable = np.isnan(inputs) | (write.padded & (inputs != 0))
    if variable.all() and connected.any(-1).all():
        return np.full(layer.outputs, np.nan)
    unknown = (connected & variable.reshape(groups, 1, ins)).any(-1).ravel()
    bias = layer_bias(graph, layer)
    if bias is None:
        return np.full(layer.outputs, np.nan)
    total = bias + contribution(graph, layer, np.where(variable, 0.0, inputs))
    return np.where(unknown, np.nan, total)


def layer_bias(graph: Graph, layer: Layer) -> Values | None:
    """What a layer adds to each output channel, or None where that varies within a channel."""
    if layer.bias_slot is None or not layer.node.input(layer.bias_slot):
        return np.zeros(layer.outputs)
    bias = graph.value(layer.node, layer.bias_slot)
    if bias is None or bias.shape[-1:] not in ((), (1,), (layer.outputs,)):
        return None
    rows = bias.astype(np.float64).reshape(-1, bias.shape[-1] if bias.ndim else 1)
    # A matrix gives a channel one value where all its rows agree.
    bias = np.where((rows == rows[0]).all(0), rows[0], np.nan)
    beta = float(layer.node.attributes.get("beta", 1.0))
    spread: Values = np.broadcast_to(bias, layer.outputs) * beta
    return spread


def contribution(graph: Graph, layer: Layer, inputs: Values) -> Values:
    """What input channels of given values add to each output channel.

    Args:
        graph: The graph.
        layer: A layer whose every position sees its whole kernel.
        inputs: A value per input channel; zero leaves the channel out.

    Returns:
        Sums, shape (outputs,).
    """
    if not inputs.any():
        return np.zeros(layer.outputs)
    weight = graph.value(layer.node, layer.weight_slot)
    assert weight is not None
    summed = layer.by_group(weight).sum(-1, dtype=np.float64)
    by_group = inputs.reshape(layer.groups, layer.inputs // layer.groups)
    total: Values = np.einsum("goi,gi->go", summed, by_group).ravel()
    return total * float(layer.node.attributes.get("alpha", 1.0))


def _carried(graph: Graph, facts: Facts, carry: Carry, values: Values) -> Values:
    if carry.how in ("same", "zero"):
        (labels,) = carry.inputs.values()
        assert labels is not None
        passed = values[labels]
        return np.where(passed == 0, 0.0, np.nan) if carry.how == "zero" else passed
    known = np.ones(len(carry.outputs), bool)
    zero = np.zeros(len(carry.outputs), bool)
    for slot, labels in carry.inputs.items():
        if labels is not None:
            known &= ~np.isnan(values[labels])
            zero |= values[labels] == 0
        elif graph.value(facts.node, slot) is None:
            known[:] = False
    result = np.full(len(carry.outputs), np.nan)
    if known.any():
        result[known] = _evaluated(graph, facts, carry, values, np.flatnonzero(known))
    if carry.annihilates:
        result[zero] = 0.0
    return result


def _evaluated(
    graph: Graph, facts: Facts, carry: Carry, values: Values, chosen: npt.NDArray[np.int64]
) -> Values:
    """Runs a node on one value per channel, for the channels whose operands are all known."""
    node, rank = facts.node, len(graph.shapes[facts.node.outputs[0]])
    unknown = np.full(len(chosen), np.nan)
    shape = tuple(len(chosen) if axis == carry.axis else 1 for axis in range(rank))
    axes = {param.slot: param.axis for param in facts.params if param.labels is carry.outputs}
    inputs: dict[str, Array] = {}
    for slot, name in enumerate(node.inputs):
        labels = carry.inputs.get(slot)
        if not name:
            continue
        if labels is not None:
            type_ = graph.types.get(name, onnx.TensorProto.FLOAT)
            dtype = onnx.helper.tensor_dtype_to_np_dtype(type_)
            inputs[name] = values[labels[chosen]].astype(dtype).reshape(shape)
            continue
        constant = graph.value(node, slot)
        if constant is None:
            return unknown
        if slot in axes:
            constant = constant.take(chosen, axes[slot])
            uniform = constant.size == len(chosen)
        else:
            uniform = constant.size == 1
        if not uniform and node.op not in ("BatchNormalization", "InstanceNormalization"):
            return unknown
        inputs[name] = constant
    made = evaluate(node.proto, inputs, graph.model.opset_import)
    if made is None or made[0].size != len(chosen):
        return unknown
    return made[0].astype(np.float64).ravel()
