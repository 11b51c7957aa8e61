"""Errors to plant, one at a time, to see whether verification finds them.

Each entry of `ERRORS` makes one small part of the package wrong while its context is open; what it
breaks is a mistake that somebody could make. `tools/who_catches.py` lists who catches which.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

from onnx_upscale.optimizer import plan
from onnx_upscale.optimizer.analyze import constants, context, needs
from onnx_upscale.optimizer.analyze.rules import RULES, layers, normalization, selection, spatial
from onnx_upscale.optimizer.analyze.weights import MaskedWeights
from onnx_upscale.optimizer.apply import dequantized, surgery, weights
from onnx_upscale.optimizer.load import masking
from onnx_upscale.optimizer.plan import layout, realizations

Patch = Callable[[], Any]
ERRORS: dict[str, Patch] = {}


def error(name: str) -> Callable[[Patch], Patch]:
    """Registers an error: a function that gives a context in which it is there."""

    def register(patch: Patch) -> Patch:
        ERRORS[name] = patch
        return patch

    return register


def wrapped(owner: Any, name: str, change: Callable[..., Any]) -> Any:
    """A context in which `change(original, *args)` runs in place of a function."""
    original = getattr(owner, name)

    def run(*args: Any, **kwargs: Any) -> Any:
        return change(original, *args, **kwargs)

    return mock.patch.object(owner, name, run)


def ruled(operators: str, rule: Callable[[Any], None]) -> Any:
    """A context in which operators have another rule."""
    table: Mapping[tuple[str, str], Any] = {("", name): rule for name in operators.split()}
    return mock.patch.dict(RULES, table)


# Masks.


@error("masks: an input mask misses its last channel")
def _() -> Any:
    return wrapped(masking._Overlay, "zero_inputs", lambda f, s, la, c: f(s, la, c[:-1]))


@error("masks: an output mask misses its first channel")
def _() -> Any:
    return wrapped(masking._Overlay, "zero_outputs", lambda f, s, la, c: f(s, la, c[1:]))


@error("masks: an output mask stops before the affine operations behind a layer")
def _() -> Any:
    def change(f: Any, graph: Any, layer: Any) -> Any:
        return [each for each in f(graph, layer) if each.use[0] == layer.node.index]

    return wrapped(masking, "addends", change)


@error("masks: an output mask leaves the bias")
def _() -> Any:
    def change(f: Any, graph: Any, layer: Any) -> Any:
        return [each for each in f(graph, layer) if each.use[0] != layer.node.index]

    return wrapped(masking, "addends", change)


@error("masks: the input channels of a grouped convolution count within the first group")
def _() -> Any:
    def change(f: Any, self: Any, layer: Any, channels: Any) -> None:
        f(self, layer, channels % (layer.inputs // layer.groups))

    return wrapped(masking._Overlay, "zero_inputs", change)


# Rules.


def _same_value(node: Any) -> None:
    for axis, labels in node.axes(0).items():
        node.pass_on(axis, labels, "same")


@error("rules: a known value passes Sigmoid and the like unchanged")
def _() -> Any:
    return ruled("Sigmoid HardSigmoid Softplus Cos Clip Pow", _same_value)


@error("rules: a known value passes BatchNormalization unchanged")
def _() -> Any:
    def change(f: Any, node: Any, *args: Any) -> None:
        f(node, *args)
        node._carries[:] = [dataclasses.replace(carry, how="same") for carry in node._carries]

    return wrapped(normalization, "_per_channel", change)


@error("rules: a padded convolution absorbs constants into its bias")
def _() -> Any:
    return mock.patch.object(layers, "has_padding", lambda node: False)


@error("rules: a pooling makes of a constant the constant, whatever its borders")
def _() -> Any:
    return ruled("AveragePool LpPool", _same_value)


@error("rules: a padded border of another value leaves known zeros zero")
def _() -> Any:
    return mock.patch.object(spatial, "_border", lambda node: "same")


@error("rules: a norm over channels does without those that are zero")
def _() -> Any:
    def mix(node: Any, mixed: Any) -> None:
        for axis, labels in node.axes(0).items():
            node.pass_on(axis, labels)

    return mock.patch.object(normalization, "_mix", mix)


@error("rules: Slice and Gather take the channel behind the one they take")
def _() -> Any:
    def change(f: Any, node: Any, axis: Any, labels: Any, picks: Any, fit: Any) -> None:
        f(node, axis, labels, [np.minimum(pick + 1, len(labels) - 1) for pick in picks], fit)

    return wrapped(selection, "_select", change)


@error("rules: a flat axis is laid out the other way round")
def _() -> Any:
    def change(f: Any, self: Any, flat: Any, part: Any, outer: int = 1, inner: int = 1) -> None:
        f(self, flat, part, inner, outer)

    return wrapped(context.Context, "tie", change)


@error("rules: two activations are multiplied without their channels being coupled")
def _() -> Any:
    def product(node: Any, *args: Any) -> None:
        one, other = node.shape(0), node.shape(1)
        rank = len(node.output_shape())
        if len(one) - 2 in node.axes(0):
            node.pass_on(rank - 2, node.axes(0)[len(one) - 2], slot=0)
        if len(other) - 1 in node.axes(1):
            node.pass_on(rank - 1, node.axes(1)[len(other) - 1], slot=1)

    return mock.patch.object(layers, "product_of_activations", product)


@error("rules: adding zero gives zero, as multiplying by it does")
def _() -> Any:
    def change(f: Any, self: Any, carry: Any) -> None:
        f(self, dataclasses.replace(carry, annihilates=True))

    return wrapped(context.Context, "carry", change)


# Known values.


@error("constants: what an input adds forgets the factor of a Gemm")
def _() -> Any:
    def change(f: Any, self: Any, layer: Any, inputs: Any) -> Any:
        return f(self, layer, inputs) / float(layer.node.attributes.get("alpha", 1.0))

    return wrapped(MaskedWeights, "contribution", change)


@error("constants: a layer that reads nothing makes zeros, whatever its bias")
def _() -> Any:
    return mock.patch.object(constants, "layer_bias", lambda g, la: np.zeros(la.outputs))


@error("constants: a value is known if one of its operands is")
def _() -> Any:
    def change(f: Any, graph: Any, told: Any, carry: Any, values: Any) -> Any:
        result = f(graph, told, carry, values)
        for labels in carry.inputs.values():
            if labels is not None:
                result = np.where(values[labels] == 0, 0.0, result)
        return result

    return wrapped(constants, "_carried", change)


# Needs.


@error("needs: a reader does not need the last channel it needs")
def _() -> Any:
    def change(f: Any, *args: Any) -> Any:
        columns = f(*args).copy()
        columns[np.flatnonzero(columns)[-1:]] = False
        return columns

    return wrapped(needs, "_needed_inputs", change)


@error("needs: every reader absorbs whatever is known")
def _() -> Any:
    def change(f: Any, read: Any, *rest: Any) -> Any:
        return f(dataclasses.replace(read, padded=False), *rest)

    return wrapped(needs, "_needed_inputs", change)


@error("needs: half of the outputs of a layer need nothing")
def _() -> Any:
    def change(f: Any, read: Any, live: Any, *rest: Any) -> Any:
        half = live.copy()
        half[len(live) // 2 :] = False
        return f(read, half, *rest)

    return wrapped(needs, "_needed_inputs", change)


# Order.


def _turned() -> Any:
    """Every segment in the opposite order, so that it matters who looks after order."""

    def turned(structure: Any, kept: Any, segment: Any, strategy: Any) -> Any:
        return segment.roots[segment.original[::-1]]

    return mock.patch.object(plan, "arrange", turned)


@error("order: an axis whose order matters is not put back")
@contextmanager
def _() -> Iterator[None]:
    def misfits(structure: Any, laid: Any) -> list[Any]:
        return layout.misfits(dataclasses.replace(structure, demands=()), laid)

    with _turned(), mock.patch.object(plan, "misfits", misfits):
        yield


# Realizations. Plans are checked before they are applied; here the check is blind as well.


def _edited(owner: type, change: Callable[[Any], Any]) -> Any:
    """A context in which a realization changes something else on its edge."""
    return wrapped(owner, "edits", lambda f, self: tuple(change(edit) for edit in f(self)))


@contextmanager
def _unchecked(patch: Any) -> Iterator[None]:
    with (
        patch,
        mock.patch.object(
            sys.modules["onnx_upscale.optimizer.apply"], "check_plan", lambda _: None
        ),
    ):
        yield


@error("realizations: the channels of a copy are shifted by one")
def _() -> Any:
    return _unchecked(
        _edited(
            realizations._Copy,
            lambda edit: dataclasses.replace(edit, chosen=np.roll(edit.chosen, -1)),
        )
    )


@error("realizations: a copy turns the channels round, the weights do not")
def _() -> Any:
    return _unchecked(
        _edited(
            realizations._Copy, lambda edit: dataclasses.replace(edit, chosen=edit.chosen[::-1])
        )
    )


@error("realizations: a copy moves before a node whose constants stay those of other channels")
def _() -> Any:
    def change(f: Any, self: Any, narrow: Any) -> Any:
        return f(self, {labels: np.arange(len(own)) for labels, own in narrow.items()})

    return _unchecked(wrapped(layout.Layout, "narrowed", change))


@error("realizations: zeros are padded at the other end")
def _() -> Any:
    return _unchecked(
        _edited(
            realizations.Pad,
            lambda edit: dataclasses.replace(edit, before=edit.after, after=edit.before),
        )
    )


@error("realizations: a padded writer computes its channels in another order")
def _() -> Any:
    def change(f: Any, *args: Any) -> Any:
        found = f(*args)
        if found.name != "pad":
            return found
        return dataclasses.replace(found, positions=found.positions[::-1])

    return _unchecked(wrapped(plan, "realize_writer", change))


# Weights and biases.


@error("weights: the scales of a normalization are cut to the first channels")
def _() -> Any:
    def change(f: Any, made: Any, index: int, cuts: Any) -> None:
        f(made, index, cuts)
        is_norm = made.analysis.graph.nodes[index].op == "BatchNormalization"
        if is_norm and (index, 1) in cuts:
            cut = cuts[index, 1]
            cut.takes = {axis: np.arange(len(p)) for axis, p in cut.takes.items()}

    return wrapped(weights, "_collect", change)


@error("weights: all uses of a weight get the same cut of it")
def _() -> Any:
    def key(self: Any) -> bytes:
        return repr([(axis, len(taken)) for axis, taken in sorted(self.takes.items())]).encode()

    return mock.patch.object(weights.Cut, "key", key)


@error("weights: a masked quantized weight is zero, not its zero point")
def _() -> Any:
    def change(f: Any, made: Any) -> Any:
        return f(dataclasses.replace(made, zero=None))

    return wrapped(dequantized.Dequantized, "_zeros", change)


@error("weights: the input channels of a weight are cut to the first ones")
def _() -> Any:
    def change(f: Any, made: Any, index: int, cuts: Any) -> None:
        f(made, index, cuts)
        reader = made.readers.get(index)
        if reader is not None and reader.read.layer.weight in cuts:
            takes, axis = cuts[reader.read.layer.weight].takes, reader.read.layer.weight_input_axis
            if axis in takes:
                takes[axis] = np.arange(len(takes[axis]))

    return wrapped(weights, "_collect", change)


@error("biases: what a channel of known value adds is subtracted")
def _() -> Any:
    return wrapped(MaskedWeights, "contribution", lambda f, *args: -f(*args))


@error("biases: channels that are still read are absorbed as well")
def _() -> Any:
    def change(f: Any, analysis: Any, reading: Any, writing: Any) -> Any:
        return f(analysis, dataclasses.replace(reading, chosen=reading.chosen[:0]), writing)

    return wrapped(plan, "_absorbed", change)


@error("biases: an existing bias is replaced by what is absorbed")
def _() -> Any:
    def change(f: Any, surgery_: Any, edit: Any, cuts: Any) -> None:
        f(surgery_, edit, cuts)
        layer = edit.layer
        cut = cuts.get((layer.node.index, layer.bias_slot))
        if cut is not None and cut.values is not None:
            bias = surgery_.graph.value(layer.node, layer.bias_slot)
            cut.values = (cut.values - bias).astype(bias.dtype)

    return wrapped(weights, "_shift", change)


# Emitting.


@error("emit: a Slice starts one channel too early")
def _() -> Any:
    def change(f: Any, rank: int, editor: Any, axis: int, picks: Any, size: int) -> None:
        f(rank, editor, axis, [pick - 1 if pick.min() else pick for pick in picks], size)

    return wrapped(selection, "_fit_slice", change)


@error("emit: an attribute of a node is lost")
def _() -> Any:
    def change(f: Any, original: Any, node: Any, target: Any) -> None:
        f(original, node, target)
        kept = [a for a in target.attribute if a.name != "mode"]
        del target.attribute[:]
        target.attribute.extend(kept)

    return wrapped(sys.modules["onnx_upscale.optimizer.apply.emit"], "_copy_node", change)


@error("emit: what is put behind a node stands in front of what is there already")
def _() -> Any:
    def insert(self: Any, index: int, op: str, stem: str, inputs: Any, **attributes: Any) -> None:
        node = self.nodes[index]
        old = node.outputs[0]
        raw = self.variable(f"{old.name}.{op.lower()}_input")
        node.outputs[0] = raw
        made = self.node(op, stem, [raw, *inputs], [old], **attributes)
        self.after.setdefault(index, []).insert(0, made)

    return mock.patch.object(surgery.Surgery, "insert_after", insert)
