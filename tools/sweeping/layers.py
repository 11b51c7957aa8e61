"""The layers of a model, found without any code of the package, and random masks for them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from build import Array
from case import Case, Layer, Masks
from sweeping.known import constants, shapes

CONVOLUTIONS = ("Conv", "ConvTranspose")
_FEWEST = 4
"""Sides with fewer channels are not masked."""


@dataclass(frozen=True)
class Found:
    """A layer: what the reference of the tests has to know, and what masks have to.

    Attributes:
        layer: For the reference.
        key: What masks call it.
        groups: Count of groups.
    """

    layer: Layer
    key: str
    groups: int


def find(model: onnx.ModelProto, sample: Mapping[str, Array] | None = None) -> Iterator[Found]:
    """The layers of a model whose nodes all have names: those of its main graph.

    Args:
        model: With a name for each node.
        sample: For a run where onnx's inference leaves shapes open.
    """
    graph = model.graph
    constant, shape = constants(graph), shapes(model, sample)
    initializers = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        slots = [slot for slot in (0, 1) if len(node.input) > 1 and node.input[slot] in constant]
        if len(slots) != 1 or node.output[0] in initializers:
            continue
        weight = shape.get(node.input[slots[0]], ())
        rank = len(shape.get(node.output[0], ()))
        if node.op_type in CONVOLUTIONS and slots == [1] and len(weight) > 2:
            yield _convolution(node, weight)
        elif node.op_type == "Gemm" and slots == [1]:
            turned = _integer(node, "transB", 0)
            inputs, outputs = (weight[1], weight[0]) if turned else weight
            data = -2 if _integer(node, "transA", 0) else -1
            yield _found(node, (data, inputs), (-1, outputs), 0, 2)
        elif node.op_type == "MatMul" and len(weight) >= 2:
            (slot,) = slots
            inputs, outputs = weight[-2:] if slot else weight[:-3:-1]
            axis = -1 if slot else -2
            yield _found(node, (axis, inputs), (axis, outputs), 1 - slot, rank)


def _convolution(node: onnx.NodeProto, weight: tuple[int, ...]) -> Found:
    groups = _integer(node, "group", 1)
    spread = node.op_type == "ConvTranspose"
    inputs = weight[0] if spread else weight[1] * groups
    outputs = weight[1] * groups if spread else weight[0]
    axis = 1 - len(weight)
    return _found(node, (axis, inputs), (axis, outputs), 0, len(weight), groups)


def _found(
    node: onnx.NodeProto,
    data: tuple[int, int],
    result: tuple[int, int],
    slot: int,
    rank: int,
    groups: int = 1,
) -> Found:
    weight = node.input[1 - slot]
    made = (node.output[0], *result)
    layer = Layer(node.name, weight, (node.input[slot], *data), made, rank)
    return Found(layer, node.output[0], groups)


def random_masks(found: list[Found], side: str, amount: float, seed: int) -> Masks:
    """Random masks on one side of every layer.

    Groups of a convolution lose as many channels each, or, where they are too small, go as a whole;
    a convolution of single channels gets no mask.

    Args:
        found: The layers.
        side: `input` or `output`.
        amount: The share of channels that goes.
        seed: Of the choice.
    """
    rng = np.random.default_rng(seed)
    masks: Masks = {}
    for each in found:
        channels = (each.layer.data if side == "input" else each.layer.result)[2]
        per_group = channels // each.groups
        lost = math.floor(per_group * amount)
        if (each.groups == 1 and channels <= _FEWEST) or per_group == 1:
            continue
        if lost:
            starts = np.arange(each.groups) * per_group
            pruned = np.concatenate([rng.permutation(per_group)[:lost] + at for at in starts])
        else:
            groups = rng.permutation(each.groups)[: math.floor(each.groups * amount)]
            pruned = (groups[:, np.newaxis] * per_group + np.arange(per_group)).ravel()
        if pruned.size:
            masks[each.key] = {side: sorted(pruned.tolist())}
    return masks


def case(model: onnx.ModelProto, found: list[Found], masks: Masks) -> Case:
    """Model and masks for the reference, which calls layers by what they make."""
    return Case(model, masks, tuple(each.layer for each in found))


def _integer(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((a.i for a in node.attribute if a.name == name), default)
