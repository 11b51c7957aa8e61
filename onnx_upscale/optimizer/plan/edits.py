"""What a plan changes on the edges of the graph, as data, in the order in which a tensor passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.load.layers import Layer


@dataclass(frozen=True)
class Select:
    """Before a layer: a copy of chosen places of the axis it contracts, in the order chosen."""

    layer: Layer
    chosen: IntArray

    @property
    def contiguous(self) -> bool:
        """Whether the places are a range, so that a Slice can take them."""
        start = int(self.chosen[0])
        return np.array_equal(self.chosen, np.arange(start, start + len(self.chosen)))


@dataclass(frozen=True)
class Shift:
    """Behind a layer, or in its bias: what input channels of known value add that it does not read.

    Attributes:
        layer: The layer.
        positions: The original output channels that it computes, in order.
        amounts: What is added, per original output channel.
    """

    layer: Layer
    positions: IntArray
    amounts: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Widen:
    """Behind a layer: channels of zeros before and after those that it computes."""

    layer: Layer
    before: int
    after: int


Edit: TypeAlias = "Select | Shift | Widen"
