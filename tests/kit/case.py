"""A generated model with its masks, and what is known of its layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import onnx

Dims: TypeAlias = "tuple[int | str, ...]"
Masks: TypeAlias = "dict[str, dict[str, list[int]]]"


@dataclass(frozen=True)
class Layer:
    """A maskable node; axes count from the end, so that masks broadcast.

    `path` says in which body it is, `weight` is what masks call its weight.
    """

    node: str
    weight: str | None
    data: tuple[str, int, int]
    result: tuple[str, int, int]
    rank: int
    path: str = ""

    @property
    def keys(self) -> list[str]:
        """What masks may call it."""
        named = [self.path + self.node, self.path + self.result[0]]
        return named if self.weight is None else [*named, self.weight]


@dataclass(frozen=True)
class Case:
    """A model, its masks, and its layers."""

    model: onnx.ModelProto
    masks: Masks
    layers: tuple[Layer, ...] = field(repr=False)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """How hypothesis prints a counterexample."""
        printer.text(f"{onnx.printer.to_text(self.model)}\nmasks: {self.masks}")

    @property
    def document(self) -> dict[str, Any]:
        return {"version": 1, "masks": self.masks}
