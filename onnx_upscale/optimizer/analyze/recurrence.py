"""Which hidden units of a recurrent layer are zero at every step.

A unit is zero if it starts as zero and nothing but zeros ever comes into it: from channels of the
input and from other units. That units are zero may take that others are; so all are taken for zero
that start so, and those that something reaches are struck off until none is left to strike.
"""

from __future__ import annotations

import numpy as np
from onnx import numpy_helper

from onnx_upscale.optimizer.analyze.facts import Facts, Write
from onnx_upscale.optimizer.analyze.weights import BoolArray, Floats
from onnx_upscale.optimizer.load.graph import Graph, Node
from onnx_upscale.optimizer.load.recurrence import (
    BIAS_SLOT,
    START_SLOTS,
    STATE_WEIGHT_SLOT,
    Recurrence,
)

_REPEATS_OR_MOVES = frozenset(
    {"Cast", "Concat", "Expand", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze"}
    | {"Tile", "Transpose", "Unsqueeze"}
)


def known_units(graph: Graph, facts: Facts, write: Write, values: Floats) -> Floats:
    """What is known of the hidden units of a recurrent layer.

    Args:
        graph: The graph seen through masks.
        facts: What is known of the node.
        write: Its writing side.
        values: Known values per label.

    Returns:
        0 for those that are zero at every step, NaN for the others; shape (units,).
    """
    layer, node = write.layer, facts.node
    assert layer is not None
    assert layer.recurrence is not None
    recurrence = layer.recurrence
    weight, between = (graph.value(node, slot) for slot in (layer.weight_slot, STATE_WEIGHT_SLOT))
    assert weight is not None
    assert between is not None
    variable = write.seen(values) != 0
    reached = (recurrence.incoming(weight) != 0)[..., variable].any(-1)
    reached |= _added(graph, node, recurrence)
    reached |= ~np.array(recurrence.rests)[:, np.newaxis]
    for slot in START_SLOTS:
        reached |= _starts(graph, facts, slot, values)
    connected = recurrence.incoming(between) != 0
    before = np.zeros_like(reached)
    while not np.array_equal(before, reached):
        before = reached
        reached = before | (connected & before[:, np.newaxis]).any(-1)
    return np.where(reached.any(0), np.nan, 0.0)


def _added(graph: Graph, node: Node, recurrence: Recurrence) -> BoolArray:
    """To which units a bias adds something, shape (directions, units)."""
    bias = graph.value(node, BIAS_SLOT)
    if bias is None:
        return np.zeros((len(recurrence.rests), recurrence.units), bool)
    # Some operators do more to one half than to the other, so that they need not cancel.
    one, other = (recurrence.incoming(half) != 0 for half in np.split(bias, 2, axis=1))
    return np.asarray(one | other, bool)


def _starts(graph: Graph, facts: Facts, slot: int, values: Floats) -> BoolArray:
    """Which units may start as something else than zero, in a shape that broadcasts."""
    tensor = facts.node.input(slot)
    if not tensor or _is_zero(graph, tensor):
        return np.zeros(1, bool)
    constant, labels = graph.value(facts.node, slot), facts.inputs.get(slot, {}).get(2)
    if constant is not None:
        return np.asarray((constant != 0).any((0, 1)), bool)
    return np.ones(1, bool) if labels is None else values[labels] != 0


def _is_zero(graph: Graph, tensor: str) -> bool:
    """Whether a tensor is made of zeros alone, at whatever sizes a run shows."""
    constant = graph.constants.get(tensor)
    if constant is not None:
        return not constant.any()
    maker = graph.producers.get(tensor)
    if maker is None or maker.domain:
        return False
    if maker.op == "ConstantOfShape":
        filled = maker.attributes.get("value")
        return filled is None or not numpy_helper.to_array(filled).any()
    if maker.op not in _REPEATS_OR_MOVES:
        return False
    sources = maker.inputs if maker.op == "Concat" else maker.inputs[:1]
    return all(_is_zero(graph, source) for source in sources)
