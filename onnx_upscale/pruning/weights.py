"""How many weights a model has that a plan describes, once its readers are repaired."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from onnx_upscale.optimizer.analyze import Structure
from onnx_upscale.optimizer.analyze.facts import Facts
from onnx_upscale.optimizer.load.graph import Graph, IntArray, Node, Use
from onnx_upscale.optimizer.plan import Plan, is_empty
from onnx_upscale.stats import count_weights

_Version: TypeAlias = "tuple[object, ...]"
"""What tells one way to cut an initializer from others: whose own it is, and places by axis."""

_MOVES = ("DequantizeLinear", "Identity", "Transpose")
"""Operators that a constant may pass on its way to who reads it, and stays as it is stored."""


@dataclass(frozen=True)
class _Constant:
    """An initializer as one node reads it.

    Attributes:
        name: Of the initializer.
        shape: As the node sees it.
        order: Per axis that the node sees, which of the initializer's it is.
    """

    name: str
    shape: tuple[int, ...]
    order: tuple[int, ...]


class WeightCount:
    """Counts the weights that plans leave, those once that several nodes read alike.

    A reader that loses channels is repaired and has weights of its own from then on. What a plan
    adds (biases that hold what was known, places to gather) does not count.

    Args:
        structure: The structure of the model.
    """

    def __init__(self, structure: Structure) -> None:
        self._structure, graph = structure, structure.graph
        self._read = {
            (facts.node.index, slot): constant
            for facts in structure.facts
            for slot in _slots(structure, facts)
            if (constant := _constant(graph, facts.node, slot)) is not None
        }
        sizes = {each.name: math.prod(each.shape) for each in self._read.values()}
        self._others = count_weights(graph.model.graph) - sum(sizes.values())
        # What somebody else reads stays as it is, whatever happens to the others' versions.
        self._stays: dict[str, dict[_Version, int]] = {
            name: {(): size}
            for name, size in sizes.items()
            if name in graph.outputs
            or name in graph.captured
            or any(
                use not in self._read and graph.nodes[use[0]].op not in _MOVES
                for use in graph.readers.get(name, ())
            )
        }

    def left(self, plan: Plan) -> int:
        """How many weights there are when a plan is carried out."""
        graph, facts = plan.analysis.graph, self._structure.facts
        versions = {name: dict(whole) for name, whole in self._stays.items()}
        for (index, slot), constant in self._read.items():
            if is_empty(facts[index], plan.layout):
                continue
            kept = dict(_kept(plan, facts[index], slot, constant.shape))
            places = sorted(
                (constant.order[axis], each.tobytes())
                for axis, each in kept.items()
                if not np.array_equal(each, np.arange(constant.shape[axis]))
            )
            own = (index,) if _is_masked(graph, (index, slot)) else ()
            lengths = [len(kept.get(axis, range(n))) for axis, n in enumerate(constant.shape)]
            versions.setdefault(constant.name, {})[(*own, *places)] = math.prod(lengths)
        return self._others + sum(sum(each.values()) for each in versions.values())


def _slots(structure: Structure, facts: Facts) -> set[int]:
    """Where a node reads what may be cut."""
    layer = structure.layers.get(facts.node.index)
    weight = () if layer is None or layer.node is not facts.node else (layer.weight_slot,)
    return {*weight, *(param.slot for param in facts.params)}


def _constant(graph: Graph, node: Node, slot: int) -> _Constant | None:
    """The initializer behind an input; None where the model computes what is read."""
    name, value = node.input(slot), graph.original(node, slot)
    if value is None:
        return None
    order = tuple(range(value.ndim))
    while not graph.constants.is_initializer(name):
        source = graph.producers.get(name)
        if source is None or source.op not in _MOVES:
            return None
        if source.op == "Transpose":
            turned = source.attributes.get("perm", order[::-1])
            order = tuple(turned[axis] for axis in order)
        name = source.inputs[0]
    return _Constant(name, value.shape, order)


def _is_masked(graph: Graph, use: Use) -> bool:
    """Whether a node sees a constant with anything masked."""
    override = graph.overrides.get(use)
    return override is not None and (
        override.stays is not None or any(len(places) for _, places in override.zeroed)
    )


def _kept(
    plan: Plan, facts: Facts, slot: int, shape: tuple[int, ...]
) -> Iterator[tuple[int, IntArray]]:
    """By axis of a constant that loses something, the places that it keeps."""
    index = facts.node.index
    for param in facts.params:
        axis = param.axis if param.axis >= 0 else param.axis + len(shape)
        if param.slot == slot and axis >= 0 and shape[axis] == len(param.labels):
            yield axis, param.kept(plan.layout.positions)
    reader = plan.readers.get(index)
    layer = plan.analysis.structure.layers.get(index)
    if layer is None or slot != layer.weight_slot:
        return
    if reader is not None:
        yield layer.weight_input_axis, reader.positions
    elif facts.grouped is not None:
        kept = plan.layout.positions(facts.grouped.inputs)
        groups = np.unique(kept // (layer.inputs // layer.groups))
        yield layer.weight_input_axis, kept[: len(kept) // max(len(groups), 1)]
