"""Shape arithmetic: what nodes make of small vectors of sizes, some of them names.

A value is an array of whole numbers or flags, or one of objects whose entries are polynomials, or
None where nothing is known. An operator without a rule is run on numbers alone, by ONNX's reference
implementation, so that a model whose inputs have fixed sizes folds whatever it does with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx

from onnx_upscale.optimizer.load.folding import OperatorSets, fold, may_fold
from onnx_upscale.optimizer.load.polynomials import Polynomial, number, polynomial

Value: TypeAlias = "npt.NDArray[Any]"
Attributes: TypeAlias = "Mapping[str, Any]"
Rule: TypeAlias = "Callable[[Sequence[Value], Attributes], Value | None]"

FEW = 1024
"""Vectors of sizes have no more entries; larger ones are weights."""
MOST_TERMS = 8
"""A size that is the sum of more is not worth knowing: its products with others grow fast."""
_LONGEST_NAME = 256
_INTEGERS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)


def sizes_of(value: Value) -> list[int | str | None]:
    """The entries of a vector, as shapes write them."""
    return [
        entry.size if isinstance(entry, Polynomial) else None if entry is None else int(entry)
        for entry in value.ravel().tolist()
    ]


def vector(sizes: Sequence[int | str | None]) -> Value:
    """A value from the entries of a shape."""
    if all(isinstance(size, int) for size in sizes):
        return np.array(sizes, np.int64)
    made = np.empty(len(sizes), object)
    made[:] = [None if size is None else polynomial(size) for size in sizes]
    return made


def compute(
    node: onnx.NodeProto,
    attributes: Attributes,
    inputs: Sequence[Value | None],
    opset_imports: OperatorSets,
) -> Value | None:
    """What a node makes of values.

    Args:
        node: The node.
        attributes: Its attributes.
        inputs: What is known of each of its inputs.
        opset_imports: The operator sets the node is written in.

    Returns:
        Its first output, or None where nothing is known of it.
    """
    given = [value for value in inputs if value is not None]
    if len(given) < len(inputs) or not given or node.domain not in ("", "ai.onnx"):
        return None
    exact = all(value.dtype.kind in "Oiub" for value in given)
    made: Value | None = None
    if node.op_type in _RULES and exact:
        try:
            made = _RULES[node.op_type](given, attributes)
        except (ValueError, IndexError, TypeError):  # No shapes that fit, or entries not known.
            return None
        made = made if made is None else _plain(made)
    if made is None and may_fold(node) and all(value.dtype != object for value in given):
        folded = fold(node, dict(zip(node.input, given, strict=True)), opset_imports, FEW)
        made = None if folded is None else folded.get(node.output[0])
    return made if made is not None and made.size <= FEW else None


def _plain(value: Value) -> Value:
    """Numbers in place of objects where all of them are known."""
    if value.dtype != object:
        return value
    for place, entry in enumerate(value.ravel()):
        if isinstance(entry, Polynomial) and len(entry.terms) > MOST_TERMS:
            value.reshape(-1)[place] = None
    entries = [
        entry.constant if isinstance(entry, Polynomial) else entry for entry in value.ravel()
    ]
    if any(entry is None for entry in entries):
        return value
    kind = np.bool_ if entries and isinstance(entries[0], (bool, np.bool_)) else np.int64
    return np.array(entries, kind).reshape(value.shape)


def _symbolic(entry: Any) -> Polynomial:
    if entry is None:
        raise TypeError("not known")
    return entry if isinstance(entry, Polynomial) else number(int(entry))


def _each(function: Callable[..., Any]) -> Rule:
    """A rule that acts on each entry by itself; what one of them lacks, the result lacks there."""

    def apply(entries: Sequence[Any]) -> Any:
        try:
            return function(*map(_symbolic, entries))
        except TypeError:
            return None

    def rule(inputs: Sequence[Value], attributes: Attributes) -> Value:
        spread = np.broadcast_arrays(*inputs)
        made = np.empty(spread[0].shape, object)
        made.reshape(-1)[:] = [
            apply(each) for each in zip(*(s.ravel() for s in spread), strict=True)
        ]
        return made

    return rule


def quotient(one: Polynomial, other: Polynomial) -> Polynomial | None:
    """The quotient without its remainder, as ONNX divides whole numbers: rounded towards zero."""
    if one.constant is not None and other.constant:
        whole = abs(one.constant) // abs(other.constant)
        return number(whole if (one.constant < 0) == (other.constant < 0) else -whole)
    exact = one.over(other) if other.terms else None
    if exact is not None or not other.terms:
        return exact
    return _named("div", one, other)


def _extreme(operator: str, chosen: Callable[[int, int], int]) -> Rule:
    def choose(one: Polynomial, *others: Polynomial) -> Polynomial | None:
        for other in others:
            both = one.constant, other.constant
            if both[0] is not None and both[1] is not None:
                one = number(chosen(both[0], both[1]))
            elif one != other:
                named = _named(operator, one, other)
                if named is None:
                    return None
                one = named
        return one

    return _each(choose)


def _named(operator: str, *operands: Polynomial) -> Polynomial | None:
    """One name for whatever an operator makes of the same operands; None if that gets too long."""
    text = "|".join(operand.text for operand in operands)
    if len(text) > _LONGEST_NAME:
        return None
    return polynomial(f"~{operator}({text.replace('+', '⊕').replace('*', '⊗')})")


def _equal(one: Polynomial, other: Polynomial) -> bool | None:
    if one == other:
        return True
    apart = (one - other).is_positive or (other - one).is_positive
    return False if apart else None


def _comparison(inputs: Sequence[Value], attributes: Attributes) -> Value:
    spread = np.broadcast_arrays(*inputs)
    made = np.empty(spread[0].shape, object)
    pairs = zip(*(each.ravel() for each in spread), strict=True)
    made.reshape(-1)[:] = [
        None if one is None or two is None else _equal(_symbolic(one), _symbolic(two))
        for one, two in pairs
    ]
    return made


def _where(inputs: Sequence[Value], attributes: Attributes) -> Value:
    flags, one, other = np.broadcast_arrays(*inputs)
    made = np.empty(flags.shape, object)
    made.reshape(-1)[:] = [
        yes if flag else no if flag is not None else None
        for flag, yes, no in zip(flags.ravel(), one.ravel(), other.ravel(), strict=True)
    ]
    return made


def _cast(inputs: Sequence[Value], attributes: Attributes) -> Value | None:
    if inputs[0].dtype.kind == "b" or attributes.get("to") not in _INTEGERS:
        return None
    return inputs[0]


def _gather(inputs: Sequence[Value], attributes: Attributes) -> Value | None:
    if inputs[1].dtype == object:
        return None
    taken = np.take(inputs[0], inputs[1].astype(np.int64), axis=attributes.get("axis", 0))
    made = np.empty(np.shape(taken), inputs[0].dtype)
    made[...] = taken  # A single entry comes without its array.
    return made


def _slice(inputs: Sequence[Value], attributes: Attributes) -> Value | None:
    data, *bounds = inputs
    if any(bound.dtype == object for bound in bounds):
        return None
    starts, ends, axes, steps = (
        np.asarray(attributes[name])
        if name in attributes
        else bounds[slot]
        if slot < len(bounds)
        else None
        for slot, name in enumerate(("starts", "ends", "axes", "steps"))
    )
    assert starts is not None and ends is not None
    axes = np.arange(len(starts)) if axes is None else axes
    steps = np.ones(len(starts), np.int64) if steps is None else steps
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        where = [slice(None)] * data.ndim
        where[axis] = slice(int(start), int(end), int(step))
        data = data[tuple(where)]
    return data


def _concat(inputs: Sequence[Value], attributes: Attributes) -> Value:
    return np.concatenate(inputs, axis=attributes["axis"])


def _squeeze(inputs: Sequence[Value], attributes: Attributes) -> Value:
    axes = attributes.get("axes", inputs[1].tolist() if len(inputs) > 1 else None)
    return np.squeeze(inputs[0], None if axes is None else tuple(axes))


def _unsqueeze(inputs: Sequence[Value], attributes: Attributes) -> Value:
    axes = attributes.get("axes", inputs[1].tolist() if len(inputs) > 1 else ())
    return np.expand_dims(inputs[0], tuple(axes))


def _reshape(inputs: Sequence[Value], attributes: Attributes) -> Value | None:
    if inputs[1].dtype == object:
        return None
    sizes = inputs[1].tolist()
    if 0 in sizes and not attributes.get("allowzero", 0):
        sizes = [size or inputs[0].shape[place] for place, size in enumerate(sizes)]
    return inputs[0].reshape(sizes)


def _expand(inputs: Sequence[Value], attributes: Attributes) -> Value | None:
    if inputs[1].dtype == object:
        return None
    return np.broadcast_to(inputs[0], np.broadcast_shapes(inputs[0].shape, inputs[1].tolist()))


def _product(inputs: Sequence[Value], attributes: Attributes) -> Value | None:
    axes = attributes.get("axes", inputs[1].tolist() if len(inputs) > 1 else [0])
    if inputs[0].ndim != 1 or axes not in ([0], [-1]):
        return None
    total = number(1)
    for entry in inputs[0]:
        total *= _symbolic(entry)
    made = np.empty((1,) if attributes.get("keepdims", 1) else (), object)
    made[...] = total
    return made


_RULES: dict[str, Rule] = {
    "Add": _each(lambda one, other: one + other),
    "Cast": _cast,
    "Concat": _concat,
    "Div": _each(quotient),
    "Equal": _comparison,
    "Expand": _expand,
    "Gather": _gather,
    "Identity": lambda inputs, attributes: inputs[0],
    "Max": _extreme("max", max),
    "Min": _extreme("min", min),
    "Mul": _each(lambda one, other: one * other),
    "Neg": _each(lambda one: number(0) - one),
    "ReduceProd": _product,
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _each(lambda one, other: one - other),
    "Transpose": lambda inputs, attributes: inputs[0].transpose(attributes.get("perm")),
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
