"""Pooling and reductions."""

from __future__ import annotations

from onnx_upscale.optimizer.analyze.context import Context
from onnx_upscale.optimizer.analyze.facts import How
from onnx_upscale.optimizer.analyze.rules.layers import has_padding
from onnx_upscale.optimizer.analyze.rules.table import rule


@rule("MaxPool AveragePool LpPool GlobalMaxPool GlobalAveragePool GlobalLpPool")
def pool(node: Context) -> None:
    """Each channel is pooled by itself."""
    if node.used(1):
        node.pin_others(0, set(), "its indices count channels")
        return
    node.pin_others(0, {0, 1}, "pooled over")
    operator = node.node.op
    how = How.SAME
    if operator.endswith("LpPool") or (
        operator == "AveragePool" and node.attribute("count_include_pad", 0) and has_padding(node)
    ):
        how = How.ZERO
    for axis in (0, 1):
        if axis in node.axes(0):
            node.pass_on(axis, node.axes(0)[axis], how)


# What a reduction makes of channels that hold one value everywhere.
_CARRIES = {
    "ReduceMean": How.SAME,
    "ReduceMax": How.SAME,
    "ReduceMin": How.SAME,
    "ReduceSum": How.ZERO,
    "ReduceL1": How.ZERO,
    "ReduceL2": How.ZERO,
    "ReduceSumSquare": How.ZERO,
}
_DROPS_ZEROS = frozenset({"ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare"})


@rule(f"{' '.join(_CARRIES)} ReduceProd ReduceLogSum ReduceLogSumExp ArgMax ArgMin")
def reduce(node: Context) -> None:
    """Reduced axes are needed whole; the others pass."""
    rank, operator = len(node.shape()), node.node.op
    if operator.startswith("Arg"):
        given: list[int] | None = [node.attribute("axis", 0)]
    else:
        given = node.constant_list(1, "axes")
    keep = bool(node.attribute("keepdims", 1))
    if given:
        reduced = {int(axis) % rank for axis in given}
    else:
        reduced = set() if node.attribute("noop_with_empty_axes", 0) else set(range(rank))
    for axis, labels in node.axes(0).items():
        if axis not in reduced:
            place = axis if keep else axis - sum(other < axis for other in reduced)
            # With nothing reduced, some of the family still compute (a square, a logarithm).
            node.pass_on(place, labels, _CARRIES.get(operator, How.NONE) if reduced else How.NONE)
        elif operator.startswith("Arg"):
            node.pin(0, axis, "its indices are the result")
        else:
            node.need(0, axis, "reduced over", unless_zero=operator in _DROPS_ZEROS)


@rule("CumSum")
def cumulative_sum(node: Context) -> None:
    """Runs along one axis; the others pass."""
    given = node.constant(1)
    for axis, labels in node.axes(0).items():
        if given is None or axis == int(given.item()) % len(node.shape()):
            node.pin(0, axis, "summed in order")
        else:
            node.pass_on(axis, labels, How.ZERO)
