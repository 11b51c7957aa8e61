"""A model as it will run, in plain values: what the latency of a whole plan is predicted from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

Shape: TypeAlias = "tuple[int, ...]"


class Step(NamedTuple):
    """One node.

    Attributes:
        op: Its operator.
        inputs: The tensors it reads, without constants.
        outputs: The tensors it makes.
        axis: The axis that it copies, concatenates or contracts along; for a layer, that of its
            input.
        made_axis: For a layer, the axis of its output channels.
        weighted: Whether it is a layer with a constant weight.
        window: How many positions its window has.
        stride: Input positions per output position, over all spatial axes.
        groups: Groups of a convolution.
        in_bytes: Whether a layer is computed with 8-bit numbers.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    axis: int = 1
    made_axis: int = 1
    weighted: bool = False
    window: int = 1
    stride: int = 1
    groups: int = 1
    in_bytes: bool = False


@dataclass(frozen=True)
class Program:
    """All nodes of a model in their order.

    Attributes:
        steps: The nodes.
        shapes: The shape of every tensor that has a known rank.
    """

    steps: tuple[Step, ...]
    shapes: Mapping[str, Shape]
