"""The new values of parameters, read from a model that was emitted by a plain plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from onnx_upscale.optimizer.load.graph import Graph, IntArray, Node, Use, build_graph
from onnx_upscale.optimizer.load.layers import Layer, layer_of
from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.optimizer.plan import Plan, Select, Shift
from onnx_upscale.torch.matching import Match


@dataclass(frozen=True)
class NewLayer:
    """A layer of the emitted model.

    Attributes:
        weight: Its weight, laid out as torch lays it out.
        bias: What it adds, per output channel, or None.
        made: The original output channels that it computes.
        chosen: What it reads, as places in what it is given, or None for all.
        groups: Count of groups.
        transposed: Whether it is a transposed convolution.
    """

    weight: Array
    bias: Array | None
    made: IntArray
    chosen: IntArray | None
    groups: int
    transposed: bool

    def like(self, other: NewLayer) -> bool:
        """Whether one weight can be in both."""
        pairs = ((self.weight, other.weight), (self.made, other.made), (self.chosen, other.chosen))
        return all(_same(*pair) for pair in pairs)


@dataclass
class Values:
    """The new values of a module.

    Attributes:
        layers: Its layers by the name of their weight.
        biases: What they add, by the path of each module that holds the weight.
        others: Other parameters and buffers by name.
        torn: Where nodes would need different values of one parameter, by its name.
    """

    layers: dict[str, NewLayer] = field(default_factory=dict)
    biases: dict[str, Array | None] = field(default_factory=dict)
    others: dict[str, Array] = field(default_factory=dict)
    torn: dict[str, tuple[Use, ...]] = field(default_factory=dict)


def new_values(match: Match, plan: Plan, emitted: onnx.ModelProto) -> Values:
    """Reads the values of parameters.

    Args:
        match: Where they are.
        plan: The plan.
        emitted: What was emitted by it.

    Returns:
        The values.
    """
    after = build_graph(emitted, runs=False)
    nodes = {node.title: node for node in after.nodes}
    values = Values()

    def cut(uses: Iterable[Use], name: str) -> list[Array]:
        own = match.tensors[name].detach().numpy()
        found = (_new_value(match.graph, after, nodes, use, own) for use in uses)
        return [each for each in found if each is not None]

    for name, layers in match.layers.items():
        made = [_new_layer(match, plan, after, nodes, layer) for layer in layers]
        inside = {layer.weight for layer in layers}
        outside = [use for use in match.uses[name] if use not in inside]
        first, biases = made[0], _biases(match, name, made)
        if (
            first is None
            or biases is None
            or not all(each is not None and first.like(each) for each in made)
            or not all(_same(first.weight, each) for each in cut(outside, name))
        ):
            values.torn[name] = (*inside, *outside)
        else:
            values.layers[name] = first
            values.biases.update(biases)
    for name, uses in match.uses.items():
        known = [] if name in match.layers else cut(uses, name)
        if not known:
            continue
        if all(_same(known[0], each) for each in known):
            values.others[name] = known[0]
        else:
            values.torn[name] = uses
    return values


def _biases(
    match: Match, name: str, made: Sequence[NewLayer | None]
) -> dict[str, Array | None] | None:
    """What each of the modules that hold a weight adds; None where one adds several."""
    callers, found = match.callers[name], dict[str, Array | None]()
    for layer, new in zip(match.layers[name], made, strict=True):
        scope = match.scopes[layer.node.index]
        path, bias = scope if scope in callers else callers[0], None if new is None else new.bias
        if not _same(found.setdefault(path, bias), bias):
            return None
    return found if set(found) == set(callers) else None


def _new_layer(
    match: Match, plan: Plan, after: Graph, nodes: Mapping[str, Node], layer: Layer
) -> NewLayer | None:
    index, node = layer.node.index, nodes.get(layer.node.title)
    new = None if node is None else layer_of(after, node)
    if node is None or new is None:
        return None
    weight = after.value(node, new.weight_slot)
    assert weight is not None
    turned = weight.ndim == 2 and layer.weight_output_axis == 1
    bias = None if new.bias_slot is None else after.value(node, new.bias_slot)
    edits = plan.edits.get(index, ())
    if new.bias_slot is None:
        for edit in edits:
            if isinstance(edit, Shift):
                bias = edit.amounts[edit.positions].astype(weight.dtype)
    writing = plan.writers.get(index)
    made = np.arange(layer.outputs) if writing is None else writing.positions
    chosen = [edit.chosen for edit in edits if isinstance(edit, Select)]
    return NewLayer(
        weight=weight.T if turned else weight,
        bias=None if bias is None else np.broadcast_to(bias, (len(made),)),
        made=made,
        chosen=chosen[0] if chosen else None,
        groups=new.groups,
        transposed=new.transposed,
    )


def _new_value(
    before: Graph, after: Graph, nodes: Mapping[str, Node], use: Use, own: Array
) -> Array | None:
    """A constant laid out as its parameter is, but for what it lost; None where it is gone."""
    node, shape = before.nodes[use[0]], own.shape
    old, now = before.constants.get(node.inputs[use[1]]), nodes.get(node.title)
    new = None if now is None else after.value(now, use[1])
    if old is None or new is None:
        return None
    as_it_is = old.shape == shape and new.ndim == old.ndim
    turned = old.shape == shape[::-1] and new.ndim == old.ndim
    if turned and (not as_it_is or (np.array_equal(old, own.T) and not np.array_equal(old, own))):
        return new.T
    if as_it_is:
        return new
    # An exporter may have added axes of size one.
    left = [size for size in new.shape if size != 1]
    if [size for size in old.shape if size != 1] != [size for size in shape if size != 1]:
        return None
    if len(left) != sum(size != 1 for size in shape):
        return None
    sizes = iter(left)
    return new.reshape([1 if size == 1 else next(sizes) for size in shape])


def _same(one: Array | None, other: Array | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)
