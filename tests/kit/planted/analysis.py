"""Errors in what masks mean, and in what is known and needed."""

from __future__ import annotations

import dataclasses
from typing import Any
from unittest import mock

import numpy as np

from onnx_upscale.optimizer.analyze import constants, context, needs
from onnx_upscale.optimizer.analyze.rules import layers, normalization, selection, spatial
from onnx_upscale.optimizer.analyze.weights import MaskedWeights
from onnx_upscale.optimizer.load import masking
from planted.register import error, ruled, wrapped

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
