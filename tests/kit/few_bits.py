"""Products with matrices of few bits, and the same with real numbers.

Packed by hand, with Python's whole numbers, so that nothing of the package tells how.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from build import Array, Net, run
from mask_document import Masks

BLOCK = 16
MICROSOFT = "com.microsoft"
KINDS: dict[str, Any] = {
    "uint4": ml_dtypes.uint4,
    "int4": ml_dtypes.int4,
    "uint8": np.uint8,
    "int8": np.int8,
}


def packed(rows: Array, bits: int) -> Array:
    """Rows of numbers as rows of bytes, the first number in the lowest bits."""
    made = []
    for row in rows.tolist():
        value = sum(number << bits * place for place, number in enumerate(row))
        made.append(list(value.to_bytes(-(-len(row) * bits // 8), "little")))
    return np.array(made, np.uint8)


@dataclass(frozen=True)
class Matrix:
    """Numbers (outputs, inputs), with a scale and a zero point per output and block of inputs."""

    numbers: Array
    scale: Array
    zero: Array
    block_of: Array

    @property
    def real(self) -> Array:
        """What they stand for."""
        zero, scale = self.zero[:, self.block_of], self.scale[:, self.block_of]
        made: Array = (self.numbers.astype(np.int64) - zero) * scale
        return made.astype(np.float32)


@dataclass(frozen=True)
class Form:
    """How a product is written.

    Attributes:
        kind: `nbits` for a MatMulNBits, else the operator behind a DequantizeLinear.
        bits: Bits of a number.
        zeros: How zero points are told: `none`, `packed` or `real`.
        flat: Whether scales and zero points have one axis.
        bias: Whether it has one.
        numbers: The type of numbers behind a DequantizeLinear.
        block: Channels per block.
    """

    kind: str = "nbits"
    bits: int = 4
    zeros: str = "packed"
    flat: bool = False
    bias: bool = False
    numbers: str = "uint4"
    block: int = BLOCK


class BitsNet(Net):
    """A net whose products are written in a form; with `real` they are those of real numbers."""

    def __init__(self, seed: int, form: Form, masks: Masks, real: bool, **inputs: Sequence[int]):
        super().__init__(21, seed, **inputs)
        self.form, self.masks, self.is_real = form, masks, real

    def gone(self, key: str) -> list[int]:
        return list(self.masks.get(key, ()))

    def matrix(self, name: str, inputs: int, outputs: int) -> Matrix:
        """A matrix in which nothing is zero but what masks prune."""
        form, signed = self.form, self.form.numbers.startswith("int")
        blocks = -(-inputs // form.block)
        scale = self.rng.uniform(0.02, 0.05, (outputs, blocks)).astype(np.float32)
        most = 1 << form.bits
        zero = self.rng.integers(1, most - 1, (outputs, blocks))
        if form.zeros == "none":
            zero[:] = 0 if form.kind != "nbits" else most // 2
        elif signed:
            zero -= most // 2
        block_of = np.arange(inputs) // form.block
        around = zero[:, block_of]
        low = -most // 2 if signed else 0
        steps = self.rng.integers(1, most, (outputs, inputs))
        numbers = low + (around - low + steps) % most
        numbers[:, self.gone(f"{name}.input")] = around[:, self.gone(f"{name}.input")]
        numbers[self.gone(f"{name}.output")] = around[self.gone(f"{name}.output")]
        return Matrix(numbers, scale, zero, block_of)

    def product(self, data: str, name: str, inputs: int, outputs: int) -> str:
        """A product; the weight of a node `name` is called `name.weight`."""
        matrix, bias = self.matrix(name, inputs, outputs), self.random(outputs)
        bias[self.gone(f"{name}.output")] = 0
        if self.is_real:
            made = self("MatMul", data, matrix.real.T.copy(), name=name)
            return self("Add", made, bias) if self.form.bias else made
        if self.form.kind == "nbits":
            return self._few_bits(data, name, matrix, bias)
        made = self._dequantized(data, name, matrix)
        return self("Add", made, bias) if self.form.bias else made

    def _few_bits(self, data: str, name: str, matrix: Matrix, bias: Array) -> str:
        form, (outputs, inputs) = self.form, matrix.numbers.shape
        filled = np.pad(matrix.numbers, ((0, 0), (0, -inputs % form.block)))
        stored = packed(filled, form.bits).reshape(outputs, -1, form.block * form.bits // 8)
        shape = [-1] if form.flat else [outputs, -1]
        zero: Any = ""
        if form.zeros == "packed":
            zero = packed(matrix.zero, form.bits).reshape(shape)
        elif form.zeros == "real":
            zero = matrix.zero.astype(np.float32).reshape(shape)
        last: list[Any] = ["", bias] if form.bias else []
        return self(
            "MatMulNBits", data, self.constant(stored, f"{name}.weight"),
            matrix.scale.reshape(shape), zero, *last, name=name, domain=MICROSOFT,
            K=inputs, N=outputs, bits=form.bits, block_size=form.block,
        )  # fmt: skip

    def _dequantized(self, data: str, name: str, matrix: Matrix) -> str:
        """With the axis of blocks where the operator wants its input channels."""
        form, kind = self.form, KINDS[self.form.numbers]
        turned = form.kind == "MatMul"
        parts = [matrix.numbers.astype(kind), matrix.scale]
        parts += [matrix.zero.astype(kind)] if form.zeros != "none" else []
        parts = [part.T.copy() if turned else part for part in parts]
        if form.kind == "Conv":
            parts = [part[..., np.newaxis] for part in parts]
        stored = self.constant(parts[0], f"{name}.weight")
        axis = 0 if turned else 1
        weight = self("DequantizeLinear", stored, *parts[1:], axis=axis, block_size=form.block)
        if form.kind == "MatMul":
            return self("MatMul", data, weight, name=name)
        if form.kind == "Gemm":
            tokens = self.ints(-1, matrix.numbers.shape[1])
            made = self("Gemm", self("Reshape", data, tokens), weight, name=name, transB=1)
            return self("Reshape", made, self.ints(2, 3, matrix.numbers.shape[0]))
        made = self("Conv", self("Transpose", data, perm=[0, 2, 1]), weight, name=name)
        return self("Transpose", made, perm=[0, 2, 1])


def runs(bits: int) -> bool:
    """Whether this onnxruntime multiplies with numbers of so many bits."""
    net = BitsNet(1, Form(bits=bits), {}, False, x=(2, 3, BLOCK))
    result = net.declare(net.product("x", "op", BLOCK, 5), (2, 3, 5))
    model = net.model(result)
    model.graph.output[0].CopyFrom(net.value_info[0])
    try:
        run(model, {"x": np.zeros((2, 3, BLOCK), np.float32)})
    except Exception:  # onnxruntime raises classes of its own that share no base.
        return False
    return True
