"""How many channels at once kernels work on, which decides what a count of channels costs."""

from __future__ import annotations

from enum import IntEnum


class Grain(IntEnum):
    """How many channels at once; of several, the largest is what a count has to suit."""

    CHANNEL = 0
    """One: any count costs what it computes, as in matrix products."""
    BLOCK = 1
    """A block of the blocked layout, as in convolutions of images."""
    BYTES = 2
    """A vector of 8-bit numbers, as in quantized convolutions."""
