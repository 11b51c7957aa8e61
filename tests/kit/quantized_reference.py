"""Operators of quantized models in numpy, for ONNX's reference implementation to run.

Each decodes what it reads, computes with real numbers, and rounds once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from build import Array


def decode(numbers: Array, scale: Array, zero: Array) -> Array:
    decoded: Array = (numbers.astype(np.float64) - zero.astype(np.float64)) * scale
    return decoded


def encode(values: Array, scale: Array, zero: Array) -> Array:
    limits = np.iinfo(zero.dtype)
    steps = np.rint(values / scale.astype(np.float64)) + zero.astype(np.float64)
    clipped: Array = np.clip(steps, limits.min, limits.max).astype(zero.dtype)
    return clipped


class _Microsoft(OpRun):
    op_domain = "com.microsoft"


class QLinearAdd(_Microsoft):
    def _run(self, a: Array, sa: Array, za: Array, b: Array, sb: Array, zb: Array,
             sc: Array, zc: Array) -> tuple[Array]:  # fmt: skip
        return (encode(decode(a, sa, za) + decode(b, sb, zb), sc, zc),)


class QLinearMul(_Microsoft):
    def _run(self, a: Array, sa: Array, za: Array, b: Array, sb: Array, zb: Array,
             sc: Array, zc: Array) -> tuple[Array]:  # fmt: skip
        return (encode(decode(a, sa, za) * decode(b, sb, zb), sc, zc),)


class QLinearSigmoid(_Microsoft):
    def _run(self, x: Array, s: Array, z: Array, sy: Array, zy: Array) -> tuple[Array]:
        return (encode(1 / (1 + np.exp(-decode(x, s, z))), sy, zy),)


class QLinearLeakyRelu(_Microsoft):
    def _run(
        self, x: Array, s: Array, z: Array, sy: Array, zy: Array, alpha: float = 0.01
    ) -> tuple[Array]:
        real = decode(x, s, z)
        return (encode(np.where(real < 0, alpha * real, real), sy, zy),)


class QLinearGlobalAveragePool(_Microsoft):
    def _run(
        self, x: Array, s: Array, z: Array, sy: Array, zy: Array, channels_last: int = 0
    ) -> tuple[Array]:
        assert not channels_last
        return (encode(decode(x, s, z).mean((2, 3), keepdims=True), sy, zy),)


class QLinearAveragePool(_Microsoft):
    """With a kernel of 2 x 2, steps of 1, a border of 1 at the end that counts."""

    def _run(
        self, x: Array, s: Array, z: Array, sy: Array, zy: Array, **attributes: Any
    ) -> tuple[Array]:
        real = np.pad(decode(x, s, z), ((0, 0), (0, 0), (0, 1), (0, 1)))
        parts = real[..., :-1, :-1], real[..., :-1, 1:], real[..., 1:, :-1], real[..., 1:, 1:]
        return (encode(sum(parts, np.zeros(())) / 4, sy, zy),)


class QLinearConcat(_Microsoft):
    def _run(self, sy: Array, zy: Array, *parts: Array, axis: int = 1) -> tuple[Array]:
        real = [decode(*parts[at : at + 3]) for at in range(0, len(parts), 3)]
        return (encode(np.concatenate(real, axis), sy, zy),)


class QLinearSoftmax(_Microsoft):
    def _run(
        self, x: Array, s: Array, z: Array, sy: Array, zy: Array, axis: int = -1, opset: int = 13
    ) -> tuple[Array]:
        assert opset >= 13
        powers = np.exp(decode(x, s, z))
        return (encode(powers / powers.sum(axis, keepdims=True), sy, zy),)


class QGemm(_Microsoft):
    def _run(
        self, a: Array, sa: Array, za: Array, b: Array, sb: Array, zb: Array,
        bias: Array | None = None, sy: Array | None = None, zy: Array | None = None,
        alpha: float = 1.0, transA: int = 0, transB: int = 0,  # noqa: N803
    ) -> tuple[Array]:  # fmt: skip
        left = a.astype(np.int64) - za
        right = b.astype(np.int64) - zb if not transB else (b.T.astype(np.int64) - zb)
        sums = (left.T if transA else left) @ right + (0 if bias is None else bias)
        real = sums * (alpha * sa.astype(np.float64) * sb)
        return (real.astype(np.float32) if sy is None or zy is None else encode(real, sy, zy),)


OPERATORS: list[type[OpRun]] = [*_Microsoft.__subclasses__()]


def by_reference(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> list[Array]:
    """What a model makes, without onnxruntime."""
    with np.errstate(invalid="ignore"):  # It pads whole numbers with NaN.
        made = ReferenceEvaluator(model, new_ops=OPERATORS).run(None, dict(inputs))
    return [np.asarray(each) for each in made]
