"""Zeros that cross a product of queries and keys, head by head.

What a channel of one head adds to its scores is zero if it is zero in the queries or in the keys.
In another head it may be the other of both, so that no channel of all heads is zero in either; yet
the product does without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnx_upscale.optimizer.analyze.constants import Values
from onnx_upscale.optimizer.analyze.facts import Carry, Facts, Grid, How
from onnx_upscale.optimizer.analyze.structure import Structure
from onnx_upscale.optimizer.analyze.weights import BoolArray
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.load.pointwise import MICROSOFT

_PRODUCTS = (("", "MatMul"), (MICROSOFT, "FusedMatMul"))
# What makes zeros of zeros; the constants that it reads are finite.
_ZERO_OF_ZERO = frozenset(
    {"Cast", "Div", "Identity", "Mul", "Neg", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)


def crossed(
    structure: Structure,
    heads: IntArray,
    channels: IntArray,
    grids: Sequence[Grid],
    order: IntArray,
    values: Values,
) -> list[IntArray]:
    """The products, by label, that are zero in every head without being known to be.

    Args:
        structure: The structure.
        heads: The roots of the heads.
        channels: The roots of the channels of a head.
        grids: The grids that split channels into these.
        order: Per head, the channel that will lie in each place.
        values: Known values per label.
    """
    made_by = {name: facts for facts in structure.facts for name in facts.node.outputs}
    found = []
    for facts in structure.facts:
        pair = _pair(structure, facts, channels)
        if pair is None:
            continue
        zero = np.zeros(order.shape, bool)
        for slot in pair.inputs:
            if _has(structure, facts.node.inputs[slot], (heads, channels)):
                zero |= _zeros(structure, made_by, facts.node.inputs[slot], grids, values)
        places = np.take_along_axis(zero, order, axis=1).all(0)
        found.append(pair.outputs[places & (values[pair.outputs] != 0)])
    return found


def _pair(structure: Structure, facts: Facts, channels: IntArray) -> Carry | None:
    """How a node multiplies two activations and sums over these channels, if it does."""
    if facts.node.operator not in _PRODUCTS:
        return None
    products = [demand.labels for demand in facts.demands if demand.unless_zero]
    for carry in facts.carries:
        summed = any(np.array_equal(carry.outputs, labels) for labels in products)
        mine = np.array_equal(structure.roots[carry.outputs], channels)
        if summed and mine and carry.how == How.ZERO and len(carry.inputs) == 2:
            return carry
    return None


def _has(structure: Structure, tensor: str, wanted: Sequence[IntArray]) -> bool:
    """Whether each of some axes is an axis of a tensor."""
    roots = [structure.roots[labels] for labels in structure.axes.get(tensor, {}).values()]
    return all(any(np.array_equal(axis, each) for each in roots) for axis in wanted)


def _zeros(
    structure: Structure,
    made_by: Mapping[str, Facts],
    tensor: str,
    grids: Sequence[Grid],
    values: Values,
) -> BoolArray:
    """Which channels of which head are zero in a tensor."""
    graph = structure.graph
    nowhere = np.zeros(grids[0].shape, bool)
    while tensor in made_by:
        facts = made_by[tensor]
        axes = [labels for axes in facts.outputs.values() for labels in axes.values()]
        for grid in grids:
            mine = any(np.array_equal(grid.factors[-1], labels) for labels in axes)
            if mine and any(np.array_equal(grid.flat, each.flat) for each in facts.grids):
                zero: BoolArray = values[grid.flat] == 0
                return zero.reshape(grid.shape)
        node = facts.node
        data = [name for name in node.inputs if name and name not in graph.constants]
        constants = [graph.value(node, at) for at, name in enumerate(node.inputs) if name]
        finite = all(each is None or np.isfinite(each).all() for each in constants)
        one = len(data) == 1 or node.op == "Reshape"  # Its shape is no part of it.
        if node.domain or node.op not in _ZERO_OF_ZERO or not one or not finite:
            return nowhere
        tensor = node.inputs[0] if node.op in ("Div", "Reshape") else data[0]
    return nowhere
