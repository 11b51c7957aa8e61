"""Layers: readers and writers, and weights that come from somewhere else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from rule_cases import (
    CHANNELS,
    SIZE,
    Build,
    Case,
    MaskedNet,
    check_counts,
    check_random_masks,
    runs,
)


def _grouped(op: str, groups: int, each: int) -> Build:
    """A grouped layer of 8 inputs and `each` outputs per group, with its masks."""

    def build(n: MaskedNet, x: str) -> str:
        ins = CHANNELS // groups
        # (group, output, input), the same for both operators.
        weight = n.random(groups, each, ins, 3, 3)
        for channel in n.gone("op.input"):
            weight[channel // ins, :, channel % ins] = 0
        for channel in n.gone("op.output"):
            weight[channel // each, channel % each] = 0
        stored = (
            weight.reshape(groups * each, ins, 3, 3)
            if op == "Conv"
            else weight.swapaxes(1, 2).reshape(CHANNELS, each, 3, 3)
        )
        bias = n.weight("op", groups * each, out=0)
        made = n(op, n("Sigmoid", x), stored, bias, name="op", group=groups, pads=[1, 1, 1, 1])
        return n("Sigmoid", made)

    return build


def _gemm(**how: Any) -> Build:
    def build(n: MaskedNet, x: str) -> str:
        attributes = dict(how)
        kind = attributes.pop("bias", "vector")
        data = n("Flatten", n("GlobalMaxPool", n("Sigmoid", x)))
        if attributes.get("transA"):
            data = n("Transpose", data)
        back = bool(attributes.get("transB"))
        shape, into, out = ((5, 8), 1, 0) if back else ((8, 5), 0, 1)
        read: list[Any] = [data, n.weight("op", *shape, into=into, out=out)]
        if kind == "vector":
            read.append(n.weight("op", 5, out=0))
        elif kind == "matrix":
            read.append(n.weight("op", 2, 5, out=1))
        elif kind == "row":
            read.append(n.weight("op", 1, 5, out=1))
        elif kind in ("scalar", "column"):
            values = n.random(*((1,) if kind == "scalar" else (2, 1)))
            if n.gone("op.output"):
                values = np.broadcast_to(values, (values.shape[0], 5)).copy()
                values[:, n.gone("op.output")] = 0
                values = values[0] if kind == "scalar" else values
            read.append(values)
        return n("Sigmoid", n("Gemm", *read, name="op", **attributes))

    return build


def _tokens(n: MaskedNet, x: str) -> str:
    """(batch, place, channel)

    The Sigmoid stands between Transpose and MatMul, since onnxruntime 1.32 fuses these two wrongly
    where the other operand is a vector.
    """
    return n("Sigmoid", n("Transpose", n.shaped(x, 2, CHANNELS, SIZE * SIZE), perm=[0, 2, 1]))


def _matmul(kind: str) -> Build:
    def build(n: MaskedNet, x: str) -> str:
        if kind == "right":
            return n("MatMul", _tokens(n, x), n.weight("op", 8, 5, into=0, out=1), name="op")
        if kind == "right-biased":
            made = n("MatMul", _tokens(n, x), n.weight("op", 8, 5, into=0, out=1), name="op")
            return n("Relu", n("Add", made, n.affine(n.random(5), "op")))
        if kind == "left":
            turned = n("Transpose", _tokens(n, x), perm=[0, 2, 1])
            return n("MatMul", n.weight("op", 5, 8, into=1, out=0), turned, name="op")
        if kind == "batched":
            weight = n.weight("op", 2, 8, 5, into=1, out=2)
            return n("Sigmoid", n("MatMul", _tokens(n, x), weight, name="op"))
        return n("MatMul", _tokens(n, x), n.weight("op", 8, into=0), name="op")

    return build


def _stored(how: str) -> Build:
    """A 1x1 Conv whose weight comes from somewhere else than an initializer."""

    def build(n: MaskedNet, x: str) -> str:
        weight = n.weight("op", 5, CHANNELS, 1, 1, into=1, out=0)
        bias = n.weight("op", 5, out=0)
        source: str
        if how == "Constant":
            source = n("Constant", value=numpy_helper.from_array(weight))
        elif how == "Transpose":
            source = n("Transpose", np.ascontiguousarray(weight.T))
        elif how == "Reshape":
            source = n.shaped(n.constant(weight.ravel()), 5, CHANNELS, 1, 1)
        elif how == "Identity-Cast":
            source = n("Cast", n("Identity", weight.astype(np.float64)), to=TensorProto.FLOAT)
        elif how == "DequantizeLinear":
            scale, zero = np.abs(n.random(5)), np.zeros(5, np.int8)
            quantized = np.round(weight * 100).astype(np.int8)
            quantized[(weight != 0) & (quantized == 0)] = 1
            source = n("DequantizeLinear", quantized, scale, zero, axis=0)
        else:
            value = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.3])
            source = n("ConstantOfShape", n.ints(5, CHANNELS, 1, 1), value=value)
            # Its masked form can only be written down in full.
            if n.masks:
                full = np.where(weight != 0, np.float32(0.3), np.float32(0))
                source = n.constant(full)
        return n("Conv", n("Sigmoid", x), source, bias, name="op")

    return build


def _layers() -> Iterator[Case]:
    def layer(name: str, build: Build, inner: int = 5, **how: Any) -> Case:
        return Case(name, build, at=how.pop("at", "op.input"), layer=True, inner=inner, **how)

    def conv(**how: Any) -> Build:
        return lambda n, x: n("Sigmoid", n.conv(n("Sigmoid", x), "op", 5, **how))

    def transposed(n: MaskedNet, x: str) -> str:
        weight, bias = n.weight("op", 8, 5, 3, 3, into=0, out=1), n.weight("op", 5, out=0)
        return n("ConvTranspose", n("Sigmoid", x), weight, bias, name="op", strides=[2, 2])

    def without_bias(n: MaskedNet, x: str) -> str:
        weight = n.weight("op", 5, 8, 1, 1, into=1, out=0)
        return n("Conv", n("Sigmoid", x), weight, name="op")

    yield layer("Conv", conv())
    yield layer("Conv-padded", conv(pads=[1, 0, 1, 0]))
    yield layer("Conv-same", conv(auto_pad="SAME_LOWER"))
    yield layer("Conv-strided", conv(strides=[2, 2], dilations=[2, 2]))
    yield layer("Conv-without-bias", without_bias)
    yield layer("ConvTranspose", transposed)
    for op in ("Conv", "ConvTranspose"):
        yield layer(f"{op}-depthwise", _grouped(op, 8, 1), 8, grows=False, at="last.input")
        yield layer(
            f"{op}-multiplied", _grouped(op, 8, 2), 16, grows=False, at="last.input",
            follows=tuple(np.repeat(range(8), 2).tolist()),
        )  # fmt: skip
        yield layer(
            f"{op}-grouped", _grouped(op, 4, 3), 12, grows=False, at="last.input",
            roots=(0, 0, 1, 1, 2, 2, 3, 3), follows=tuple(np.repeat(range(4), 3).tolist()),
            prune=(0, 2), kept=4,
        )  # fmt: skip
    for a in (0, 1):
        for b in (0, 1):
            yield layer(f"Gemm-{a}{b}", _gemm(transA=a, transB=b))
    yield layer("Gemm-scaled", _gemm(alpha=0.5, beta=2.0))
    yield layer("Gemm-beta-0", _gemm(beta=0.0))
    yield layer("Gemm-row", _gemm(bias="row", beta=-0.5))
    yield layer("Gemm-scalar", _gemm(bias="scalar"))
    yield layer("Gemm-matrix", _gemm(bias="matrix"))
    yield layer("Gemm-column", _gemm(bias="column"))
    yield layer("Gemm-without-bias", _gemm(bias="none", alpha=1.5, beta=3.0), since=11)
    for kind in ("right", "right-biased", "batched"):
        yield layer(f"MatMul-{kind}", _matmul(kind), axis=2)
    yield layer("MatMul-left", _matmul("left"))
    yield Case(
        "MatMul-vector",
        _matmul("vector"),
        at="op.input",
        axis=1,
        follows=(*range(36),),
        grows=False,
    )
    for how in ("Constant", "Transpose", "Reshape", "Identity-Cast"):
        yield layer(f"weight-behind-{how}", _stored(how))
    yield layer("weight-behind-ConstantOfShape", _stored("ConstantOfShape"), since=9)
    yield layer("weight-behind-DequantizeLinear", _stored("DequantizeLinear"), since=13)

    def activations(n: MaskedNet, x: str) -> str:
        """Attention: two activations are multiplied, and so is their product."""
        tokens = n("Relu", _tokens(n, x))
        keys = n("MatMul", tokens, n.random(CHANNELS, 4))
        queries = n("MatMul", tokens, n.random(CHANNELS, 4))
        scores = n("MatMul", queries, n("Transpose", keys, perm=[0, 2, 1]))
        return n("MatMul", n("Softmax", scores, axis=2), tokens)

    # Keys and queries read all channels, so that they stay, whatever the last layer reads.
    yield Case("MatMul-activations", activations, axis=2, kept=CHANNELS, grows=False)
    yield Case("MatMul-rows", lambda n, x: n("MatMul", x, n.random(SIZE, 4), name="rows"))
    yield Case("MatMul-columns", lambda n, x: n("MatMul", n.random(4, SIZE), x, name="columns"))
    yield Case("Add-attached", lambda n, x: n("Relu", n("Add", x, n.affine(n.random(8, 1, 1)))))
    yield Case("Add-attached-scalar", lambda n, x: n("Exp", n("Add", x, n.affine(0.3))))
    yield Case(
        "Mul-Add-attached",
        lambda n, x: n(
            "Cos", n("Add", n("Mul", x, n.random(8, 1, 1)), n.affine(n.random(8, 1, 1)))
        ),
    )


CASES = tuple(_layers())


@pytest.mark.parametrize(("case", "opset"), runs(CASES))
def test_random_masks_leave_the_function_of_the_masked_model(case: Case, opset: int) -> None:
    check_random_masks(case, opset)


@pytest.mark.parametrize(("case", "opset"), runs(CASES, few=True))
def test_channels_that_nobody_reads_go_and_pinned_ones_stay(case: Case, opset: int) -> None:
    check_counts(case, opset)
