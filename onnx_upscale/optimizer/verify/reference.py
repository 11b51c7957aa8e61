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
   is no graph output. QLinearAdd and QLinearMul count as Add and Mul; so do, behind a ConvInteger
   or MatMulInteger, the Cast and the Mul by the scale that DynamicQuantizeLinear found, or by that
   times a constant as above.
4. Whole numbers that stand for real ones are replaced where those would be multiplied by 0: by the
   zero point that the layer is told.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from onnx_upscale.optimizer.load.masks import Mask
from onnx_upscale.optimizer.load.sides import Side
from onnx_upscale.running import Session

Array: TypeAlias = "npt.NDArray[Any]"

CONVOLUTIONS = {("", "Conv"), ("", "ConvTranspose"), ("", "QLinearConv"), ("", "ConvInteger")}
"""Operators, by domain and type, that read and make channels on the second axis."""
PRODUCTS = {
    ("", "Gemm"),
    ("", "MatMul"),
    ("", "MatMulInteger"),
    ("", "QLinearMatMul"),
    ("com.microsoft", "QGemm"),
}
"""Operators that multiply matrices; a `transA` of theirs transposes the first."""
QUANTIZED = {
    ("", "ConvInteger"): (1, 2, -1),
    ("", "MatMulInteger"): (1, 2, -1),
    ("", "QLinearConv"): (3, 2, 7),
    ("", "QLinearMatMul"): (3, 2, 7),
    ("com.microsoft", "QGemm"): (3, 2, 8),
}
"""Where those that compute with whole numbers have their weight, and the zero points of what they
read first and of what they make."""
_QUANTIZED_AFFINE = {("com.microsoft", "QLinearAdd"), ("com.microsoft", "QLinearMul")}
_SUMS = {("", "ConvInteger"), ("", "MatMulInteger")}
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
        weight_slot, data_slot = wiring.slots(node)
        _, read_zero, made_zero = QUANTIZED.get(_operator(node), (1, -1, -1))
        if each.mask.side is Side.INPUT:
            kind, zero = seen.types[node.input[data_slot]], _input(node, read_zero)
            flags = _flags(each.mask, *seen.input_axis(node, data_slot))
            earlier = factors.before.get((each.node, data_slot))
            factors.before[each.node, data_slot] = _Factor(flags, kind, zero).times(earlier)
        else:
            axis, channels = seen.output_axis(node, weight_slot)
            end, last = seen.end_of_affine(node.output[0], axis, channels)
            zero = _input(node, made_zero) if last is None else _input(last, 7)
            kind = seen.types[end]
            flags = _flags(each.mask, axis, channels)
            factors.behind[end] = _Factor(flags, kind, zero).times(factors.behind.get(end))
    return _multiplied(model, factors, seen.fresh)


def _flags(mask: Mask, axis: int, channels: int) -> npt.NDArray[np.bool_]:
    """What stays, in a shape that broadcasts; `axis` counts from the end."""
    listed = np.zeros(channels, bool)
    if mask.form == "mask":
        listed[:] = mask.values != 0
    else:
        listed[mask.values] = True
    stays = ~listed if mask.form == "prune" else listed
    return stays.reshape(-1, *(1,) * (-axis - 1))


def _input(node: onnx.NodeProto, slot: int) -> str:
    return node.input[slot] if 0 <= slot < len(node.input) else ""


@dataclass(frozen=True)
class _Factor:
    """Zeros and ones to multiply a tensor by.

    Attributes:
        flags: What stays, in a shape that broadcasts.
        kind: The type of the tensor.
        zero: The tensor that holds its zero point; empty where that is 0.
    """

    flags: npt.NDArray[np.bool_]
    kind: np.dtype[Any]
    zero: str

    def times(self, other: _Factor | None) -> _Factor:
        """Both at once, where another was there before."""
        return self if other is None else replace(self, flags=self.flags & other.flags)


@dataclass(frozen=True)
class _Factors:
    """What to multiply by: before a slot of a node, and behind a tensor."""

    before: dict[tuple[int, int], _Factor]
    behind: dict[str, _Factor]


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
        self.makers = {name: node for node in graph.node for name in node.output}
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

    def slots(self, node: onnx.NodeProto) -> tuple[int, int]:
        """Where a layer reads its weight, and where what it is multiplied with."""
        if _operator(node) in QUANTIZED:
            return QUANTIZED[_operator(node)][0], 0
        left = node.op_type == "MatMul" and node.input[1] not in self.constants
        return (0, 1) if left else (1, 0)

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
                _operator(node) in CONVOLUTIONS | PRODUCTS
                and node.input[self.slots(node)[0]] in made
            ):
                found.append(index)
        return found or tables

    def affine(self, tensor: str) -> Iterator[tuple[onnx.NodeProto, list[str]]]:
        """The operations by constants in a row behind a tensor, with their constants."""
        while tensor not in self.outputs and len(self.readers.get(tensor, ())) == 1:
            node = self.nodes[self.readers[tensor][0]]
            others = [name for name in node.input if name != tensor]
            if _operator(node) in _QUANTIZED_AFFINE and tensor in (node.input[0], node.input[3]):
                if not self.constants.issuperset(filter(None, others)):
                    return
                yield node, [node.input[3 if tensor == node.input[0] else 0]]
                tensor = node.output[0]
                continue
            if node.op_type == "Cast" and _operator(self.makers[tensor]) in _SUMS:
                scaling = self._scaling(node.output[0])
                if scaling is None:
                    return
                yield node, []
                yield scaling
                tensor = scaling[0].output[0]
                continue
            if node.domain not in ("", "ai.onnx") or not self.constants.issuperset(others):
                return
            if node.op_type not in ("Add", "Mul", "BatchNormalization"):
                return
            yield node, others
            tensor = node.output[0]

    def _scaling(self, tensor: str) -> tuple[onnx.NodeProto, list[str]] | None:
        """The Mul that alone reads sums, by a scale found at run time, and its constant."""
        if tensor in self.outputs or len(self.readers.get(tensor, ())) != 1:
            return None
        node = self.nodes[self.readers[tensor][0]]
        if _operator(node) != ("", "Mul"):
            return None
        (other,) = (name for name in node.input if name != tensor)
        if self._is_scale(other):
            return node, []
        maker = self.makers.get(other)
        if maker is None or _operator(maker) != ("", "Mul"):
            return None
        constants = [name for name in maker.input if name in self.constants]
        scales = [name for name in maker.input if self._is_scale(name)]
        return (node, constants) if len(constants) == len(scales) == 1 else None

    def _is_scale(self, name: str) -> bool:
        maker = self.makers.get(name)
        dynamic = maker is not None and _operator(maker) == ("", "DynamicQuantizeLinear")
        return maker is not None and dynamic and maker.output[1] == name


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
            tensors.update(name for _, others in wiring.affine(node.output[0]) for name in others)
        probe = onnx.ModelProto()
        probe.CopyFrom(model)
        self.fresh = _FreshNames(model)
        shape_names = {name: self.fresh(f"{name}.shape") for name in sorted(tensors)}
        for name, shape in shape_names.items():
            probe.graph.node.append(helper.make_node("Shape", [name], [shape]))
        touched = {node.input[wiring.slots(node)[1]] for node in nodes}
        touched |= {node.output[0] for node in nodes}
        touched |= {
            behind.output[0] for node in nodes for behind, _ in wiring.affine(node.output[0])
        }
        copies = {name: self.fresh(f"{name}.copy") for name in sorted(touched)}
        for name, copy in copies.items():
            probe.graph.node.append(helper.make_node("Identity", [name], [copy]))
        wanted = (*shape_names.values(), *copies.values())
        probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
        session = Session(probe, optimized=False)
        found = session.run(inputs, list(shape_names.values()))
        self._shapes = {name: tuple(found[shape].tolist()) for name, shape in shape_names.items()}
        self.types = {name: session.output_types[copy] for name, copy in copies.items()}

    def input_axis(self, node: onnx.NodeProto, slot: int) -> tuple[int, int]:
        """The axis of a layer's input that it contracts, from the end, and its channels."""
        shape = self._shapes[node.input[slot]]
        if _operator(node) in CONVOLUTIONS:
            axis = 1 - len(shape)
        else:
            turned = slot == 1 or _integer(node, "transA", 0)
            axis = -2 if turned and len(shape) > 1 else -1
        return axis, shape[axis]

    def output_axis(self, node: onnx.NodeProto, weight_slot: int) -> tuple[int, int]:
        """The axis of a layer's result that holds its output channels, and how many there are."""
        shape = self._shapes[node.output[0]]
        if _operator(node) in CONVOLUTIONS:
            axis = 1 - len(shape)
        else:
            from_left = weight_slot == 0 and len(self._shapes[node.input[1]]) > 1
            axis = -2 if from_left else -1
        return axis, shape[axis]

    def end_of_affine(
        self, tensor: str, axis: int, channels: int
    ) -> tuple[str, onnx.NodeProto | None]:
        """The last tensor of the affine operations attached straight to a layer.

        And the operation that makes it, if that works on whole numbers.
        """
        rank, last = len(self._shapes[tensor]), None
        for node, others in self._wiring.affine(tensor):
            if node.op_type == "BatchNormalization":
                training = _integer(node, "training_mode", 0) or len(node.output) > 1
                if rank + axis != 1 or training:
                    return tensor, last
            elif others and not self._is_per_channel(others, rank, axis, channels):
                return tensor, last
            tensor, last = node.output[0], node if _operator(node) in _QUANTIZED_AFFINE else None
        return tensor, last

    def _is_per_channel(self, others: list[str], rank: int, axis: int, channels: int) -> bool:
        shape = self._shapes[others[0]] if len(others) == 1 else (channels,) * (rank + 1)
        place = len(shape) + axis
        sizes = [size for at, size in enumerate(shape) if at != place or size != channels]
        return len(shape) <= rank and all(size == 1 for size in sizes)


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

    def add(op: str, inputs: Sequence[str], result: str, **attributes: Any) -> str:
        masked.graph.node.append(helper.make_node(op, inputs, [result], **attributes))
        return result

    def multiply(tensor: str, factor: _Factor, result: str) -> None:
        name = fresh(f"{result}.factors")
        replaced = factor.kind.itemsize == 1  # onnxruntime multiplies no such numbers.
        values = factor.flags if replaced else factor.flags.astype(factor.kind)
        masked.graph.initializer.append(numpy_helper.from_array(values, name))
        if not replaced:
            add("Mul", [tensor, name], result)
            return
        zero = factor.zero or fresh(f"{result}.zero")
        if not factor.zero:
            point = numpy_helper.from_array(np.zeros((), factor.kind), zero)
            masked.graph.initializer.append(point)
        wide = [
            add("Cast", [each], fresh(f"{result}.wide"), to=onnx.TensorProto.INT32)
            for each in (tensor, zero)
        ]
        chosen = add("Where", [name, *wide], fresh(f"{result}.chosen"))
        add("Cast", [chosen], result, to=helper.np_dtype_to_tensor_dtype(factor.kind))

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
