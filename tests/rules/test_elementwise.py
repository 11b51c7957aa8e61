"""Operators that act on each position by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from build import Floats
from rule_cases import (
    CHANNELS,
    SINCE,
    SIZE,
    UNKNOWN,
    Build,
    Case,
    MaskedNet,
    check_counts,
    check_random_masks,
    of_sigmoid,
    operand,
    runs,
)

_UNARY = (
    "Abs Atan Asinh Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity "
    "LeakyRelu Mish Neg Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Swish Tan "
    "Tanh ThresholdedRelu"
)
_UNARY_OF_SIGMOID = "Acos Asin Atanh Log Reciprocal Sqrt"


def _unary(op: str) -> Build:
    return lambda n, x: n(op, x)


def _decided(op: str) -> Build:
    """An operator with a result of booleans."""

    def build(n: MaskedNet, x: str) -> str:
        made = n(op, x) if op.startswith("Is") else n(op, x, np.float32(0.1))
        return n("Cast", n("Not", made), to=TensorProto.FLOAT)

    return build


def _logical(op: str) -> Build:
    def build(n: MaskedNet, x: str) -> str:
        pair = [n("Greater", n("Neg", x) if swap else x, np.float32(0.1)) for swap in (0, 1)]
        return n("Cast", n(op, *pair), to=TensorProto.FLOAT)

    return build


def _bitwise(op: str) -> Build:
    def build(n: MaskedNet, x: str) -> str:
        whole = n("Cast", n("Relu", x), to=TensorProto.UINT8)
        other: tuple[Any, ...] = () if op == "BitwiseNot" else (np.array([3], np.uint8),)
        how = {"direction": "LEFT"} if op == "BitShift" else {}
        return n("Cast", n(op, whole, *other, **how), to=TensorProto.FLOAT)

    return build


def _positive(n: MaskedNet, kind: str) -> str | Floats:
    """The same, above zero, so that every power is defined."""
    other = operand(n, kind)
    return n("Exp", other) if isinstance(other, str) else other


_KINDS = ("activations", "plane", "squeezed", "channel", "scalar", "row", "full")


def _binary(op: str, kind: str, swapped: bool) -> Build:
    def build(n: MaskedNet, x: str) -> str:
        # A Sigmoid in between, so that constants are no part of the layer, and powers are defined.
        one, other = n("Sigmoid", x), _positive(n, kind)
        return n(op, other, one) if swapped else n(op, one, other)

    return build


def _quantized(axis: bool, zero: int) -> Build:
    def build(n: MaskedNet, x: str) -> str:
        scale = np.abs(n.random(CHANNELS)) if axis else np.float32(0.1)
        point = np.full(np.shape(scale), zero, np.uint8)
        how: dict[str, Any] = {"axis": 1} if axis else {}
        made = n("QuantizeLinear", x, scale, point, **how)
        return n("DequantizeLinear", made, scale, point, **how)

    return build


def _elementwise() -> Iterator[Case]:
    for op in _UNARY.split():
        yield Case(op, _unary(op), since=SINCE.get(op, UNKNOWN))
    for op in _UNARY_OF_SIGMOID.split():
        yield Case(op, of_sigmoid(op), since=SINCE[op])
    yield Case("Acosh", lambda n, x: n("Acosh", n("Exp", n("Sigmoid", x))), since=9)
    for op, since in (("Greater", 9), ("Less", 9), ("LessOrEqual", 12), ("GreaterOrEqual", 12)):
        yield Case(op, _decided(op), since=since)
    yield Case("Equal", _decided("Equal"), since=11)
    yield Case("IsNaN", _decided("IsNaN"), since=9)
    yield Case("IsInf", _decided("IsInf"), since=10)
    for op in ("And", "Or", "Xor"):
        yield Case(op, _logical(op), since=9)
    for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot"):
        yield Case(op, _bitwise(op), since=18)
    yield Case("BitShift", _bitwise("BitShift"), since=11)
    for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Mean", "Sum", "Pow"):
        for kind in _KINDS:
            since = 8 if op in ("Max", "Min", "Mean", "Sum") else 7
            for swapped in (False, True) if op in ("Sub", "Div", "Pow") else (False,):
                name = f"{op}-{kind}{'-swapped' * swapped}"
                yield Case(name, _binary(op, kind, swapped), since=since)
    for kind in ("channel", "scalar", "full"):
        yield Case(
            f"PRelu-{kind}",
            lambda n, x, kind=kind: n("PRelu", x, operand(n, kind)),  # type: ignore[misc]
        )
    yield Case("Mod", lambda n, x: n("Mod", x, np.float32(0.7), fmod=1), since=10)
    yield Case("Add-itself", lambda n, x: n("Add", x, x))
    yield Case("Swish-by-hand", lambda n, x: n("Mul", x, n("Sigmoid", x)))
    yield Case("Clip-attributes", lambda n, x: n("Clip", x, min=0.2, max=0.9), until=10)
    yield Case("Clip-inputs", lambda n, x: n("Clip", x, np.float32(0.2), np.float32(0.9)), since=11)
    yield Case("Clip-maximum", lambda n, x: n("Clip", x, "", np.float32(0.3)), since=11)
    yield Case("Dropout", lambda n, x: n("Dropout", x))
    yield Case(
        "Dropout-inputs",
        lambda n, x: n("Dropout", x, np.float32(0.4), np.array(False)),
        since=12,
    )
    yield Case(
        "Dropout-mask",
        lambda n, x: n("Mul", x, n("Cast", n.nodes_of("Dropout", x, outputs=2)[1], to=1)),
        since=12,
    )
    yield Case(
        "Cast", lambda n, x: n("Cast", n("Cast", x, to=TensorProto.INT32), to=TensorProto.FLOAT)
    )
    yield Case("CastLike", lambda n, x: n("CastLike", x, np.float32(1)), since=15)
    for shape in ((CHANNELS, 1, 1), (1,), (2, 1, SIZE, SIZE), (1, CHANNELS, SIZE, SIZE)):
        yield Case(
            f"Where-{len(shape)}-{np.prod(shape)}",
            lambda n, x, shape=shape: n("Where", n.random(*shape) > 0, x, np.float32(0.3)),  # type: ignore[misc]
            since=9,
        )
    yield Case(
        "Where-computed", lambda n, x: n("Where", n("Less", x, np.float32(0)), x, x), since=9
    )
    for zero in (0, 130):
        yield Case(f"QuantizeLinear-{zero}", _quantized(False, zero), since=10)
        yield Case(f"QuantizeLinear-per-channel-{zero}", _quantized(True, zero), since=13)


CASES = tuple(_elementwise())


@pytest.mark.parametrize(("case", "opset"), runs(CASES, few=True))
def test_random_masks_leave_the_function_of_the_masked_model(case: Case, opset: int) -> None:
    check_random_masks(case, opset)


@pytest.mark.parametrize(("case", "opset"), runs(CASES, few=True))
def test_channels_that_nobody_reads_go_and_pinned_ones_stay(case: Case, opset: int) -> None:
    check_counts(case, opset)
