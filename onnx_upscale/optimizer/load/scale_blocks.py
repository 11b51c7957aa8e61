"""Weights in which a block of channels shares a scale, so that it stays or leaves as a whole.

A channel can be in no other block, for a number of few bits stands for something else there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = "npt.NDArray[Any]"
IntArray: TypeAlias = "npt.NDArray[np.int64]"


@dataclass(frozen=True)
class ScaleBlocks:
    """Which places along an axis of a weight leave together.

    Attributes:
        axis: The axis.
        size: How many adjacent places: those of a block; all where the last block is not full.
    """

    axis: int
    size: int


def scale_blocks(axis: int, places: int, size: int) -> ScaleBlocks | None:
    """Blocks of some size along an axis; None where there is one block, which may get smaller."""
    if places <= size:
        return None
    return ScaleBlocks(axis, places if places % size else size)


def whole_blocks(positions: IntArray, size: int) -> IntArray | None:
    """The blocks that positions make up.

    Args:
        positions: Original positions, in their new order.
        size: Places per block.

    Returns:
        The numbers of the blocks, in their order; None where one of them is not whole.
    """
    if len(positions) % size:
        return None
    rows = positions.reshape(-1, size)
    blocks: IntArray = rows[:, 0] // size
    whole = blocks[:, np.newaxis] * size + np.arange(size)
    return blocks if np.array_equal(rows, whole) else None


@dataclass(frozen=True, eq=False)
class BlockCoding:
    """What the numbers of a weight (output channels, input channels) stand for, block by block.

    Attributes:
        scale: The scales, shape (output channels, blocks).
        zero: The zero points, in the same shape; each is a number that the weight can hold.
        size: Input channels per block; the last may have fewer.
        slots: Input slots of these constants, as far as they are given.
    """

    scale: Array
    zero: Array
    size: int
    slots: tuple[int, ...]

    def blank(self, inputs: int) -> Array:
        """What stands for zero, in the shape of a weight with so many input channels."""
        return self.zero.repeat(self.size, 1)[:, :inputs]

    def real(self, weight: Array) -> Array:
        """What a weight stands for."""
        inputs = weight.shape[1]
        scale = self.scale.astype(np.float32).repeat(self.size, 1)[:, :inputs]
        made: Array = (weight.astype(np.float32) - self.blank(inputs)) * scale
        return made
