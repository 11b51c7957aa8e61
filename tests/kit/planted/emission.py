"""Errors in what is planned, and in what is made of it."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

from onnx_upscale.optimizer import plan
from onnx_upscale.optimizer.analyze.rules import selection
from onnx_upscale.optimizer.analyze.weights import MaskedWeights
from onnx_upscale.optimizer.apply import dequantized, surgery, weights
from onnx_upscale.optimizer.plan import edits, layout, readings, writings
from planted.register import error, wrapped

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
            readings._Copy,
            lambda edit: dataclasses.replace(edit, chosen=np.roll(edit.chosen, -1)),
        )
    )


@error("realizations: a copy turns the channels round, the weights do not")
def _() -> Any:
    return _unchecked(
        _edited(readings._Copy, lambda edit: dataclasses.replace(edit, chosen=edit.chosen[::-1]))
    )


@error("realizations: each part of a layer reads the copy of the other")
def _() -> Any:
    parts: Any = edits.SelectParts.parts
    swapped = property(lambda edit: parts.fget(edit)[::-1])
    return mock.patch.object(edits.SelectParts, "parts", swapped)


@error("realizations: a copy moves before a node whose constants stay those of other channels")
def _() -> Any:
    def change(f: Any, self: Any, narrow: Any) -> Any:
        return f(self, {labels: np.arange(len(own)) for labels, own in narrow.items()})

    return _unchecked(wrapped(layout.Layout, "narrowed", change))


@error("realizations: zeros are padded at the other end")
def _() -> Any:
    return _unchecked(
        _edited(
            writings.Pad,
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

    return wrapped(weights, "collect_cuts", change)


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

    return wrapped(weights, "collect_cuts", change)


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
