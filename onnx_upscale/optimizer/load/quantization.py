"""How a layer computes with whole numbers that stand for real ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_upscale.optimizer.load.encoding import Encoding, Floats
from onnx_upscale.optimizer.load.values import Array


@dataclass(frozen=True, eq=False)
class Quantization:
    """What the whole numbers of a layer stand for.

    A layer adds up (data - its zero point) x (weight - its zero point), and its bias.

    Attributes:
        data_zero: What a channel that adds nothing is known to hold: the zero point.
        weight_zero: The zero point of the weight, in a shape that broadcasts with it.
        weight_scale: Its scale, in such a shape; 1 where the operator is not told.
        slots: Input slots of constants that have one value per output channel, or one for all.
        step: What a sum is multiplied by, one number or one per output channel.
        made: The encoding of the result; None for real numbers, or for the sums themselves.
    """

    data_zero: float
    weight_zero: Array
    weight_scale: Array
    slots: tuple[int, ...]
    step: Floats
    made: Encoding | None

    def centred(self, weight: Array) -> Array:
        """What a weight is multiplied with data as: zero where nothing passes."""
        return weight.astype(np.int32) - self.weight_zero.astype(np.int32)

    def real(self, weight: Array) -> Array:
        """What a weight stands for."""
        return self.centred(weight) * self.weight_scale

    def made_of(self, sums: Floats) -> Floats:
        """What the layer makes of sums, per output channel; NaN where that is in doubt."""
        values = sums * self.step
        return values if self.made is None else self.made.encode(values)
