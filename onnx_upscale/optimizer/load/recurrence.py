"""How a layer remembers: hidden units that read each other one step later.

A hidden unit has one slice of every constant per gate and direction. These slices lie in blocks:
all units of one gate, then all of the next, along the second axis; the first is that of directions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from onnx_upscale.optimizer.load.values import Array

STATE_WEIGHT_SLOT = 2
"""Input slot of what the units of one step are multiplied with at the next."""
BIAS_SLOT = 3
LENGTHS_SLOT = 4
START_SLOTS = (5, 6)
"""Input slots of what the units hold before the first step."""


@dataclass(frozen=True)
class Recurrence:
    """The hidden units of a layer.

    Attributes:
        units: How many there are in each direction.
        blocks: By input slot of a constant, how many blocks of units it has.
        gates: Count of gates.
        candidate: The gate that makes what comes into a unit; the others only let pass.
        rests: Per direction, whether a unit into which nothing but zeros comes stays zero.
    """

    units: int
    blocks: Mapping[int, int] = field(hash=False)
    gates: int
    candidate: int
    rests: tuple[bool, ...]

    def by_unit(self, weight: Array) -> Array:
        """A weight as (units, what they read, directions x gates)."""
        split = weight.reshape(len(weight), -1, self.units, weight.shape[-1])
        return np.moveaxis(split, (2, 3), (0, 1)).reshape(self.units, weight.shape[-1], -1)

    def rows(self, slot: int, units: Array) -> Array:
        """Where some units have their slices in a constant, along its second axis."""
        starts = np.arange(self.blocks[slot])[:, np.newaxis] * self.units
        return (starts + units).ravel()

    def incoming(self, constant: Array) -> Array:
        """The slices that make what comes into units, shape (directions, units, ...).

        Of a bias, which is added in two halves, those of the first.
        """
        start = self.candidate * self.units
        return constant[:, start : start + self.units]
