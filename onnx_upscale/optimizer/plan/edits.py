"""What a plan changes on the edges of the graph, as data, in the order in which a tensor passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from onnx_upscale.optimizer.load.graph import IntArray, Node
from onnx_upscale.optimizer.load.layers import Layer


@dataclass(frozen=True)
class Select:
    """Before a node: a copy of chosen places of an axis that it reads, in the order chosen."""

    node: Node
    slot: int
    axis: int
    chosen: IntArray

    @property
    def contiguous(self) -> bool:
        """Whether the places are a range, so that a Slice can take them."""
        start = int(self.chosen[0])
        return np.array_equal(self.chosen, np.arange(start, start + len(self.chosen)))


@dataclass(frozen=True)
class SelectParts(Select):
    """The same before a convolution, in two copies: another one reads the second, and is added.

    Attributes:
        first: How many of the places are in the first copy.
    """

    first: int

    @property
    def parts(self) -> tuple[Select, Select]:
        """The two copies."""
        chosen = self.chosen[: self.first], self.chosen[self.first :]
        first, second = (Select(self.node, self.slot, self.axis, part) for part in chosen)
        return first, second


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

    @property
    def node(self) -> Node:
        """The node that it changes something at."""
        return self.layer.node


@dataclass(frozen=True)
class Widen:
    """Behind a layer: channels of zeros before and after those that it computes."""

    layer: Layer
    before: int
    after: int

    @property
    def node(self) -> Node:
        """The node that it changes something at."""
        return self.layer.node


@dataclass(frozen=True)
class Unblock:
    """At a Concat: it leaves the blocked layout, and so do its parts, once for all who read them.

    Attributes:
        node: The Concat.
        rank: Rank of what it makes.
    """

    node: Node
    rank: int


@dataclass(frozen=True)
class Convolve:
    """At a BatchNormalization: a convolution of every channel by itself takes its place.

    onnxruntime makes one of it by itself where the layout is blocked already; written as one, it
    brings the layout about.

    Attributes:
        node: The BatchNormalization.
    """

    node: Node


@dataclass(frozen=True)
class PoolFirst:
    """At a pointwise convolution: the average behind it comes before it.

    Attributes:
        layer: The convolution.
        pool: The AveragePool.
    """

    layer: Layer
    pool: Node

    @property
    def node(self) -> Node:
        """The node that it changes something at."""
        return self.layer.node


Edit: TypeAlias = "Select | SelectParts | Shift | Widen | Unblock | Convolve | PoolFirst"
