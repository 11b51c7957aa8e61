"""What is priced, in plain numbers: layers, copies, and the counts that layers like.

Tuples, for one plan makes hundreds of each.
"""

from __future__ import annotations

from typing import NamedTuple

from onnx_upscale.grain import Grain


class LayerWork(NamedTuple):
    """One layer with given channel counts.

    Attributes:
        product: Whether it is a matrix product; a convolution otherwise.
        inputs: Input channels that it reads.
        outputs: Output channels that it makes.
        places: How many positions the channels are contracted at, batch included.
        window: Positions of its window; 1 for a matrix product.
        item_bytes: Size of one element.
        stride: Input positions per output position.
        plain: Whether its input is plain, and must be reordered for kernels that want it blocked.
        bounded: Whether its results are bounded (Clip, LeakyRelu), which blocked kernels leave to a
            pass of its own.
        grain: How many channels at once its kernels work on.
        in_bytes: Whether it is computed with 8-bit numbers.
    """

    product: bool
    inputs: int
    outputs: int
    places: int
    window: int
    item_bytes: int
    stride: int = 1
    plain: bool = False
    bounded: bool = False
    grain: Grain = Grain.BLOCK
    in_bytes: bool = False


class CopyWork(NamedTuple):
    """One copy of some channels of a tensor, or of a tensor into one with more channels.

    Attributes:
        source: Channels of the tensor that is read (or filled).
        channels: Channels that are copied (or written).
        places: Positions per channel, batch included.
        contiguous: Whether the channels are a range, so that a Slice or a Pad does it.
        last_axis: Whether channels are the last axis, so that each position is a row of them.
        item_bytes: Size of one element.
        reordered: How many channels of the source are reordered for this copy alone: none where it
            is plain anyway; None for all of them.
    """

    source: int
    channels: int
    places: int
    contiguous: bool
    last_axis: bool
    item_bytes: int
    reordered: int | None = None


class Counts(NamedTuple):
    """Counts of channels to choose from, none smaller than what is needed.

    Attributes:
        least: What is needed.
        aligned: The next count that the fast kernels take.
        whole: The next count that is whole blocks, for those that take nothing else.
    """

    least: int
    aligned: int
    whole: int
