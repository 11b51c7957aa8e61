"""What rules tell about a node, as plain records; labels stand for channels everywhere.

An axis is known by its labels: every axis that is made gets labels of its own, so two arrays with
the same labels in the same order are the same axis, whichever tensor or fact they stand in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from onnx_upscale.optimizer.analyze.rewrites import Positions, Rewrite
from onnx_upscale.optimizer.load.graph import IntArray, Node
from onnx_upscale.optimizer.load.layers import Layer
from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.words import Word

Axes: TypeAlias = "Mapping[int, IntArray]"
"""The labelled axes of one tensor; axes that are missing are opaque: never touched."""


def same_axis(one: IntArray, other: IntArray) -> bool:
    """Whether two arrays of labels stand for the same axis; that one is a copy does not matter."""
    return np.array_equal(one, other)


@dataclass(frozen=True)
class Param:
    """A constant input has one slice per channel along an axis, or one value for all of them.

    Attributes:
        axis: The axis; a negative one counts from the end.
        labels: The channels.
        parts: The axes that these are, one after the other, where they are several.
    """

    slot: int
    axis: int
    labels: IntArray
    parts: tuple[IntArray, ...] = ()

    def place(self, constant: Array) -> int | None:
        """The axis along which a constant has its slices; None if one value serves all."""
        axis = self.axis if self.axis >= 0 else self.axis + constant.ndim
        return axis if axis >= 0 and constant.shape[axis] == len(self.labels) else None

    def where(self, labels: IntArray) -> slice | None:
        """Where an axis lies among those that it is indexed by; None if it is none of them."""
        start = 0
        for part in self.parts or (self.labels,):
            if same_axis(part, labels):
                return slice(start, start + len(part))
            start += len(part)
        return None

    def kept(self, positions: Positions) -> IntArray:
        """The positions that the constant keeps.

        Args:
            positions: The positions that each axis keeps.
        """
        if not self.parts:
            return positions(self.labels)
        starts = np.cumsum([0, *(len(part) for part in self.parts)])
        kept = [positions(part) + start for part, start in zip(self.parts, starts, strict=False)]
        return np.concatenate(kept)


@dataclass(frozen=True)
class Tie:
    """A flat axis is a grid, of which one factor is another axis: flat = outer x part x inner.

    With `outer` and `inner` 1, both axes simply hold the same channels.
    """

    flat: IntArray
    outer: int
    part: IntArray
    inner: int


@dataclass(frozen=True)
class Grid:
    """A flat axis is a grid of other axes, each of which may lose channels: attention's heads.

    Its channels are not coupled with theirs. One is kept if and only if its channel of each other
    axis is, so that what is kept of it is a grid as well. A shuffle is the one grid whose two axes
    hold the same channels, each in an order of its own.

    Attributes:
        flat: The flat axis.
        factors: The axes of the grid, the slowest first.
        splits: Whether the node makes the factors of the flat axis, or the flat axis of them.
        place: How many of the node's carries come before it.
        zero: What stands for zero in it; NaN where nobody knows.
        ordered: Whether its axes must keep their order; else there is one factor.
    """

    flat: IntArray
    factors: tuple[IntArray, ...]
    splits: bool
    place: int = 0
    zero: float = 0.0
    ordered: bool = True

    @property
    def axes(self) -> tuple[IntArray, ...]:
        """All of them."""
        return (self.flat, *self.factors)

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the factors."""
        return tuple(len(factor) for factor in self.factors)


@dataclass(frozen=True)
class Concatenation:
    """An axis holds others, the parts, one after the other.

    Attributes:
        parts: The others, in their order.
        whole: All of it.
        fixed: Whether nothing can take the parts in another order.
    """

    parts: tuple[IntArray, ...]
    whole: IntArray
    fixed: bool = False

    @cached_property
    def _starts(self) -> IntArray:
        """Where each part begins on the whole, and where the last ends."""
        return np.cumsum([0, *(len(part) for part in self.parts)])

    def order(self, positions: Positions) -> list[int] | None:
        """In which order the parts must be taken to give the layout of the whole.

        Args:
            positions: The positions that each axis keeps.

        Returns:
            Indices of the parts that keep a channel, or None if no order gives the layout.
        """
        whole = positions(self.whole)
        starts = self._starts
        part_of = np.searchsorted(starts, whole, side="right") - 1
        heads = np.flatnonzero(np.diff(part_of, prepend=-1))
        order = [int(part) for part in part_of[heads]]
        order = sorted(order) if self.fixed else order
        pieces = [positions(self.parts[part]) + starts[part] for part in order]
        laid = np.concatenate(pieces) if pieces else np.zeros(0, np.int64)
        return order if np.array_equal(laid, whole) else None


@dataclass(frozen=True)
class Demand:
    """A node input (or graph output) that needs all channels of an axis.

    Attributes:
        tensor: The tensor that must be so.
        slot: Input slot of the node that reads it, or -1 where no input slot does.
        ordered: Whether their original order matters as well.
        unless_zero: Whether channels that are known to be zero may go all the same.
    """

    tensor: str
    slot: int
    axis: int
    labels: IntArray
    ordered: bool
    reason: str
    unless_zero: bool = False


@dataclass(frozen=True)
class Contraction:
    """A layer contracts an axis with its constant weight, and makes another anew.

    Attributes:
        layer: How it uses its weight, or None for an embedding, which contracts nothing.
        inputs: Labels of the axis it contracts, or None where that is opaque.
        outputs: Labels of the axis it makes, or None where that is opaque.
        padded: Whether what an input channel adds differs from place to place even if its value
            does not, as zeros from outside mix in.
    """

    layer: Layer | None
    inputs: IntArray | None
    outputs: IntArray | None
    padded: bool

    @property
    def absorbs(self) -> bool:
        """Whether channels of any known value may move into the bias; if not, only zeros."""
        return self.outputs is not None and not self.padded

    def seen(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """What the layer sees of the channels that it reads: zero is what adds nothing.

        Args:
            values: Known values per label.
        """
        assert self.layer is not None
        if self.inputs is None:
            return np.full(self.layer.inputs, np.nan)
        zero = self.layer.data_zero
        return values[self.inputs] - zero if zero else values[self.inputs]


class Read(Contraction):
    """The reading side of a contraction."""

    layer: Layer
    inputs: IntArray


class Write(Contraction):
    """The writing side of a contraction."""

    outputs: IntArray


Function: TypeAlias = "Callable[[Sequence[npt.NDArray[np.float64]]], npt.NDArray[np.float64]]"
"""From one value per operand and channel to those of the results; NaN for what is not known."""


class How(Word):
    """How known values pass a node.

    Attributes:
        SAME: Any value stays what it is.
        ZERO: Zero stays zero, and one zero operand is enough; others are lost.
        ALIKE: A channel is made of several, and has the value that all of them have.
        EVALUATE: The node is run on them.
        NONE: None does.
    """

    SAME = "same"
    ZERO = "zero"
    ALIKE = "alike"
    EVALUATE = "evaluate"
    NONE = "none"


@dataclass(frozen=True)
class Carry:
    """How known values pass from input channels to output channels.

    Attributes:
        how: How they pass; one that does not carry any is no fact.
        inputs: Per input slot, the labels on this axis, or None.
        axis: The output axis.
        outputs: Labels of the output axis.
        annihilates: Whether one zero operand makes the result zero whatever the others are.
        function: What to evaluate in place of the node, for one that ONNX does not know.
    """

    how: How
    inputs: Mapping[int, IntArray | None]
    axis: int
    outputs: IntArray
    annihilates: bool = False
    function: Function | None = None


@dataclass(frozen=True)
class Facts:
    """Everything the analysis knows about one node.

    Attributes:
        inputs: Labelled axes by input slot.
        outputs: Labelled axes by output.
        unread: The outputs without labels that nobody reads.
        recurrence: How the hidden units of a recurrent layer read each other.
        grouped: The reading side of a grouped layer whose groups lose channels each by itself.
        group_labels: One label per group of a grouped layer.
        rewrites: How the node itself changes with its channels.
    """

    node: Node
    inputs: Mapping[int, Axes]
    outputs: Mapping[int, Axes]
    unread: frozenset[int] = frozenset()
    params: tuple[Param, ...] = ()
    ties: tuple[Tie, ...] = ()
    grids: tuple[Grid, ...] = ()
    carries: tuple[Carry, ...] = ()
    demands: tuple[Demand, ...] = ()
    read: Read | None = None
    write: Write | None = None
    recurrence: Read | None = None
    concatenation: Concatenation | None = None
    grouped: Read | None = None
    group_labels: IntArray | None = None
    rewrites: tuple[Rewrite, ...] = ()

    @property
    def passes(self) -> Sequence[Carry | Grid]:
        """How known values pass, one step after the other."""
        steps: list[Carry | Grid] = list(self.carries)
        for count, grid in enumerate(self.grids if self.grouped is None else ()):
            steps.insert(grid.place + count, grid)
        return steps
