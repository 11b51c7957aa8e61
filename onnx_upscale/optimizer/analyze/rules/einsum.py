"""Einsum: a letter of its equation is an axis, wherever it stands."""

from __future__ import annotations

from collections.abc import Mapping

from onnx_upscale.optimizer.analyze.context import Context, UnclearError
from onnx_upscale.optimizer.analyze.facts import Carry, How
from onnx_upscale.optimizer.analyze.rules.layers import contract
from onnx_upscale.optimizer.analyze.rules.table import rule
from onnx_upscale.optimizer.load.einsum import Equation, equation_of, equation_text
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.load.layers import Layer, layer_of


@rule("Einsum")
def einsum(node: Context) -> None:
    """With a constant operand a reader and writer; else letters couple what has them."""
    ranks = [len(node.shape(slot)) for slot in range(len(node.node.inputs))]
    equation = equation_of(equation_text(node.node.attributes), ranks)
    if equation is None or len(ranks) > 2:
        raise UnclearError("its equation is none of those that are understood")
    layer = layer_of(node.graph, node.node)
    if layer is not None:
        _contract(node, layer, equation)
        return
    for letter in dict.fromkeys("".join(equation.terms)):
        _pass(node, equation, letter)


def _contract(node: Context, layer: Layer, equation: Equation) -> None:
    data, weight = equation.terms[layer.data_slot], equation.terms[layer.weight_slot]
    if node.shape(layer.data_slot)[layer.data_axis] != layer.inputs:
        raise UnclearError("its weight does not fit its input")
    for axis, labels in node.axes(layer.data_slot).items():
        if axis == layer.data_axis:
            continue
        if data[axis] in weight:
            node.pin(layer.data_slot, axis, "multiplied by a batch of constant matrices")
        else:
            node.pass_on(equation.result.index(data[axis]), labels, slot=layer.data_slot)
    # What a known value adds differs from matrix to matrix of a batch, so only zeros are absorbed.
    contract(node, layer, padded=layer.window > 1)


def _pass(node: Context, equation: Equation, letter: str) -> None:
    """What becomes of the axes of one letter."""
    axes = {slot: term.index(letter) for slot, term in enumerate(equation.terms) if letter in term}
    labelled = {
        slot: node.axes(slot)[axis] for slot, axis in axes.items() if axis in node.axes(slot)
    }
    if not labelled:
        return
    lengths = {len(labels) for labels in labelled.values()}
    others = axes.keys() - labelled.keys()
    kept = letter in equation.result
    scaled = kept and all(_is_whole(node, slot, axes[slot], lengths) for slot in others)
    if len(lengths) > 1 or (others and not scaled):
        for slot in labelled:
            node.pin(slot, axes[slot], "multiplied with a tensor whose channels are not known")
    elif kept:
        _keep(node, equation.result.index(letter), axes, labelled)
    elif len(labelled) == 2:
        node.contracts_pairs(labelled[0], labelled[1], axes[0])
    else:
        (slot,) = labelled
        node.need(slot, axes[slot], "summed over", unless_zero=True)


def _is_whole(node: Context, slot: int, axis: int, lengths: set[int]) -> bool:
    """Whether an operand is constant, with a slice for each of so many channels."""
    constant = node.constant(slot)
    return constant is not None and {constant.shape[axis]} == lengths


def _keep(
    node: Context, place: int, axes: Mapping[int, int], labelled: Mapping[int, IntArray]
) -> None:
    first, *more = labelled.values()
    made = node.make(place, len(first))
    for labels in (first, *more):
        node.tie(made, labels)
    for slot in axes.keys() - labelled.keys():
        node.param(slot, axes[slot], made)
    node.carry(Carry(How.ZERO, dict(labelled), place, made))
