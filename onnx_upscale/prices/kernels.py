"""What onnxruntime's kernels are given to do: their families, and the numbers that matter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from onnx_upscale.grain import Grain
from onnx_upscale.prices.work import LayerWork

BYTE_COUNTS = (8, 16)
"""What quantized convolutions like multiples of: those without groups, and depthwise ones too."""
_BYTE_INPUTS = 4

Floats = npt.NDArray[np.float64]

# Convolutions in the blocked layout, then those that compute just the channels there are.
BLOCKED = ("direct", "pointwise", "few", "few_pointwise", "depthwise", "grouped")
PLAIN = ("unrolled", "unrolled_pointwise", "depthwise_plain", "grouped_plain")
# Layers of 8-bit numbers; what is ragged has counts that are no whole vectors.
BYTES = (
    "bytes",
    "bytes_pointwise",
    "bytes_depthwise",
    "bytes_grouped",
    "ragged",
    "ragged_pointwise",
    "ragged_depthwise",
    "bytes_product",
)
REORDERS = ("reorder_in", "reorder_out")
FAMILIES = (
    *BLOCKED,
    *PLAIN,
    *BYTES,
    "product",
    *REORDERS,
    "gather",
    "slice",
    "gather_last",
    "slice_last",
    "concat",
    "pool",
    "pool_plain",
    "reduce",
    "simple",
    "binary",
    "scale",
    "costly",
    "fused",
    "overhead",
)
"""Every family of kernels; the prices of one say nothing about those of another."""
KINDS = ("compute", "copies", "reorders")
"""What time goes to, as `bench` calls it."""
_COPIES = frozenset({"gather", "slice", "gather_last", "slice_last", "concat"})
WEIGHTS = 7
"""How many numbers `features` finds of a kernel."""


class Kernel(NamedTuple):
    """One call of one kernel.

    Attributes:
        family: One of `FAMILIES`.
        inputs: Channels that it reads.
        outputs: Channels that it makes.
        places: Positions that it makes them at, batch included.
        window: Positions of its window.
        stride: Input positions per output position.
        groups: Groups of a convolution.
    """

    family: str
    inputs: int
    outputs: int
    places: int
    window: int = 1
    stride: int = 1
    groups: int = 1

    @property
    def kind(self) -> str:
        """What its time counts as, one of `KINDS`."""
        if self.family in REORDERS:
            return "reorders"
        return "copies" if self.family in _COPIES else "compute"

    @property
    def coordinates(self) -> tuple[float, ...]:
        """Where the kernel stands among others of its family: logarithms of its sizes."""
        sizes = (self.inputs, self.outputs, self.places, self.window, self.stride, self.groups)
        return tuple(math.log2(max(size, 1)) for size in sizes)


class Widths(NamedTuple):
    """The counts of channels that fast convolutions take.

    Attributes:
        block: They compute whole blocks of this many channels.
        align: Counts that they pad to whole blocks by themselves are multiples of this.
        pads: Whether they pad any count of outputs.
    """

    block: int
    align: int = 4
    pads: bool = True

    def whole(self, count: int) -> int:
        """A count, padded to whole blocks."""
        return -(-count // self.block) * self.block


def features(kernels: Sequence[Kernel]) -> Floats:
    """The numbers that the time of a kernel is a weighted sum of.

    Args:
        kernels: The kernels.

    Returns:
        Shape (kernels, 7): one, multiply-adds, elements read, made, weights, output channels, and
        elements of the unrolled input.
    """
    rows = [
        (
            1.0,
            k.inputs * k.outputs // k.groups * k.places * k.window,
            k.inputs * k.places * k.stride,
            k.outputs * k.places,
            k.inputs * k.outputs // k.groups * k.window,
            k.outputs,
            k.inputs * k.places * k.window,
        )
        for k in kernels
    ]
    return np.array(rows, np.float64).reshape(-1, WEIGHTS)


def convolution(
    inputs: int, outputs: int, places: int, window: int, stride: int, groups: int, widths: Widths
) -> Kernel:
    """The kernel that onnxruntime takes for a two-dimensional convolution.

    Args:
        inputs: Input channels, over all groups.
        outputs: Output channels, over all groups.
        places: Output positions, batch included.
        window: Positions of the window.
        stride: Input positions per output position.
        groups: Groups.
        widths: The counts that fast kernels take.

    Returns:
        The kernel, with counts as it computes them.
    """
    block, align, pads = widths
    whole = widths.whole

    def kernel(family: str, inputs: int = inputs, outputs: int = outputs) -> Kernel:
        return Kernel(family, inputs, outputs, places, window, stride, groups)

    point = "_pointwise" if window == 1 else ""
    if groups > 1:
        if groups == inputs == outputs:
            if outputs % align:
                return kernel("depthwise_plain")
            padded = whole(outputs)
            if window == stride == 1:
                return Kernel("scale", padded, padded, places)
            return Kernel("depthwise", padded, padded, places, window, stride, padded)
        fits = not inputs // groups % block and not outputs // groups % block
        return kernel("grouped" if fits else "grouped_plain")
    if outputs % align and not pads:
        return kernel(f"unrolled{point}")
    if inputs < block:
        return kernel(f"few{point}", outputs=whole(outputs))
    if inputs % align:
        return kernel(f"unrolled{point}")
    return kernel("pointwise" if point else "direct", whole(inputs), whole(outputs))


def byte_convolution(
    inputs: int,
    outputs: int,
    places: int,
    window: int,
    stride: int,
    groups: int,
    rounded: bool = True,
) -> Kernel:
    """The kernel that onnxruntime's CPU provider takes for a quantized convolution.

    As `convolution`, but for `rounded`: whether it makes bytes; for sums of whole numbers no count
    is ragged.
    """
    some, vector = BYTE_COUNTS
    if groups > 1 and not groups == inputs == outputs:
        family = "bytes_grouped"
    elif groups > 1:
        family = "ragged_depthwise" if rounded and outputs % vector else "bytes_depthwise"
    else:
        ragged = rounded and (inputs % _BYTE_INPUTS or outputs % some)
        family = "ragged" if ragged else "bytes"
        family += "_pointwise" if window == 1 else ""
    return Kernel(family, inputs, outputs, places, window, stride, groups)


def byte_layer(work: LayerWork) -> Kernel:
    """The kernel of an ungrouped layer of 8-bit numbers."""
    if work.product:
        return Kernel("bytes_product", work.inputs, work.outputs, work.places)
    sizes = work.inputs, work.outputs, work.places, work.window, work.stride
    return byte_convolution(*sizes, groups=1, rounded=work.grain is Grain.BYTES)
