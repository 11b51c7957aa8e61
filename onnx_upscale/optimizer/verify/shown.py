"""Shapes and types of a model's tensors, as onnxruntime shows them when it runs it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from onnx_upscale.errors import VerifySetupError
from onnx_upscale.optimizer.verify.scopes import main_scope, with_bodies
from onnx_upscale.optimizer.verify.wiring import (
    CONVOLUTIONS,
    EINSUM,
    QUANTIZED_AFFINE,
    Wiring,
    integer_attribute,
    operator_of,
    reads,
)
from onnx_upscale.running import Session, run_on_random

Array: TypeAlias = "npt.NDArray[Any]"
Types: TypeAlias = "Mapping[str, np.dtype[Any]]"


class Shown:
    """What is known of what masked layers read and make, and of what is attached to them.

    Args:
        wiring: The graph.
        shapes: Shapes, by tensor.
        types: Element types, by tensor.
    """

    def __init__(self, wiring: Wiring, shapes: Mapping[str, tuple[int, ...]], types: Types) -> None:
        self._wiring, self._shapes, self._types = wiring, shapes, types

    def shape(self, tensor: str) -> tuple[int, ...]:
        """The shape of what a masked layer reads or makes.

        Raises:
            VerifySetupError: It is not known.
        """
        if tensor not in self._shapes:
            raise VerifySetupError(f"nothing tells the shape of '{tensor}', which a mask is about")
        return self._shapes[tensor]

    def type(self, tensor: str) -> np.dtype[Any]:
        """The element type of what a masked layer reads or makes.

        Raises:
            VerifySetupError: It is not known.
        """
        if tensor not in self._types:
            raise VerifySetupError(f"nothing tells the type of '{tensor}', which a mask is about")
        return self._types[tensor]

    def input_axis(self, node: onnx.NodeProto, slot: int) -> tuple[int, int]:
        """The axis of a layer's input that it contracts, from the end, and its channels."""
        shape = self.shape(node.input[slot])
        if operator_of(node) in CONVOLUTIONS:
            axis = 1 - len(shape)
        elif operator_of(node) == EINSUM:
            result = _einsum_axes(node, -1, 0)
            one, other = (_einsum_axes(node, at, len(shape)) for at in (slot, 1 - slot))
            (axis,) = {one[letter] for letter in one.keys() & other.keys() - result.keys()}
        else:
            rows = slot == 1
            turned = rows != bool(integer_attribute(node, "transB" if rows else "transA", 0))
            axis = -2 if turned and len(shape) > 1 else -1
        return axis, shape[axis]

    def output_axis(self, node: onnx.NodeProto, weight_slot: int) -> tuple[int, int]:
        """The axis of a layer's result that holds its output channels, and how many there are."""
        shape = self.shape(node.output[0])
        if operator_of(node) in CONVOLUTIONS:
            axis = 1 - len(shape)
        elif operator_of(node) == EINSUM:
            made = _einsum_axes(node, -1, len(shape))
            weight = _einsum_axes(node, weight_slot, len(self.shape(node.input[weight_slot])))
            data = _einsum_axes(node, 1 - weight_slot, 0)
            (axis,) = {made[letter] for letter in made.keys() & weight.keys() - data.keys()}
        else:
            from_left = weight_slot == 0 and len(self.shape(node.input[1])) > 1
            axis = -2 if from_left else -1
        return axis, shape[axis]

    def end_of_affine(
        self, tensor: str, axis: int, channels: int
    ) -> tuple[str, onnx.NodeProto | None]:
        """The last tensor of the affine operations attached straight to a layer.

        And the operation that makes it, if that works on whole numbers.
        """
        rank, last = len(self.shape(tensor)), None
        for node, others in self._wiring.affine(tensor):
            if node.op_type == "BatchNormalization":
                training = integer_attribute(node, "training_mode", 0) or len(node.output) > 1
                if rank + axis != 1 or training or not integer_attribute(node, "spatial", 1):
                    return tensor, last
            elif others and not self._is_per_channel(others, rank, axis, channels):
                return tensor, last
            tensor, last = node.output[0], node if operator_of(node) in QUANTIZED_AFFINE else None
        return tensor, last

    def _is_per_channel(self, others: list[str], rank: int, axis: int, channels: int) -> bool:
        shape = self.shape(others[0]) if len(others) == 1 else (channels,) * (rank + 1)
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


def shown_by_run(
    model: onnx.ModelProto,
    wiring: Wiring,
    masked: Iterable[int],
    sizes: Mapping[str, tuple[int, ...]],
    seed: int,
    fresh: FreshNames,
) -> Shown:
    """What a run of a model shows.

    Args:
        model: The model.
        wiring: Its main graph.
        masked: The masked layers.
        sizes: A shape for each input.
        seed: Seed of the inputs.
        fresh: Gives new names.

    Raises:
        VerifySetupError: It does not run.
    """
    nodes = [wiring.nodes[index] for index in sorted(masked)]
    tensors = {name for node in nodes for name in (*node.input, node.output[0]) if name}
    for node in nodes:
        for tensor, others in wiring.ends(node.output[0]):
            bias = wiring.bias_behind(tensor)
            tensors.update(others if bias is None else (*others, bias[2]))
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    shape_names = {name: fresh(f"{name}.shape") for name in sorted(tensors)}
    for name, shape in shape_names.items():
        probe.graph.node.append(helper.make_node("Shape", [name], [shape]))
    touched = {node.input[wiring.slots(node)[1]] for node in nodes}
    touched |= {node.output[0] for node in nodes if node.output[0]}
    touched |= {behind.output[0] for node in nodes for behind, _ in wiring.affine(node.output[0])}
    copies = {name: fresh(f"{name}.copy") for name in sorted(touched)}
    for name, copy in copies.items():
        probe.graph.node.append(helper.make_node("Identity", [name], [copy]))
    wanted = (*shape_names.values(), *copies.values())
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    session = Session(probe, optimized=False)
    asked = list(shape_names.values())
    _, (found,) = run_on_random(lambda values: session.run(values, asked), model, sizes, [seed])
    shapes = {name: tuple(found[shape].tolist()) for name, shape in shape_names.items()}
    types = {name: session.output_types[copy] for name, copy in copies.items()}
    return Shown(wiring, shapes, types)


class FreshNames:
    """Names that nothing in a model has."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._taken = {
            name for scope in with_bodies(main_scope(model)) for name in _names_in(scope.graphs[-1])
        }

    def __call__(self, stem: str) -> str:
        """A name that begins like this."""
        names = (f"{stem}.{number}" for number in itertools.count())
        name = next(name for name in names if name not in self._taken)
        self._taken.add(name)
        return name


def _names_in(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (tensor.name for tensor in graph.initializer)
    yield from (value.name for value in (*graph.input, *graph.output))
    for node in graph.node:
        yield from (*reads(node), *node.output)
