"""The masked model by the letter of the contract: the original, times 0 where a channel is masked.

This is what an emitted model is held against, so it shares no code with what made that model: not
with the reading of masks in `load.masking`, not with the zeroing of weights, not with shape
inference. It is meant to be checked by reading it. What a mask means:

1. Its key names an initializer (then every layer that uses it as its weight), else a node, else a
   node's output; the first of these that exists.
2. On the input side, what the layer reads is multiplied by 0 or 1 along the axis it contracts; for
   this layer only.
3. On the output side, what the layer makes is multiplied by 0 or 1, behind the affine operations
   attached straight to it: each BatchNormalization, and each Add or Mul with a constant that is a
   scalar or has one value per channel, as long as nothing else reads the tensor in between and it
   is no graph output. Where an activation or a sum is fused into the layer, that comes too late:
   its weight and its bias are multiplied in its place. A bias that an activation behind it adds
   first is multiplied as well.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from onnx_upscale.optimizer.load.masks import Mask
from onnx_upscale.optimizer.load.sides import Side
from onnx_upscale.running import Session

Array: TypeAlias = "npt.NDArray[Any]"

_MICROSOFT = "com.microsoft"
CONVOLUTIONS = {("", "Conv"), ("", "ConvTranspose"), (_MICROSOFT, "FusedConv")}
"""Operators, by domain and type, that read and make channels on the second axis."""
PRODUCTS = {("", "Gemm"), ("", "MatMul"), (_MICROSOFT, "FusedGemm"), (_MICROSOFT, "FusedMatMul")}
"""Operators that multiply matrices; a `transA` of theirs transposes the first."""
_EINSUM = ("", "Einsum")
_EITHER_WAY = {("", "MatMul"), (_MICROSOFT, "FusedMatMul"), _EINSUM}
"""Those whose weight may come first."""
_BIASED = {(_MICROSOFT, op) for op in ("BiasGelu", "BiasSplitGelu", "FastGelu")}
"""Activations that add a bias over the last axis first."""
_NOT_CONSTANT = ("Random", "Bernoulli", "Multinomial", "Dropout")


@dataclass(frozen=True)
class NodeMask:
    """A mask on one node, as `constrained` grows them.

    Attributes:
        node: Position of the node in the graph.
        mask: The mask; its key does not matter.
    """

    node: int
    mask: Mask


def reference_model(
    model: onnx.ModelProto,
    masks: Iterable[Mask],
    grown: Iterable[NodeMask],
    inputs: Mapping[str, Array],
) -> onnx.ModelProto:
    """Makes the masked model.

    Args:
        model: The original model, which is not changed.
        masks: Masks as the file has them.
        grown: Masks in addition, on nodes.
        inputs: Values to run the original on, which shows the shapes of its tensors.

    Returns:
        The model with multiplications by 0 and 1; without masks the original itself.

    Raises:
        VerifySetupError: onnxruntime does not run the original.
    """
    wiring = _Wiring(model)
    stated = [NodeMask(node, mask) for mask in masks for node in wiring.named(mask.key)]
    stated += grown
    if not stated:
        return model
    seen = _Seen(model, wiring, {each.node for each in stated}, inputs)
    factors = _Factors({}, {})
    for each in stated:
        node = model.graph.node[each.node]
        weight_slot = wiring.weight_slot(node)
        kind = seen.types[node.output[0]]  # That of all that a layer reads and makes.
        if each.mask.side is Side.INPUT:
            slot = 1 - weight_slot
            flags = _flags(each.mask, *seen.input_axis(node, slot)).astype(kind)
            earlier = factors.before.get((each.node, slot), 1)
            factors.before[each.node, slot] = flags * earlier
        elif _is_closed(node):
            for slot, values in _weight_flags(each.mask, node, seen).items():
                values = values.astype(kind)
                earlier = factors.before.get((each.node, slot), 1)
                factors.before[each.node, slot] = values * earlier
        else:
            axis, channels = seen.output_axis(node, weight_slot)
            end = seen.end_of_affine(node.output[0], axis, channels)
            flags = _flags(each.mask, axis, channels).astype(kind)
            factors.behind[end] = flags * factors.behind.get(end, 1)
            bias = wiring.bias_behind(end)
            if bias is not None and axis == -1 and seen.shape(bias[2]) == (channels,):
                factors.before[bias[:2]] = flags * factors.before.get(bias[:2], 1)
    return _multiplied(model, factors, seen.fresh)


def _is_closed(node: onnx.NodeProto) -> bool:
    """Whether a layer goes on with what its weights add up to."""
    if _operator(node) not in {(_MICROSOFT, "FusedConv"), (_MICROSOFT, "FusedGemm")}:
        return False
    activated = any(a.name == "activation" and a.s for a in node.attribute)
    added = node.op_type == "FusedConv" and len(node.input) > 3 and bool(node.input[3])
    return activated or added


def _weight_flags(mask: Mask, node: onnx.NodeProto, seen: _Seen) -> dict[int, Array]:
    """What the weight and the bias of a closed layer are multiplied by, by slot."""
    shape = seen.shape(node.input[1])
    last = node.op_type == "FusedGemm" and not _integer(node, "transB", 0)
    axis = -1 if last else -len(shape)
    found: dict[int, Array] = {1: _flags(mask, axis, shape[axis])}
    if len(node.input) > 2 and node.input[2]:
        found[2] = _flags(mask, -1, shape[axis])
    return found


def _flags(mask: Mask, axis: int, channels: int) -> npt.NDArray[np.bool_]:
    """What stays, in a shape that broadcasts; `axis` counts from the end."""
    listed = np.zeros(channels, bool)
    if mask.form == "mask":
        listed[:] = mask.values != 0
    else:
        listed[mask.values] = True
    stays = ~listed if mask.form == "prune" else listed
    return stays.reshape(-1, *(1,) * (-axis - 1))


@dataclass(frozen=True)
class _Factors:
    """Zeros and ones to multiply by: before a slot of a node, and behind a tensor."""

    before: dict[tuple[int, int], Array]
    behind: dict[str, Array]


class _Wiring:
    """Who makes and who reads each tensor, and which are constant."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.nodes: Sequence[onnx.NodeProto] = graph.node
        listed = {value.name for value in graph.input} if model.ir_version >= 4 else set()
        self.initializers = {tensor.name for tensor in graph.initializer} - listed
        self.outputs = {value.name for value in graph.output}
        self.readers: dict[str, list[int]] = {}
        self.constants = set(self.initializers)
        for index, node in enumerate(graph.node):
            for name in _reads(node):
                self.readers.setdefault(name, []).append(index)
            if (
                node.domain in ("", "ai.onnx")
                and not node.op_type.startswith(_NOT_CONSTANT)
                and not any(a.HasField("g") for a in node.attribute)
                and all(name in self.constants for name in _reads(node))
            ):
                self.constants.update(node.output)

    def weight_slot(self, node: onnx.NodeProto) -> int:
        first = _operator(node) in _EITHER_WAY and node.input[1] not in self.constants
        return 0 if first else 1

    def named(self, key: str) -> list[int]:
        """The nodes that a key of a mask file means."""
        if key in self.initializers:
            return self._using(key)
        by_name = [index for index, node in enumerate(self.nodes) if node.name == key]
        return by_name or [index for index, node in enumerate(self.nodes) if key in node.output]

    def _using(self, weight: str) -> list[int]:
        """The layers whose weight is an initializer, or is made from it and other constants.

        If there are none, the products of constants of which it is the second.
        """
        found: list[int] = []
        tables: list[int] = []
        made = {weight}
        for index, node in enumerate(self.nodes):
            if not made.intersection(node.input):
                continue
            if all(name in self.constants for name in node.output):
                if _operator(node) in PRODUCTS and node.input[1] in made:
                    tables.append(index)
                made.update(node.output)
            elif (
                _operator(node) in CONVOLUTIONS | PRODUCTS | {_EINSUM}
                and node.input[self.weight_slot(node)] in made
            ):
                found.append(index)
        return found or tables

    def affine(self, tensor: str) -> Iterator[tuple[onnx.NodeProto, list[str]]]:
        """The operations by constants in a row behind a tensor, with their constants."""
        while tensor not in self.outputs and len(self.readers.get(tensor, ())) == 1:
            node = self.nodes[self.readers[tensor][0]]
            others = [name for name in node.input if name != tensor]
            if node.domain not in ("", "ai.onnx") or not self.constants.issuperset(others):
                return
            if node.op_type not in ("Add", "Mul", "BatchNormalization"):
                return
            yield node, others
            tensor = node.output[0]

    def ends(self, tensor: str) -> Iterator[tuple[str, list[str]]]:
        """A tensor, and what each of the operations of `affine` makes with which constants."""
        yield tensor, []
        for node, others in self.affine(tensor):
            yield node.output[0], others

    def bias_behind(self, tensor: str) -> tuple[int, int, str] | None:
        """The node, slot and name of a constant that an activation behind a tensor adds first."""
        if tensor in self.outputs or len(self.readers.get(tensor, ())) != 1:
            return None
        index = self.readers[tensor][0]
        node = self.nodes[index]
        if _operator(node) not in _BIASED or node.input[0] != tensor or len(node.input) < 2:
            return None
        return (index, 1, node.input[1]) if node.input[1] in self.constants else None


def _reads(node: onnx.NodeProto) -> list[str]:
    """Every tensor that a node reads, in its subgraphs as well."""
    inner = [
        name
        for attribute in node.attribute
        for graph in (attribute.g, *attribute.graphs)
        for each in graph.node
        for name in _reads(each)
    ]
    inner += [v.name for a in node.attribute for g in (a.g, *a.graphs) for v in g.output]
    return [name for name in (*node.input, *inner) if name]


def _operator(node: onnx.NodeProto) -> tuple[str, str]:
    return node.domain.removeprefix("ai.onnx"), node.op_type


class _Seen:
    """Shapes and types as onnxruntime shows them when it runs the original."""

    def __init__(
        self,
        model: onnx.ModelProto,
        wiring: _Wiring,
        masked: Iterable[int],
        inputs: Mapping[str, Array],
    ) -> None:
        self._wiring = wiring
        nodes = [model.graph.node[index] for index in sorted(masked)]
        tensors = {name for node in nodes for name in (*node.input, node.output[0]) if name}
        for node in nodes:
            for tensor, others in wiring.ends(node.output[0]):
                bias = wiring.bias_behind(tensor)
                tensors.update(others if bias is None else (*others, bias[2]))
        probe = onnx.ModelProto()
        probe.CopyFrom(model)
        self.fresh = _FreshNames(model)
        shape_names = {name: self.fresh(f"{name}.shape") for name in sorted(tensors)}
        for name, shape in shape_names.items():
            probe.graph.node.append(helper.make_node("Shape", [name], [shape]))
        made = {node.output[0] for node in nodes} - wiring.outputs
        wanted = (*shape_names.values(), *sorted(made))
        probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
        session = Session(probe, optimized=False)
        found = session.run(inputs, list(shape_names.values()))
        self._shapes = {name: tuple(found[shape].tolist()) for name, shape in shape_names.items()}
        self.types = session.output_types

    def shape(self, tensor: str) -> tuple[int, ...]:
        """The shape of what a masked layer reads or makes."""
        return self._shapes[tensor]

    def input_axis(self, node: onnx.NodeProto, slot: int) -> tuple[int, int]:
        """The axis of a layer's input that it contracts, from the end, and its channels."""
        shape = self._shapes[node.input[slot]]
        if _operator(node) in CONVOLUTIONS:
            axis = 1 - len(shape)
        elif _operator(node) == _EINSUM:
            result = _einsum_axes(node, -1, 0)
            one, other = (_einsum_axes(node, at, len(shape)) for at in (slot, 1 - slot))
            (axis,) = {one[letter] for letter in one.keys() & other.keys() - result.keys()}
        else:
            rows = slot == 1
            turned = rows != bool(_integer(node, "transB" if rows else "transA", 0))
            axis = -2 if turned and len(shape) > 1 else -1
        return axis, shape[axis]

    def output_axis(self, node: onnx.NodeProto, weight_slot: int) -> tuple[int, int]:
        """The axis of a layer's result that holds its output channels, and how many there are."""
        shape = self._shapes[node.output[0]]
        if _operator(node) in CONVOLUTIONS:
            axis = 1 - len(shape)
        elif _operator(node) == _EINSUM:
            made = _einsum_axes(node, -1, len(shape))
            weight = _einsum_axes(node, weight_slot, len(self._shapes[node.input[weight_slot]]))
            data = _einsum_axes(node, 1 - weight_slot, 0)
            (axis,) = {made[letter] for letter in made.keys() & weight.keys() - data.keys()}
        else:
            from_left = weight_slot == 0 and len(self._shapes[node.input[1]]) > 1
            axis = -2 if from_left else -1
        return axis, shape[axis]

    def end_of_affine(self, tensor: str, axis: int, channels: int) -> str:
        """The last tensor of the affine operations attached straight to a layer."""
        rank = len(self._shapes[tensor])
        for node, others in self._wiring.affine(tensor):
            if node.op_type == "BatchNormalization":
                training = _integer(node, "training_mode", 0) or len(node.output) > 1
                if rank + axis != 1 or training or not _integer(node, "spatial", 1):
                    return tensor
            elif not self._is_per_channel(others, rank, axis, channels):
                return tensor
            tensor = node.output[0]
        return tensor

    def _is_per_channel(self, others: list[str], rank: int, axis: int, channels: int) -> bool:
        shape = self._shapes[others[0]] if len(others) == 1 else (channels,) * (rank + 1)
        place = len(shape) + axis
        sizes = [size for at, size in enumerate(shape) if at != place or size != channels]
        return len(shape) <= rank and all(size == 1 for size in sizes)


def _einsum_axes(node: onnx.NodeProto, data: int, rank: int) -> dict[str, int]:
    """The axes of the letters of an Einsum's data (0 or 1), or of its result (-1), from the end."""
    equation = next(a.s for a in node.attribute if a.name == "equation").decode()
    terms = equation.replace(" ", "").replace("->", ",").split(",")
    head, dots, tail = terms[data].partition("...")
    before = {letter: at - (rank if dots else len(head)) for at, letter in enumerate(head)}
    return before | {letter: at - len(tail) for at, letter in enumerate(tail)}


def _integer(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((a.i for a in node.attribute if a.name == name), default)


class _FreshNames:
    """Names that nothing in a model has."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self._taken = {name for node in graph.node for name in (*_reads(node), *node.output)}
        self._taken |= {value.name for value in graph.input}
        self._taken |= {tensor.name for tensor in graph.initializer}

    def __call__(self, stem: str) -> str:
        names = (f"{stem}.{number}" for number in itertools.count())
        name = next(name for name in names if name not in self._taken)
        self._taken.add(name)
        return name


def _multiplied(
    model: onnx.ModelProto, factors: _Factors, fresh: Callable[[str], str]
) -> onnx.ModelProto:
    """The model with its masked tensors multiplied by 0 or 1."""
    masked = onnx.ModelProto()
    masked.CopyFrom(model)
    del masked.graph.node[:]

    def multiply(tensor: str, values: Array, result: str) -> None:
        name = fresh(f"{result}.factors")
        masked.graph.initializer.append(numpy_helper.from_array(values, name))
        masked.graph.node.append(helper.make_node("Mul", [tensor, name], [result]))

    for index, original in enumerate(model.graph.node):
        node = onnx.NodeProto()
        node.CopyFrom(original)
        for slot, name in enumerate(original.input):
            if (index, slot) in factors.before:
                node.input[slot] = fresh(f"{name}.masked")
                multiply(name, factors.before[index, slot], node.input[slot])
        for slot, name in enumerate(original.output):
            if name in factors.behind:
                node.output[slot] = fresh(f"{name}.unmasked")
        masked.graph.node.append(node)
        for raw, name in zip(node.output, original.output, strict=True):
            if raw != name:
                multiply(raw, factors.behind[name], name)
    return masked
