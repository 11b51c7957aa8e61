"""How nodes that count or place channels change with them: said by rules, carried out by apply.

A rule that moves channels gives its node a `Rewrite`: told which positions of each axis are kept,
it changes the node through an `Editor`. So all that is known of an operator stands in one file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from onnx_upscale.optimizer.load.graph import IntArray, Node

Positions: TypeAlias = "Callable[[IntArray], IntArray]"
"""From the labels of an axis to the original positions that it keeps, in their new order."""

Template: TypeAlias = "tuple[int | None, ...]"
"""A shape; None stands for a size that is as it was."""


@dataclass(frozen=True)
class Taken:
    """A new node takes places of an axis."""

    axis: int
    places: IntArray


@dataclass(frozen=True)
class Reshaped:
    """A new node gives a tensor sizes, as a Reshape reads them."""

    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Transposed:
    """A new node changes the order of axes."""

    order: tuple[int, ...]


Step: TypeAlias = "Taken | Reshaped | Transposed"


class Editor(Protocol):
    """A node of the emitted model, as its rewrite may change it."""

    @property
    def node(self) -> Node:
        """The node as it was."""

    @property
    def opset(self) -> int:
        """Version of the ONNX operator set."""

    @property
    def result(self) -> str:
        """The name of its first output, as it is now."""

    def attribute(self, name: str) -> Any:
        """An attribute as it is now, or None."""

    def set_attribute(self, name: str, value: Any) -> None:
        """Gives an attribute another value; None takes it away."""

    def integers(self, slot: int) -> list[int]:
        """The constant integers at an input slot as they are now; empty where there are none."""

    def set_integers(self, slot: int, name: str, values: Sequence[int] | IntArray) -> None:
        """Puts constant integers at an input slot; the name is a proposal."""

    def replace_sizes(self, slot: int, name: str, sizes: Template, scalar: bool = False) -> None:
        """Puts other sizes in place of some at an input slot; None leaves one as it is."""

    def take_inputs(self, slots: Sequence[int]) -> None:
        """Leaves only some inputs, in another order."""

    def take_outputs(self, outputs: Sequence[int]) -> None:
        """Leaves only some outputs, in another order."""

    def bypass(self) -> None:
        """Takes the node away where its readers may read its first input in place of its result."""

    def read_as(self, reader: Node, slot: int) -> None:
        """Reads first what another node reads at some slot."""

    def select_input(self, slot: int, axis: int, chosen: IntArray) -> None:
        """Takes places of an axis of an input, before the node."""

    def gather_result(self, axis: int, chosen: IntArray) -> None:
        """Takes places of an axis of its first output, behind the node."""

    def replace_by(self, reader: Node, steps: Sequence[Step]) -> None:
        """Replaces the node by others in a row; the first reads what `reader` reads first."""

    def replace_by_copies(self, axis: int, chosen: Mapping[int, IntArray]) -> None:
        """Replaces the node by copies of its first input: for each output, places of an axis."""


Rewrite: TypeAlias = "Callable[[Editor, Positions], None]"


def changed(labels: IntArray, positions: Positions) -> bool:
    """Whether an axis loses channels, or has them in another order."""
    return not np.array_equal(positions(labels), np.arange(len(labels)))


@dataclass(frozen=True)
class Count:
    """An attribute is the count of some channels."""

    attribute: str
    labels: IntArray

    def __call__(self, editor: Editor, positions: Positions) -> None:
        """Counts those that are kept."""
        if changed(self.labels, positions):
            editor.set_attribute(self.attribute, len(positions(self.labels)))


@dataclass(frozen=True)
class Resize:
    """An input holds the shape of the result.

    Attributes:
        slot: Its slot.
        template: That shape as a constant; None for a size that only a run shows.
        axes: The labelled axes of the result.
        measured: The axes that some of its sizes are read from.
    """

    slot: int
    template: Template
    axes: Mapping[int, IntArray]
    measured: tuple[IntArray, ...] = ()

    def __call__(self, editor: Editor, positions: Positions) -> None:
        """Rewrites the shape if a labelled axis, or one that is measured, gets shorter."""
        sizes = list(self.template)
        shorter = any(len(positions(labels)) != len(labels) for labels in self.measured)
        for axis, labels in self.axes.items():
            sizes[axis] = len(positions(labels))
            shorter |= sizes[axis] != len(labels)
        name = f"{editor.node.outputs[0]}.sizes"
        known = [size for size in sizes if size is not None]
        if shorter and len(known) == len(sizes):
            editor.set_integers(self.slot, name, known)
        elif shorter:
            editor.replace_sizes(self.slot, name, tuple(sizes))


@dataclass(frozen=True)
class Frozen:
    """An input holds sizes of axes, and must not change with them.

    Attributes:
        slot: Its slot.
        measured: The labels of the axis that each entry is the size of, or None.
        scalar: Whether it is a single number and no vector.
    """

    slot: int
    measured: tuple[IntArray | None, ...]
    scalar: bool

    def __call__(self, editor: Editor, positions: Positions) -> None:
        """Puts the sizes back if some axis gets shorter."""
        counts = [None if labels is None else len(labels) for labels in self.measured]
        kept = [None if labels is None else len(positions(labels)) for labels in self.measured]
        if kept != counts:
            name = f"{editor.node.outputs[0]}.sizes"
            editor.replace_sizes(self.slot, name, tuple(counts), self.scalar)
