"""How many weights a model has that a plan describes, once its readers are repaired."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from onnx_upscale.optimizer.analyze import Structure
from onnx_upscale.optimizer.analyze.facts import Facts
from onnx_upscale.optimizer.apply.weights import Cut, collect_cuts
from onnx_upscale.optimizer.load.graph import Graph, Node, Use
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
        graph, cuts = plan.analysis.graph, dict[Use, Cut]()
        versions = {name: dict(whole) for name, whole in self._stays.items()}
        live = {f.node.index for f in self._structure.facts if not is_empty(f, plan.layout)}
        for index in live:
            collect_cuts(plan, index, cuts)
        for use, constant in self._read.items():
            if use[0] in live:
                cut = cuts.get(use, Cut())
                places = sorted(
                    (constant.order[axis], p.tobytes()) for axis, p in cut.takes.items()
                )
                by_group = () if cut.own is None else (cut.own.tobytes(),)
                whose = (use[0],) if _is_masked(graph, use) else ()
                versions.setdefault(constant.name, {})[(*whose, *places, *by_group)] = math.prod(
                    _left_of(constant.shape, cut)
                )
        return self._others + sum(sum(each.values()) for each in versions.values())


def _left_of(shape: tuple[int, ...], cut: Cut) -> Iterator[int]:
    """The lengths of the axes that a cut leaves."""
    for axis, length in enumerate(shape):
        if axis in cut.takes:
            yield len(cut.takes[axis])
        else:
            yield length if axis != 1 or cut.own is None else cut.own.shape[1]


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
