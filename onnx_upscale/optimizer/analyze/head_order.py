"""Which channels of one head lie beside which of another.

A head's channels are summed over, or go to the projection that reads them all: nobody asks which
number one has in its head. So each head may have an order of its own, if all that is made of the
same channels has it too. Where masks take other channels from every head, those that nobody needs
go to the end of each; then the same places of every head hold them, and leave.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from onnx_upscale.optimizer.analyze.constants import Values
from onnx_upscale.optimizer.analyze.crossing import crossed
from onnx_upscale.optimizer.analyze.facts import Facts, Grid, Param
from onnx_upscale.optimizer.analyze.needs import Needs
from onnx_upscale.optimizer.analyze.structure import HeadOrder, Structure
from onnx_upscale.optimizer.analyze.weights import BoolArray
from onnx_upscale.optimizer.load.fused import runs_as
from onnx_upscale.optimizer.load.graph import IntArray

# What does the same to every head, whatever the order of its channels.
_SAME_IN_ANY_ORDER = frozenset(
    {"Add", "Attention", "Cast", "DequantizeLinear", "Div", "Gather", "Identity", "MatMul", "Mul"}
    | {"Neg", "QuantizeLinear", "Reshape", "Shape", "Slice", "Split", "Squeeze", "Sub"}
    | {"Transpose", "Unsqueeze"}
)
_QUANTIZED = {"QLinearAdd": "Add", "QLinearMatMul": "MatMul", "QLinearMul": "Mul"}


@dataclass(frozen=True)
class _Heads:
    """Grids of the same heads and the same channels of each, by roots.

    Attributes:
        heads: The heads.
        channels: The channels of a head.
        grids: The grids, of labels.
    """

    heads: IntArray
    channels: IntArray
    grids: tuple[Grid, ...]


def with_own_orders(structure: Structure, values: Values, needs: Needs) -> Structure:
    """Gives heads orders of their own, where more can leave then.

    Args:
        structure: The structure.
        values: Known values per label.
        needs: What is needed while heads have the orders that they have.

    Returns:
        The structure, with other cells in its grids; the same where that gains nothing.
    """
    wanted = _wanted(structure, values, needs)
    moved: dict[bytes, IntArray] = {}
    orders = list(structure.head_orders)
    zero = [structure.crossed]
    for each in _heads_of(structure):
        order = _order(structure, each, values, needs, wanted)
        own = order is not None and _in_any_order(structure, each)
        if order is None or not own:
            order = np.tile(np.arange(each.grids[0].shape[1]), (each.grids[0].shape[0], 1))
        splits = [grid for grid in each.grids if grid.splits]
        if len(splits) > 1:
            zero += crossed(structure, each.heads, each.channels, splits, order, values)
        if not own:
            continue
        orders.append(HeadOrder(each.heads, each.channels, order))
        for grid in each.grids:
            cells = np.take_along_axis(grid.flat.reshape(grid.shape), order, axis=1)
            moved[grid.flat.tobytes()] = cells.ravel()
    gone = np.concatenate(zero)
    if not moved and gone.size == structure.crossed.size:
        return structure
    facts = tuple(_moved(each, moved) for each in structure.facts)
    return replace(structure, facts=facts, head_orders=tuple(orders), crossed=gone)


def _moved(facts: Facts, moved: Mapping[bytes, IntArray]) -> Facts:
    if not facts.grids:
        return facts
    grids = (replace(g, flat=moved.get(g.flat.tobytes(), g.flat)) for g in facts.grids)
    return replace(facts, grids=tuple(grids))


def _wanted(structure: Structure, values: Values, needs: Needs) -> BoolArray:
    """Per root, whether somebody wants it for itself, not to make a grid whole."""
    wanted = np.zeros(len(structure.roots), bool)
    for demand in structure.demands:
        labels = demand.labels
        nonzero = labels[values[labels] != 0] if demand.unless_zero else labels
        wanted[structure.roots[nonzero]] = True
    for read, _, inputs in structure.backward:
        wanted[inputs[needs.reads[read.layer.node.index]]] = True
    return wanted


def _heads_of(structure: Structure) -> Iterator[_Heads]:
    """Grids of two factors by their channels, where no other grid has these or the same cells."""
    roots = structure.roots
    found: dict[bytes, list[Grid]] = {}
    uses: dict[int, int] = {}
    shared: set[tuple[bytes, ...]] = set()
    for facts, grid in ((each, grid) for each in structure.facts for grid in each.grids):
        found.setdefault(roots[grid.factors[-1]].tobytes(), []).append(grid)
        # Grouped layers in a row have the same grid, which counts once; so have values and the
        # result of an attention that something else made of the values is added to.
        same = (grid.flat,) if facts.grouped is not None else grid.axes
        key = tuple(roots[axis].tobytes() for axis in same)
        again = key in shared
        shared.add(key)
        for axis in grid.factors if again else (*grid.factors, grid.flat):
            head = int(roots[axis[0]])
            uses[head] = uses.get(head, 0) + 1
    for grids in found.values():
        heads, channels = (roots[axis] for axis in (grids[0].factors[0], grids[0].factors[-1]))
        alike = all(
            len(grid.factors) == 2 and np.array_equal(roots[grid.factors[0]], heads)
            for grid in grids
        )
        once = all(
            uses[int(roots[grid.flat[0]])] == 1
            and len(np.unique(roots[grid.flat])) == len(grid.flat)  # None in a block with others.
            for grid in grids
        )
        if alike and once and uses[int(channels[0])] == len(grids):
            yield _Heads(heads, channels, tuple(grids))


def _order(
    structure: Structure, heads: _Heads, values: Values, needs: Needs, wanted: BoolArray
) -> IntArray | None:
    """Per head the order of its channels, those that may leave last; None if that gains nothing."""
    dead = np.zeros(heads.grids[0].shape, bool)
    for grid in heads.grids:
        gone = (
            values[grid.flat] == grid.zero if grid.splits else ~wanted[structure.roots[grid.flat]]
        )
        dead |= gone.reshape(grid.shape)
    live = ~dead[needs.labels[heads.heads]]
    most, together = live.sum(1).max(initial=0), np.count_nonzero(live.any(0))
    return np.argsort(dead, axis=1, kind="stable") if 0 < most < together else None


def _in_any_order(structure: Structure, heads: _Heads) -> bool:
    """Whether the order of channels may differ from head to head.

    Every tensor with these channels must have these heads beside them, no node may treat any of
    them apart, and a product must take one head after the other.
    """
    roots = structure.roots
    segment_of = {int(root): each for each in structure.segments for root in each.roots}
    channels, whole = (segment_of[int(axis[0])] for axis in (heads.channels, heads.heads))
    flats = [segment_of[int(roots[grid.flat[0]])] for grid in heads.grids]
    if channels.readers or channels.writers:
        return False
    for segment in (channels, *flats):
        if segment.concatenations or any(demand.ordered for demand in segment.demands):
            return False
    places = _places(structure, heads)
    # Heads themselves may be wanted as they are, or mixed where they stand without channels, as in
    # scores.
    if places is None or whole.concatenations:
        return False
    for facts in structure.facts:
        read = {places[name] for name in facts.node.inputs if name in places}
        operator = _QUANTIZED.get(facts.node.op, runs_as(facts.node))
        other = operator == facts.node.op and facts.node.domain
        if read and (other or operator not in _SAME_IN_ANY_ORDER):
            return False
        if operator == "MatMul" and (len(read) > 1 or max(read, default=-3) > -3):
            return False
        if any(_by_channel(structure, facts, param, heads) for param in facts.params):
            return False
    return True


def _by_channel(structure: Structure, facts: Facts, param: Param, heads: _Heads) -> bool:
    """Whether a constant has a value for each channel of a head."""
    constant = structure.graph.value(facts.node, param.slot)
    mine = bool(np.isin(structure.roots[param.labels], heads.channels).any())
    return mine and constant is not None and param.place(constant) is not None


def _places(structure: Structure, heads: _Heads) -> Mapping[str, int] | None:
    """The axis of the heads in each tensor that has the channels, counted from the end.

    None where either stands somewhere in part, twice, or in another order, or channels alone.
    """
    found: dict[str, int] = {}
    for tensor, axes in structure.axes.items():
        kinds = {axis: structure.roots[labels] for axis, labels in axes.items()}
        at: list[list[int]] = []
        for wanted in (heads.heads, heads.channels):
            own = [axis for axis, kind in kinds.items() if np.isin(kind, wanted).any()]
            if len(own) > 1 or not all(np.array_equal(kinds[axis], wanted) for axis in own):
                return None
            at.append(own)
        (beside, mine) = at
        if mine and not beside:
            return None
        if mine:
            found[tensor] = beside[0] - len(structure.graph.shapes[tensor])
    return found
