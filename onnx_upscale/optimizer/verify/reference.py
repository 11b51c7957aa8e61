"""The masked model by the letter of the contract: the original, times 0 where a channel is masked.

This is what an emitted model is held against, so it shares no code with what made that model: not
with the reading of masks in `load.masking`, not with the zeroing of weights, not with shape
inference. It is meant to be checked by reading it, and `wiring` and `shown`, which it builds on.
What a mask means:

1. Its key names an initializer (then every layer that uses it as its weight, in bodies of If, Loop
   and Scan as well), else a node, else a node's output; the first of these that exists. Where there
   is none in the main graph, the key is the path of a body (the titles of the nodes around it, each
   with its attribute), a slash, and such a name in there.
2. On the input side, what the layer reads is multiplied by 0 or 1 along the axis it contracts; for
   this layer only.
3. On the output side, what the layer makes is multiplied by 0 or 1, behind the affine operations
   attached straight to it: each BatchNormalization, and each Add or Mul with a constant that is a
   scalar or has one value per channel, as long as nothing else reads the tensor in between and it
   is no graph output. Where an activation or a sum is fused into the layer, that comes too late:
   its weight and its bias are multiplied in its place. So are the weight and the bias by which
   onnxruntime's Attention makes queries, keys and values, which are its output channels, side by
   side. So it is with the hidden units of LSTM, GRU and RNN: all weights, biases and peepholes of a
   unit are multiplied, for every gate and in every direction, but not those by which other units
   read it. A bias that an activation behind a layer adds first is multiplied as well, and the part
   of it that MultiHeadAttention adds to what the layer makes. QLinearAdd and QLinearMul count as
   Add and Mul; so do, behind a ConvInteger or MatMulInteger, the Cast and the Mul by the scale that
   DynamicQuantizeLinear found, or by that times a constant as above.
4. Whole numbers that stand for real ones are replaced where those would be multiplied by 0: by the
   zero point that the layer is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from onnx_upscale.optimizer.load.masks import Mask
from onnx_upscale.optimizer.load.sides import Side
from onnx_upscale.optimizer.verify.scopes import main_scope, with_bodies
from onnx_upscale.optimizer.verify.shown import FreshNames, Shown, shown_by_run
from onnx_upscale.optimizer.verify.told import told_by_onnx
from onnx_upscale.optimizer.verify.wiring import (
    QUANTIZED,
    RECURRENT,
    Wiring,
    integer_attribute,
    is_closed,
    operator_of,
)

Array: TypeAlias = "npt.NDArray[Any]"
Flags: TypeAlias = "npt.NDArray[np.bool_]"


@dataclass(frozen=True)
class NodeMask:
    """A mask on one node, as `constrained` grows them.

    Attributes:
        node: Position of the node in its graph.
        mask: The mask; its key does not matter.
        place: Where its graph is, as for `Scope`.
    """

    node: int
    mask: Mask
    place: tuple[tuple[int, str], ...] = ()


def reference_model(
    model: onnx.ModelProto,
    masks: Iterable[Mask],
    grown: Iterable[NodeMask],
    sizes: Mapping[str, tuple[int, ...]],
    seed: int = 0,
    leak: float = 0.0,
) -> onnx.ModelProto:
    """Makes the masked model.

    Args:
        model: The original model, which is not changed.
        masks: Masks as the file has them.
        grown: Masks in addition, on nodes.
        sizes: A shape for each input of the original, a run of which shows the shapes of its
            tensors.
        seed: Seed of its inputs.
        leak: Deviation of random numbers that are added to each 0 and 1 wherever it multiplies a
            number: what rounding leaves of a channel whose weights are zero.

    Returns:
        The model with multiplications by 0 and 1; without masks the original itself.

    Raises:
        VerifySetupError: onnxruntime does not run the original, or nothing tells the shapes in a
            body.
    """
    masks, stated = tuple(masks), list(grown)
    if not masks and not stated:
        return model
    wirings = [Wiring(scope) for scope in with_bodies(main_scope(model))]
    stated += [each for mask in masks for each in _meant(wirings, mask)]
    if not stated:
        return model
    fresh, factors = FreshNames(model), {}
    for wiring in wirings:
        place, first = wiring.scope.place, wiring.scope.first
        own = [(first + each.node, each.mask) for each in stated if each.place == place]
        if own and place:
            shown = told_by_onnx(model, wiring, {index for index, _ in own})
            factors[place] = _factors(wiring, own, shown)
        elif own:
            shown = shown_by_run(model, wiring, {index for index, _ in own}, sizes, seed, fresh)
            factors[place] = _factors(wiring, own, shown)
    masked = onnx.ModelProto()
    masked.CopyFrom(model)
    _multiply(masked.graph, (), factors, fresh, leak)
    return masked


def _meant(wirings: Sequence[Wiring], mask: Mask) -> Iterator[NodeMask]:
    """The nodes that a mask is about, in the main graph and in bodies."""
    main, *bodies = wirings
    inside = [each for each in bodies if mask.key.startswith(each.scope.path)]
    for start in [main] if main.knows(mask.key) else inside:
        name = mask.key.removeprefix(start.scope.path)
        below = [start]
        if name in start.initializers:
            place = start.scope.place
            below = [each for each in wirings if each.scope.place[: len(place)] == place]
        for wiring in below:
            scope = wiring.scope
            yield from (NodeMask(at - scope.first, mask, scope.place) for at in wiring.named(name))


def _factors(wiring: Wiring, masks: Iterable[tuple[int, Mask]], shown: Shown) -> _Factors:
    """What to multiply by in a graph, for masks by the position of their node."""
    factors, first = _Factors({}, {}), wiring.scope.first
    for index, mask in masks:
        node = wiring.nodes[index]
        weight_slot, data_slot = wiring.slots(node)
        _, read_zero, made_zero = QUANTIZED.get(operator_of(node), (1, -1, -1))
        if mask.side is Side.INPUT:
            kind, zero = shown.type(node.input[data_slot]), _input(node, read_zero)
            flags = _flags(mask, *shown.input_axis(node, data_slot))
            factors.add_before((index - first, data_slot), _Factor(flags, kind, zero))
        elif operator_of(node) in RECURRENT:
            kind = shown.type(node.input[data_slot])
            for slot, flags in _unit_flags(mask, node, shown).items():
                factors.add_before((index - first, slot), _Factor(flags, kind))
        elif is_closed(node):
            kind = shown.type(node.input[data_slot])
            for slot, flags in _weight_flags(mask, node, shown).items():
                factors.add_before((index - first, slot), _Factor(flags, kind))
        else:
            axis, channels = shown.output_axis(node, weight_slot)
            end, last = shown.end_of_affine(node.output[0], axis, channels)
            kind = shown.type(end)
            zero = _input(node, made_zero) if last is None else _input(last, 7)
            flags = _flags(mask, axis, channels)
            factors.add_behind(end, _Factor(flags, kind, zero))
            bias = wiring.bias_behind(end)
            if bias is not None and axis == -1:
                at, slot, name, place = bias
                own = _bias_flags(flags, shown.shape(name), place)
                if own is not None:
                    factors.add_before((at - first, slot), _Factor(own, kind))
    return factors


def _bias_flags(flags: Flags, shape: tuple[int, ...], place: int) -> Flags | None:
    """What stays of a bias that may hold those of others before and behind; None where none fits.

    Args:
        flags: What stays of what it is added to.
        shape: Its shape.
        place: To which input of its node it is added: the first two are of one size.
    """
    before = 0 if place == 0 else len(flags) if place == 1 else sum(shape) - len(flags)
    if len(shape) != 1 or before + len(flags) > sum(shape) or (place == 2 and before % 2):
        return None
    return np.concatenate(
        [np.ones(before, bool), flags, np.ones(sum(shape) - before - len(flags), bool)]
    )


def _weight_flags(mask: Mask, node: onnx.NodeProto, shown: Shown) -> dict[int, Flags]:
    """What stays of the weight and the bias of a closed layer, by slot."""
    shape = shown.shape(node.input[1])
    last = node.op_type in ("Attention", "FusedGemm") and not integer_attribute(node, "transB", 0)
    axis = -1 if last else -len(shape)
    found = {1: _flags(mask, axis, shape[axis])}
    if _input(node, 2):
        found[2] = _flags(mask, -1, shape[axis])
    return found


def _unit_flags(mask: Mask, node: onnx.NodeProto, shown: Shown) -> dict[int, Flags]:
    """What stays of the constants that have a number, or a row, per hidden unit; by slot.

    All of them hold one stretch of units after the other along the second of their axes.
    """
    units = shown.shape(node.input[2])[2]
    stays = _flags(mask, -1, units)
    found = {slot: np.tile(stays, shown.shape(node.input[slot])[1] // units) for slot in (1, 2)}
    found = {slot: rows[:, np.newaxis] for slot, rows in found.items()}
    for slot in (3, 7):
        if _input(node, slot):
            found[slot] = np.tile(stays, shown.shape(node.input[slot])[1] // units)
    return found


def _flags(mask: Mask, axis: int, channels: int) -> Flags:
    """What stays, in a shape that broadcasts; `axis` counts from the end."""
    listed = np.zeros(channels, bool)
    if mask.form == "mask":
        listed[:] = mask.values != 0
    else:
        listed[mask.values] = True
    stays = ~listed if mask.form == "prune" else listed
    return stays.reshape(-1, *(1,) * (-axis - 1))


def _input(node: onnx.NodeProto, slot: int) -> str:
    return node.input[slot] if 0 <= slot < len(node.input) else ""


@dataclass(frozen=True)
class _Factor:
    """Zeros and ones to multiply a tensor by.

    Attributes:
        flags: What stays, in a shape that broadcasts.
        kind: The type of the tensor.
        zero: The tensor that holds its zero point; empty where that is 0.
    """

    flags: Flags
    kind: np.dtype[Any]
    zero: str = ""

    def times(self, other: _Factor | None) -> _Factor:
        """Both at once, where another was there before."""
        return self if other is None else replace(self, flags=self.flags & other.flags)


@dataclass(frozen=True)
class _Factors:
    """What to multiply by: before a slot of a node, and behind a tensor."""

    before: dict[tuple[int, int], _Factor]
    behind: dict[str, _Factor]

    def add_before(self, place: tuple[int, int], factor: _Factor) -> None:
        self.before[place] = factor.times(self.before.get(place))

    def add_behind(self, tensor: str, factor: _Factor) -> None:
        self.behind[tensor] = factor.times(self.behind.get(tensor))


def _multiply(
    graph: onnx.GraphProto,
    place: tuple[tuple[int, str], ...],
    everywhere: Mapping[tuple[tuple[int, str], ...], _Factors],
    fresh: Callable[[str], str],
    leak: float,
) -> None:
    """Multiplies the masked tensors of a graph, and of the bodies in it, by 0 or 1."""
    factors = everywhere.get(place, _Factors({}, {}))
    originals = list(graph.node)
    del graph.node[:]

    def add(op: str, inputs: Sequence[str], result: str, **attributes: Any) -> str:
        graph.node.append(helper.make_node(op, inputs, [result], **attributes))
        return result

    def store(values: Array, name: str) -> None:
        tensor = numpy_helper.from_array(values, name)
        if place:  # Bodies have no initializers before IR version 4.
            add("Constant", [], name, value=tensor)
        else:
            graph.initializer.append(tensor)

    def multiply(tensor: str, factor: _Factor, result: str) -> None:
        name = fresh(f"{result}.factors")
        replaced = factor.kind.itemsize == 1  # onnxruntime multiplies no such numbers.
        values = factor.flags if replaced else factor.flags.astype(factor.kind)
        store(values, name)
        if not replaced:
            add("Mul", [tensor, leaking(tensor, name, factor.kind) if leak else name], result)
            return
        zero = factor.zero or fresh(f"{result}.zero")
        if not factor.zero:
            store(np.zeros((), factor.kind), zero)
        wide = [
            add("Cast", [each], fresh(f"{result}.wide"), to=onnx.TensorProto.INT32)
            for each in (tensor, zero)
        ]
        chosen = add("Where", [name, *wide], fresh(f"{result}.chosen"))
        add("Cast", [chosen], result, to=helper.np_dtype_to_tensor_dtype(factor.kind))

    def leaking(tensor: str, factors: str, kind: np.dtype[Any]) -> str:
        float32, to = onnx.TensorProto.FLOAT, helper.np_dtype_to_tensor_dtype(kind)
        drawn = fresh(f"{factors}.drawn")
        add("RandomNormalLike", [tensor], drawn, scale=leak, seed=1.0, dtype=float32)
        noise = add("Cast", [drawn], fresh(f"{factors}.noise"), to=to)
        return add("Add", [factors, noise], fresh(f"{factors}.leaking"))

    for index, original in enumerate(originals):
        node = onnx.NodeProto()
        node.CopyFrom(original)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                inside = (*place, (index, attribute.name))
                _multiply(attribute.g, inside, everywhere, fresh, leak)
        for slot, name in enumerate(original.input):
            if (index, slot) in factors.before:
                node.input[slot] = fresh(f"{name}.masked")
                multiply(name, factors.before[index, slot], node.input[slot])
        for slot, name in enumerate(original.output):
            if name in factors.behind:
                node.output[slot] = fresh(f"{name}.unmasked")
        graph.node.append(node)
        for raw, name in zip(node.output, original.output, strict=True):
            if raw != name:
                multiply(raw, factors.behind[name], name)
