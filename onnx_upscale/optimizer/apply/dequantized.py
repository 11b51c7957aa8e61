"""Numbers behind a DequantizeLinear, cut with their scales and zero points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnx_upscale.optimizer.load.graph import IntArray, Node
from onnx_upscale.optimizer.load.scale_blocks import whole_blocks
from onnx_upscale.optimizer.load.values import Array

BoolArray = npt.NDArray[np.bool_]


def along_rows(values: Array, places: IntArray) -> Array:
    """Places of the second axis of an array, others for each place of the first.

    Args:
        values: The array.
        places: Per place of the first axis, those of the second.
    """
    spread = places.reshape(*places.shape, *(1,) * (values.ndim - 2))
    taken: Array = np.take_along_axis(values, spread, axis=1)
    return taken


@dataclass(frozen=True)
class Dequantized:
    """What a DequantizeLinear reads, all of it constant.

    Attributes:
        numbers: The numbers.
        scale: One scale, one per place of an axis, or one per block of that axis and place of all
            others.
        zero: The zero points, in the same shape; None stands for 0.
        axis: The axis.
        block: How many places of the axis a block has; 0 where there are no blocks.
    """

    numbers: Array
    scale: Array
    zero: Array | None
    axis: int
    block: int

    @classmethod
    def of(cls, node: Node, read: list[Array | None]) -> Dequantized:
        """What a node reads, which must have numbers and a scale."""
        numbers, scale, *rest = read
        assert numbers is not None
        assert scale is not None
        axis = int(node.attributes.get("axis", 1)) % max(numbers.ndim, 1)
        block = int(node.attributes.get("block_size", 0))
        return cls(numbers, scale, rest[0] if rest else None, axis, block)

    def zeroed(
        self, slices: Iterable[tuple[int, IntArray]], stays: BoolArray | None = None
    ) -> Dequantized:
        """With the zero point, which stands for zero, over whole slices and where nothing stays.

        Args:
            slices: Axes and the places of each.
            stays: Flags that broadcast with the numbers; None where all else stays.
        """
        numbers, full = self.numbers.copy(), self._zeros()
        for axis, indices in slices:
            where = (slice(None),) * axis + (indices,)
            numbers[where] = full[where]
        if stays is not None:
            gone = ~np.broadcast_to(stays, numbers.shape)
            numbers[gone] = full[gone]
        return replace(self, numbers=numbers)

    def rearranged(self, own: IntArray | None) -> Dequantized | None:
        """With places of the second axis of their own for each of the first (`along_rows`).

        None where scales differ from place to place of the second axis.
        """
        if own is None:
            return self
        if self.block or (self.axis == 1 and self.scale.size > 1):
            return None
        return replace(self, numbers=along_rows(self.numbers, own))

    def _zeros(self) -> Array:
        """The zero points, in the shape of the numbers."""
        shape, zero = self.numbers.shape, self.zero
        if zero is None:
            return np.broadcast_to(np.zeros((), self.numbers.dtype), shape)
        if self.block:
            places = np.arange(shape[self.axis]) // self.block
            return zero.take(places, self.axis)
        spread = [1] * len(shape)
        if zero.size > 1:
            spread[self.axis] = zero.size
        return np.broadcast_to(zero.reshape(spread), shape)

    def taken(self, takes: Mapping[int, IntArray]) -> Dequantized | None:
        """With some places of axes; None where that would leave a part of a block.

        Args:
            takes: Positions to keep, by axis.
        """
        numbers, scale, zero = self.numbers, self.scale, self.zero
        for axis, positions in takes.items():
            own = self._of_scales(axis, positions)
            if own is None:
                return None
            numbers = numbers.take(positions, axis)
            if self.block or axis == self.axis:
                along = axis if self.block else 0
                scale = scale.take(own, along) if scale.size > 1 else scale
                zero = zero.take(own, along) if zero is not None and zero.size > 1 else zero
        return replace(self, numbers=numbers, scale=scale, zero=zero)

    def _of_scales(self, axis: int, positions: IntArray) -> IntArray | None:
        """Which scales belong to positions of an axis; None where a block is not whole."""
        if not self.block or axis != self.axis:
            return positions
        if self.block >= self.numbers.shape[axis]:
            return np.zeros(1, np.int64)
        return whole_blocks(positions, self.block)
