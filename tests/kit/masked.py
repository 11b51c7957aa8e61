"""The masked model as a user of the contract sees it, without anything of the package.

It does not zero weights: it multiplies activations by 0 or 1 where the contract says that channels
are ignored (before a layer) or zero (before the activation). Only what is made inside loses all
that makes it: hidden units of recurrent layers, and queries, keys and values of an attention that
has the weight for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from build import Array
from case import Case

_GATES = {"GRU": 3, "LSTM": 4, "RNN": 1}


def masked(case: Case) -> onnx.ModelProto:
    """The masked model: the model with activations multiplied by 0 or 1."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    _mask(model.graph, case, "", {})
    return model


def _mask(
    graph: onnx.GraphProto, case: Case, path: str, around: Mapping[str, tuple[int, ...]]
) -> None:
    """Multiplies in a graph and in its bodies, given the shapes of constants around it."""
    constants = {**around, **{t.name: tuple(t.dims) for t in graph.initializer}}
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = tuple(node.attribute[0].t.dims)
    before: dict[str, tuple[str, Array]] = {}
    behind: dict[str, Array] = {}
    biases: dict[str, Array] = {}
    operators = {node.name: node.op_type for node in graph.node}
    units: dict[str, Array] = {}
    packed: dict[str, Array] = {}
    for layer in case.layers:
        for key in layer.keys if layer.path == path else ():
            sides = case.masks.get(key, {})
            if "input" in sides:
                tensor, axis, channels = layer.data
                keep = _zeros_at(sides["input"], axis, channels)
                _, others = before.get(layer.node, (tensor, keep))
                before[layer.node] = tensor, keep * others
            if "output" in sides and operators[layer.node] in _GATES:
                keep = _zeros_at(sides["output"], -1, layer.result[2])
                units[layer.node] = units.get(layer.node, np.ones_like(keep)) * keep
            elif "output" in sides and operators[layer.node] == "Attention":
                keep = _zeros_at(sides["output"], -1, layer.result[2])
                packed[layer.node] = packed.get(layer.node, np.ones_like(keep)) * keep
            elif "output" in sides:
                tensor, axis, channels = layer.result
                end = _end_of_affine(graph, constants, tensor, axis, channels, layer.rank)
                keep = _zeros_at(sides["output"], axis, channels)
                behind[end] = behind.get(end, np.ones_like(keep)) * keep
                activated = _biased(graph, end)
                bias = "" if activated is None else activated.input[_BIAS[activated.op_type]]
                if activated is not None and axis == -1 and bias in constants:
                    own = _own_part(keep, list(activated.input).index(end), constants[bias])
                    biases[activated.name] = biases.get(activated.name, np.ones_like(own)) * own
    originals = list(graph.node)
    del graph.node[:]

    def multiply(tensor: str, keep: Array, result: str) -> None:
        graph.initializer.append(numpy_helper.from_array(keep, f"{result}.mask"))
        graph.node.append(helper.make_node("Mul", [tensor, f"{result}.mask"], [result]))

    for original in originals:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _mask(attribute.g, case, f"{path}{node.name}/{attribute.name}/", constants)
        if node.name in before:
            tensor, keep = before[node.name]
            multiply(tensor, keep, f"{node.name}.input")
            node.input[list(node.input).index(tensor)] = f"{node.name}.input"
        for slot in (1, 2, 3) if node.name in units else ():
            if slot < len(node.input) and node.input[slot]:
                times = _GATES[node.op_type] * (2 if slot == 3 else 1)
                keep = np.tile(units[node.name], times)
                name = f"{node.name}.{slot}"
                multiply(node.input[slot], keep if slot == 3 else keep[:, np.newaxis], name)
                node.input[slot] = name
        # Columns of the weight, and their places in the bias.
        for slot in (1, 2) if node.name in packed else ():
            if slot < len(node.input) and node.input[slot]:
                multiply(node.input[slot], packed[node.name], f"{node.name}.packed{slot}")
                node.input[slot] = f"{node.name}.packed{slot}"
        if node.name in biases:
            slot = _BIAS[node.op_type]
            multiply(node.input[slot], biases[node.name], f"{node.name}.bias")
            node.input[slot] = f"{node.name}.bias"
        masked_outputs = [name for name in node.output if name in behind]
        for slot, name in enumerate(node.output):
            node.output[slot] = f"{name}.raw" if name in behind else name
        graph.node.append(node)
        for name in masked_outputs:
            multiply(f"{name}.raw", behind[name], name)


def _zeros_at(indices: list[int], axis: int, channels: int) -> Array:
    keep = np.ones(channels, np.float32)
    keep[indices] = 0
    return keep.reshape(-1, *(1,) * (-axis - 1))


def _end_of_affine(
    graph: onnx.GraphProto,
    constants: Mapping[str, tuple[int, ...]],
    tensor: str,
    axis: int,
    channels: int,
    rank: int,
) -> str:
    """Where an output mask acts: behind the affine operations attached straight to a layer."""
    outputs = {value.name for value in graph.output}
    while True:
        readers = [node for node in graph.node for name in reads(node) if name == tensor]
        if len(readers) != 1 or tensor in outputs:
            return tensor
        (node,) = readers
        others = [name for name in node.input if name != tensor]
        if node.op_type == "BatchNormalization":
            if axis + rank != 1:
                return tensor
        elif node.op_type in ("Add", "Mul"):
            shape = constants.get(others[0]) if others else None
            if shape is None or not _per_channel(shape, axis, channels, rank):
                return tensor
        else:
            return tensor
        tensor = node.output[0]


def _per_channel(shape: tuple[int, ...], axis: int, channels: int, rank: int) -> bool:
    """Whether a constant is a scalar or has one value per channel, and adds no axes."""
    wanted = [1] * len(shape)
    if -axis <= len(shape):
        wanted[axis] = channels
    return len(shape) <= rank and (math.prod(shape) == 1 or list(shape) == wanted)


# The slot of a bias, which is added to each of the inputs before it.
_BIAS = {"BiasGelu": 1, "FastGelu": 1, "MultiHeadAttention": 3}


def _biased(graph: onnx.GraphProto, tensor: str) -> onnx.NodeProto | None:
    """The activation or attention that alone reads a tensor, if it adds a bias to it."""
    readers = [node for node in graph.node for name in reads(node) if name == tensor]
    if len(readers) != 1 or tensor in {value.name for value in graph.output}:
        return None
    (node,) = readers
    slot = _BIAS.get(node.op_type, 0)
    return node if len(node.input) > slot and tensor in node.input[:slot] else None


def _own_part(keep: Array, place: int, shape: tuple[int, ...]) -> Array:
    """What stays of a bias that holds those of several inputs, one after the other."""
    (total,) = shape
    sizes = (
        [len(keep), len(keep), total - 2 * len(keep)]
        if place < 2
        else [total - len(keep), 0, len(keep)]
    )
    parts = [np.ones(max(size, 0), np.float32) for size in sizes]
    parts[place] = keep
    return np.concatenate(parts)[:total]


def reads(node: onnx.NodeProto) -> list[str]:
    """What a node reads, and what its bodies do."""
    inner = [name for a in node.attribute for n in a.g.node for name in reads(n)]
    return [*node.input, *inner]
