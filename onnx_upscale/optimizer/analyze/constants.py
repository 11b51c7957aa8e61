"""Forward pass: which channels hold one known value everywhere, whatever the input."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx

from onnx_upscale.optimizer.analyze.facts import Carry, Facts, Grid, How, Write, same_axis
from onnx_upscale.optimizer.analyze.recurrence import known_units
from onnx_upscale.optimizer.analyze.structure import Structure
from onnx_upscale.optimizer.analyze.weights import MaskedWeights
from onnx_upscale.optimizer.load.folding import evaluate
from onnx_upscale.optimizer.load.graph import Graph
from onnx_upscale.optimizer.load.layers import Layer
from onnx_upscale.optimizer.load.values import Array

Values = npt.NDArray[np.float64]
"""Per label the value of its channel; NaN where it is not known."""


def find_constants(structure: Structure, graph: Graph, weights: MaskedWeights) -> Values:
    """Finds the channels whose value does not depend on the model's input.

    Args:
        structure: Labels and facts.
        graph: The graph seen through masks.
        weights: Its weights.

    Returns:
        Values per label, shape (labels,).
    """
    values = np.full(len(structure.roots), np.nan)
    known = False
    for facts in structure.facts:
        write = facts.write
        layer = None if write is None else write.layer
        if write and layer and (known or not weights.spreads(layer)):
            written = _written(graph, facts, write, values, weights)
            if written is not None:
                values[write.outputs] = written
                known |= not np.isnan(written).all()
        for each in facts.passes:
            if isinstance(each, Grid):
                _through_grid(each, values)
            elif known or not any(labels is not None for labels in each.inputs.values()):
                values[each.outputs] = carried = _carried(graph, facts, each, values)
                known |= not np.isnan(carried).all()
    values[~np.isfinite(values)] = np.nan
    values[structure.crossed] = 0.0
    return values


def _written(
    graph: Graph, facts: Facts, write: Write, values: Values, weights: MaskedWeights
) -> Values | None:
    """What a layer makes of known values; None where it is nothing known."""
    layer = write.layer
    assert layer is not None
    if layer.recurrence is not None:
        return known_units(graph, facts, write, values)
    inputs = write.seen(values)
    variable = inputs != 0 if write.padded else np.isnan(inputs)
    unknown = weights.reached(layer, variable)
    bias = None if np.count_nonzero(unknown) == len(unknown) else layer_bias(graph, layer)
    if bias is None:
        return None
    total = bias + weights.contribution(layer, np.where(variable, 0.0, inputs))
    if layer.sum_slot is not None:
        assert layer.output_axis is not None
        added = facts.inputs.get(layer.sum_slot, {}).get(layer.output_axis)
        total = total + (np.nan if added is None else values[added])
    if layer.quantization is not None:
        total = layer.quantization.made_of(total)
    known = np.where(unknown, np.nan, total)
    return known if layer.activation is None else layer.activation(known)


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
    spread: Values = np.broadcast_to(bias, layer.outputs) * layer.bias_factor
    return spread


def _through_grid(grid: Grid, values: Values) -> None:
    """A slice of a grid has one value if all of it has; a channel has that of any of its slices."""
    if grid.splits:
        for axis, factor in enumerate(grid.factors):
            cells = values[grid.flat].reshape(grid.shape)
            slices = np.moveaxis(cells, axis, 0).reshape(len(factor), -1)
            values[factor] = np.where((slices == slices[:, :1]).all(1), slices[:, 0], np.nan)
        return
    found: npt.NDArray[np.float64] = np.full(grid.shape, np.nan)
    for axis, factor in enumerate(grid.factors):
        slices = np.moveaxis(found, axis, -1)
        slices[...] = np.where(np.isnan(slices), values[factor], slices)
    values[grid.flat] = found.ravel()


def _carried(graph: Graph, facts: Facts, carry: Carry, values: Values) -> Values:
    if carry.function is not None:
        read = (_operand(graph, facts, carry, values, slot) for slot in carry.inputs)
        return carry.function(list(read))
    operands = [values[labels] for labels in carry.inputs.values() if labels is not None]
    if carry.how == How.SAME:
        (passed,) = operands
        return passed
    if carry.how == How.ALIKE:
        (passed,) = operands
        parts = passed.reshape(len(carry.outputs), -1)
        return np.where((parts == parts[:, :1]).all(1), parts[:, 0], np.nan)
    if carry.how == How.ZERO:
        zero = [operand == 0 for operand in operands]
        return np.where(np.any(zero, axis=0), 0.0, np.nan)
    result = np.full(len(carry.outputs), np.nan)
    known = np.ones(len(carry.outputs), bool)
    for operand in operands:
        known &= ~np.isnan(operand)
    if known.any():
        others = [slot for slot, labels in carry.inputs.items() if labels is None]
        if all(graph.value(facts.node, slot) is not None for slot in others):
            result[known] = _evaluated(graph, facts, carry, values, np.flatnonzero(known))
    if carry.annihilates:
        for operand in operands:
            result[operand == 0] = 0.0
    return result


def _operand(graph: Graph, facts: Facts, carry: Carry, values: Values, slot: int) -> Values:
    """What an operand holds per channel of the result; NaN where that is not one value."""
    labels, count = carry.inputs[slot], len(carry.outputs)
    if labels is not None:
        return values[labels]
    constant = graph.value(facts.node, slot)
    if constant is None:
        return np.full(count, np.nan)
    if constant.size == 1:
        return np.full(count, float(constant.item()))
    for param in facts.params:
        own = param.where(carry.outputs) if param.slot == slot else None
        fits = param.place(constant) is not None and constant.size == len(param.labels)
        if own is not None and fits:
            return constant.astype(np.float64).ravel()[own]
    return np.full(count, np.nan)


def _evaluated(
    graph: Graph, facts: Facts, carry: Carry, values: Values, chosen: npt.NDArray[np.int64]
) -> Values:
    """Runs a node on one value per channel, for the channels whose operands are all known."""
    node, rank = facts.node, len(graph.shapes[facts.node.outputs[0]])
    unknown = np.full(len(chosen), np.nan)
    shape = tuple(len(chosen) if axis == carry.axis else 1 for axis in range(rank))
    params = {p.slot: p for p in facts.params if same_axis(p.labels, carry.outputs)}
    inputs: dict[str, Array] = {}  # By slot: masks may make two of one constant.
    for slot, name in enumerate(node.inputs):
        labels = carry.inputs.get(slot)
        if not name:
            continue
        if labels is not None:
            type_ = graph.types.get(name, onnx.TensorProto.FLOAT)
            dtype = onnx.helper.tensor_dtype_to_np_dtype(type_)
            inputs[f"slot {slot}"] = values[labels[chosen]].astype(dtype).reshape(shape)
            continue
        constant = graph.value(node, slot)
        if constant is None:
            return unknown
        place = params[slot].place(constant) if slot in params else None
        if place is not None:
            constant = constant.take(chosen, place)
        uniform = constant.size == (1 if place is None else len(chosen))
        if not uniform and node.op not in ("BatchNormalization", "InstanceNormalization"):
            return unknown
        inputs[f"slot {slot}"] = constant
    proto = onnx.NodeProto()
    proto.CopyFrom(node.proto)
    proto.input[:] = [f"slot {slot}" if name else "" for slot, name in enumerate(node.inputs)]
    made = evaluate(proto, inputs, graph.model.opset_import)
    if made is None or made[0].size != len(chosen):
        return unknown
    return made[0].astype(np.float64).ravel()
