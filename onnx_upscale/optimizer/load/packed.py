"""Constants that an operator reads packed, several numbers in a byte, as arrays of these numbers.

MatMulNBits of com.microsoft multiplies with a matrix of N rows and K columns, in which the numbers
of 2, 4 or 8 bits of a block of columns lie one after the other, the first in the lowest bits of a
byte. The last block of a row is filled up. A scale and a zero point belong to each block of a row;
zero points are packed as well, each row into bytes of its own, or else are real numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_upscale.optimizer.load.pointwise import MICROSOFT

Array = npt.NDArray[Any]

PRODUCT_OF_BITS = (MICROSOFT, "MatMulNBits")
"""The operator, by domain and type."""
MATRIX, SCALES, ZERO_POINTS = 1, 2, 3
"""What is in its input slots."""
SIZES = ("N", "K")
"""The attributes that say the lengths of the two axes of its matrix."""


def unpacked(told: Mapping[str, Any], slot: int, stored: Array) -> Array:
    """A constant as its node means it.

    Args:
        told: The attributes of the node.
        slot: The input slot.
        stored: The constant as it is stored.

    Returns:
        A matrix of numbers, one row per output channel: one per input channel in the weight, one
        per block in its scales and zero points. What does not fit is as it was.
    """
    sizes = _sizes(told)
    if sizes is None:
        return stored
    rows, columns, block, bits = sizes
    blocks = -(-columns // block)
    in_bytes = stored.dtype == np.uint8
    if slot == MATRIX and in_bytes and stored.shape == (rows, blocks, block * bits // 8):
        return _numbers(stored.reshape(rows, -1), bits)[:, :columns]
    if slot == ZERO_POINTS and in_bytes:
        per_row = -(-blocks * bits // 8)
        fits = stored.shape in ((rows, per_row), (rows * per_row,))
        return _numbers(stored.reshape(rows, per_row), bits)[:, :blocks] if fits else stored
    if slot in (SCALES, ZERO_POINTS) and stored.shape in ((rows, blocks), (rows * blocks,)):
        return stored.reshape(rows, blocks)
    return stored


def packed(told: Mapping[str, Any], slot: int, numbers: Array, before: Array) -> Array:
    """A constant as its node reads it: the other way round.

    Args:
        told: The attributes of the node.
        slot: The input slot.
        numbers: The constant as `unpacked` gives it.
        before: The constant that was stored in its place.

    Returns:
        What to store.
    """
    sizes = _sizes(told)
    if sizes is None or numbers.ndim != 2:
        return numbers
    _, _, block, bits = sizes
    rows, columns = numbers.shape
    if slot == MATRIX:
        filled = np.pad(numbers, ((0, 0), (0, -columns % block)))
        return _bytes(filled, bits).reshape(rows, -1, block * bits // 8)
    if slot == ZERO_POINTS and numbers.dtype == np.uint8:
        numbers = _bytes(numbers, bits)
    return numbers.reshape(-1) if before.ndim == 1 else numbers


def _sizes(told: Mapping[str, Any]) -> tuple[int, int, int, int] | None:
    """Rows, columns, columns of a block, bits; None where a size makes no sense."""
    rows, columns, block = (int(told.get(name, 0)) for name in ("N", "K", "block_size"))
    bits = int(told.get("bits", 4))
    fits = min(rows, columns, block) > 0 and bits in (2, 4, 8) and block * bits % 8 == 0
    return (rows, columns, block, bits) if fits else None


def _numbers(rows: Array, bits: int) -> Array:
    """The numbers in rows of bytes."""
    if bits == 8:
        return rows
    in_byte, mask = 8 // bits, np.uint8((1 << bits) - 1)
    found = np.empty((len(rows), rows.shape[1] * in_byte), np.uint8)
    for place in range(in_byte):  # Much faster than an axis that short.
        found[:, place::in_byte] = rows >> np.uint8(bits * place) & mask
    return found


def _bytes(rows: Array, bits: int) -> Array:
    """Rows of numbers in bytes; the last of a row is filled up with zeros."""
    in_byte = 8 // bits
    filled = np.pad(rows, ((0, 0), (0, -rows.shape[1] % in_byte)))
    made = np.zeros((len(rows), filled.shape[1] // in_byte), np.uint8)
    for place in range(in_byte):
        made |= filled[:, place::in_byte] << np.uint8(bits * place)
    return made
