"""Zeros that cross a product of queries and keys, head by head.

What a channel of one head adds to its scores is zero if it is zero in the queries or in the keys.
In another head it may be the other of both, so that no channel of all heads is zero in either; yet
the product does without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnx_upscale.optimizer.analyze.batches import batch_axis
from onnx_upscale.optimizer.analyze.constants import Values
from onnx_upscale.optimizer.analyze.facts import Carry, Facts, Grid, How, same_axis
from onnx_upscale.optimizer.analyze.labels import distinct
from onnx_upscale.optimizer.analyze.structure import Structure
from onnx_upscale.optimizer.analyze.weights import BoolArray
from onnx_upscale.optimizer.load.graph import IntArray, Node
from onnx_upscale.optimizer.load.pointwise import MICROSOFT

_PRODUCTS = (("", "MatMul"), ("", "Einsum"), (MICROSOFT, "FusedMatMul"))
# What makes zeros of zeros; the constants that it reads are finite.
_ZERO_OF_ZERO = frozenset(
    {"Cast", "Div", "Identity", "Mul", "Neg", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"}
    | {"Relu", "Reshape", "Squeeze", "Tanh", "Transpose", "Unsqueeze"}
)


@dataclass(frozen=True)
class _Zeros:
    """Which channels of which head are zero.

    Attributes:
        heads: The roots of the heads.
        zero: One flag per head and channel.
    """

    heads: IntArray
    zero: BoolArray


def crossed(structure: Structure, values: Values) -> IntArray:
    """The products, by label, that are zero in every head without being known to be.

    Args:
        structure: The structure.
        values: Known values per label.
    """
    found = [np.zeros(0, np.int64)]
    trace = _Trace(structure, values)
    for facts in structure.facts:
        pair = _pair(facts)
        if pair is not None:
            zero = trace.in_product(facts, pair)
            found.append(pair.outputs[zero & (values[pair.outputs] != 0)])
    return np.concatenate(found)


def _pair(facts: Facts) -> Carry | None:
    """How a node multiplies two activations and sums over channels, if it does."""
    if facts.node.operator not in _PRODUCTS:
        return None
    products = [demand.labels for demand in facts.demands if demand.unless_zero]
    for carry in facts.carries:
        summed = any(np.array_equal(carry.outputs, labels) for labels in products)
        if summed and carry.how == How.ZERO and len(carry.inputs) == 2:
            return carry
    return None


class _Trace:
    """Follows channels back to where they were split into heads.

    Labels say by themselves what only moves: an axis may hold channels of several makers.
    """

    def __init__(self, structure: Structure, values: Values) -> None:
        self._structure, self._values = structure, values
        self._makers: list[tuple[Facts, IntArray]] = []
        self._maker, self._place_in = np.full((2, len(structure.roots)), -1)
        self._known: dict[int, _Zeros | None] = {}
        for facts in structure.facts:
            for labels in _made(facts):
                self._maker[labels] = len(self._makers)
                self._place_in[labels] = np.arange(len(labels))
                self._makers.append((facts, labels))

    def in_product(self, facts: Facts, pair: Carry) -> BoolArray:
        """Which products are zero in every head."""
        zero: BoolArray | None = None
        places = set[tuple[int | str | None, bytes]]()
        for slot, labels in pair.inputs.items():
            own = None if labels is None else self._zeros(labels)
            place = None if own is None else self._place(facts.node.inputs[slot], own.heads)
            if own is not None and place is not None:
                zero = own.zero if zero is None else own.zero | zero
                apart = batch_axis(self._structure.graph, facts.node, slot, place)
                places.add((apart, own.heads.tobytes()))
        if zero is None or len(places) > 1 or any(apart is None for apart, _ in places):
            return np.zeros(len(pair.outputs), bool)
        together: BoolArray = np.logical_and.reduce(zero)
        return together

    def _place(self, tensor: str, heads: IntArray) -> int | None:
        """Which axis of a tensor is that of some heads, counted from the end; None if not one."""
        rank = len(self._structure.graph.shapes[tensor])
        places = [
            axis - rank
            for axis, labels in self._structure.axes[tensor].items()
            if np.array_equal(self._structure.roots[labels], heads)
        ]
        return places[0] if len(places) == 1 else None

    def _zeros(self, labels: IntArray) -> _Zeros | None:
        """What is zero on an axis; None where that is not known of any of it."""
        heads, zero = None, None
        for maker in distinct(self._maker[labels]).tolist():
            if maker < 0:
                continue
            if maker not in self._known:
                self._known[maker] = self._zeros_made(*self._makers[maker])
            own = self._known[maker]
            if own is None or (heads is not None and not np.array_equal(own.heads, heads)):
                continue
            if zero is None:
                heads, zero = own.heads, np.zeros((len(own.heads), len(labels)), bool)
            mine = self._maker[labels] == maker
            zero[:, mine] = own.zero[:, self._place_in[labels[mine]]]
        return None if heads is None or zero is None else _Zeros(heads, zero)

    def _zeros_made(self, facts: Facts, labels: IntArray) -> _Zeros | None:
        """What is zero of what a node makes."""
        for grid in facts.grids:
            if _splits(grid) and same_axis(grid.factors[-1], labels):
                zero = (self._values[grid.flat] == 0).reshape(grid.shape)
                return _Zeros(self._structure.roots[grid.factors[0]], zero)
        node, graph = facts.node, self._structure.graph
        data = [name for name in node.inputs if name and name not in graph.constants]
        constants = [graph.value(node, slot) for slot, name in enumerate(node.inputs) if name]
        if not all(each is None or np.isfinite(each).all() for each in constants):
            return None
        if len(data) > 1 and node.operator == ("", "Mul"):
            return self._zeros_of_product(facts, labels)
        one = len(data) == 1 or node.op == "Reshape"  # Its shape is no part of it.
        if node.domain or node.op not in _ZERO_OF_ZERO or not one:
            return None
        if node.op == "Div" and node.inputs[0] not in data:
            return None
        part = next(tie.part for tie in facts.ties if same_axis(tie.flat, labels))
        return self._zeros(part)

    def _zeros_of_product(self, facts: Facts, labels: IntArray) -> _Zeros | None:
        """What is zero of a product with what is found at run time, such as a scale or a gate."""
        zeros: _Zeros | None = None
        for carry in facts.carries:
            factors = carry.inputs if same_axis(carry.outputs, labels) else {}
            for slot, part in factors.items():
                own = None if part is None else self._zeros(part)
                if own is None or not self._stay(facts.node, slot, own.heads):
                    continue
                if zeros is None:
                    zeros = own
                elif np.array_equal(zeros.heads, own.heads):
                    zeros = _Zeros(own.heads, zeros.zero | own.zero)
        return zeros

    def _stay(self, node: Node, slot: int, heads: IntArray) -> bool:
        """Whether heads are the same axis of an input and of the output, counted from the end."""
        place = self._place(node.inputs[slot], heads)
        return place is not None and place == self._place(node.outputs[0], heads)


def _splits(grid: Grid) -> bool:
    return grid.splits and len(grid.factors) == 2


def _made(facts: Facts) -> Iterator[IntArray]:
    """The axes that a node splits into heads, or makes of one other, channel by channel."""
    for grid in facts.grids:
        if _splits(grid):
            yield grid.factors[-1]
    for tie in facts.ties:
        axes = (labels for made in facts.outputs.values() for labels in made.values())
        if tie.outer == tie.inner == 1 and any(same_axis(tie.flat, labels) for labels in axes):
            yield tie.flat
