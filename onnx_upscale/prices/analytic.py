"""Prices from a few numbers: formulas for what onnxruntime's kernels do."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from onnx_upscale.grain import Grain
from onnx_upscale.prices.kernels import (
    BLOCKED,
    BYTE_COUNTS,
    BYTES,
    PLAIN,
    REORDERS,
    Kernel,
    Widths,
    byte_layer,
    convolution,
)
from onnx_upscale.prices.lower import lower
from onnx_upscale.prices.program import Program
from onnx_upscale.prices.work import CopyWork, Counts, LayerWork

# What leaving the fast kernels and coming back takes, as a count of nodes.
_UNALIGNED_NODES = 3
_LAYERS = frozenset({*BLOCKED, *PLAIN, *BYTES, "product"})
_COPIES = frozenset({"gather", "slice", "concat"})
# Bytes are turned one by one, so that each takes as long as a real number.
_TURNED_BYTES = 4
# Rough work per element of what is no layer and no copy, as multiples of moving it.
_PER_ELEMENT = {"costly": 2.0, "fused": 0.5, "pool": 0.5, "reduce": 0.5}
# Rough slowness of multiply-adds of convolutions with groups.
_SLOWER_GROUPS = {
    "depthwise": 3.0,
    "depthwise_plain": 12.0,
    "grouped_plain": 1.5,
    "bytes_depthwise": 10.0,
    "ragged_depthwise": 13.0,
    "bytes_grouped": 2.0,
}


@dataclass(frozen=True)
class AnalyticPrices:
    """Prices of one target, in seconds.

    Attributes:
        name: What the target is called.
        description: What was measured, on what.
        seconds_per_mac: One multiply-add of a convolution in its best shape.
        seconds_per_product_mac: One multiply-add of a matrix product.
        seconds_per_product_weight_byte: One byte of the weight of a matrix product, whatever the
            count of rows.
        seconds_per_source_byte: One byte of a tensor that is copied from, whose layout must change.
        seconds_per_copied_byte: One byte that a copy writes.
        near_bytes: The largest copy that fits the caches.
        far: How much longer a larger one takes per byte.
        seconds_per_gathered: One element that a Gather along the last axis moves, alone as it is.
        seconds_per_row: One row that a Slice along the last axis moves a part of.
        seconds_per_node: One more node.
        layouts: How many layouts tensors have: 2 where convolutions want blocked ones, and others
            plain ones, so that they are reordered in between; 1 where nothing is.
        block: The fast kernels compute whole blocks of this many channels; Concat and pooling work
            on nothing but whole blocks.
        align: A convolution with a channel count that is no multiple of this leaves the fast
            kernels, for others that compute just the channels there are.
        few_pointwise: How much longer a multiply-add takes in a convolution without a window that
            reads fewer channels than a block.
        unaligned: How much longer a multiply-add takes in the kernels for any count.
        unaligned_pointwise: The same for a convolution without a window.
        seconds_per_unrolled: One element of the input of a convolution with a window, once per
            place of the window, as those kernels unroll it before they multiply.
        byte_mac: A multiply-add of 8-bit numbers, as a share of that of a convolution.
        ragged: How much longer it takes where counts are no whole vectors.
    """

    name: str
    description: str
    seconds_per_mac: float
    seconds_per_product_mac: float
    seconds_per_product_weight_byte: float
    seconds_per_source_byte: float
    seconds_per_copied_byte: float
    near_bytes: int
    far: float
    seconds_per_gathered: float
    seconds_per_row: float
    seconds_per_node: float
    layouts: int
    block: int
    align: int
    few_pointwise: float
    unaligned: float
    unaligned_pointwise: float
    seconds_per_unrolled: float
    byte_mac: float = 0.5
    ragged: float = 1.4

    @property
    def provider(self) -> str:
        """Where onnxruntime runs models on the target: `cuda` for the profile of that name."""
        return "cuda" if self.name == "cuda" else "cpu"

    @property
    def _widths(self) -> Widths:
        # Blocks of a layout are there in full; what has no layout of its own computes what it gets.
        return Widths(self.block, self.align, pads=self.layouts > 1)

    @property
    def has_byte_kernels(self) -> bool:
        """Whether quantized layers run on 8-bit numbers; elsewhere these are decoded before."""
        return self.provider == "cpu"

    def copies_rows(self, work: CopyWork) -> bool:
        """Whether a copy takes parts of rows.

        Quantized layers have their channels last; a Gather has bytes turned before and behind.
        """
        bytes_last = self.has_byte_kernels and work.item_bytes == 1
        return work.last_axis or (bytes_last and work.contiguous)

    def layer(self, work: LayerWork) -> float:
        """Seconds that a layer takes."""
        if work.in_bytes and self.has_byte_kernels:
            return self.kernel(byte_layer(work)) - self.seconds_per_node
        if work.product:
            return self._product(work)
        if work.grain is Grain.CHANNEL:
            return self._any_count(work)
        # Fewer inputs than a block are read unblocked, like those of an image.
        few = work.inputs < self.block
        if work.outputs % self.align or (work.inputs % self.align and not few):
            result = work.outputs * work.places * work.item_bytes
            # What follows is likely to want the fast layout back.
            return self._any_count(work) + result * self.seconds_per_source_byte
        bound = self._bounds(work) if work.bounded else 0.0
        macs = work.places * work.window * _rounded(work.outputs, self.block)
        if not few:
            seconds = macs * _rounded(work.inputs, self.block) * self.seconds_per_mac + bound
            source = work.inputs * work.places * work.stride * work.item_bytes
            reordered = work.plain and self.layouts > 1
            return seconds + (source * self.seconds_per_source_byte if reordered else 0.0)
        slower = self.few_pointwise if work.window == 1 else 1
        return macs * work.inputs * slower * self.seconds_per_mac + bound

    def _bounds(self, work: LayerWork) -> float:
        return self.kernel(Kernel("fused", work.outputs, work.outputs, work.places))

    def _product(self, work: LayerWork) -> float:
        """A matrix product, which has no blocks that would show: odd counts cost nothing."""
        weights = work.inputs * work.outputs
        per_weight = work.places * self.seconds_per_product_mac
        return weights * (per_weight + work.item_bytes * self.seconds_per_product_weight_byte)

    def _any_count(self, work: LayerWork) -> float:
        """A convolution in the kernels that compute just the channels there are."""
        inputs = work.places * work.window * work.inputs
        seconds = inputs * work.outputs * self.seconds_per_mac
        if work.window == 1:
            return seconds * self.unaligned_pointwise
        nodes = _UNALIGNED_NODES * self.seconds_per_node
        return seconds * self.unaligned + inputs * self.seconds_per_unrolled + nodes

    def copy(self, work: CopyWork) -> float:
        """Seconds that a copy takes, the layout changes that it brings included."""
        if self.copies_rows(work):
            return self.seconds_per_node + self._copied_rows(work)
        reordered = work.source if work.reordered is None else work.reordered
        turned = self.has_byte_kernels and work.item_bytes == 1
        whole = reordered * work.places * (_TURNED_BYTES if turned else work.item_bytes)
        part = work.channels * work.places * work.item_bytes
        seconds = whole * self.seconds_per_source_byte + part * self.seconds_per_copied_byte
        return self.seconds_per_node + seconds * (self.far if part > self.near_bytes else 1)

    def _copied_rows(self, work: CopyWork) -> float:
        """Parts of rows: where channels come last no layout changes, but pieces are small."""
        elements = work.places * work.channels
        if not work.contiguous:
            return elements * self.seconds_per_gathered
        copied = elements * work.item_bytes * self.seconds_per_copied_byte
        return copied + work.places * self.seconds_per_row

    def kernels(self, program: Program) -> tuple[Kernel, ...]:
        """The kernels that a program runs as on the target."""
        kernels = lower(program, self._widths, self.has_byte_kernels)
        if self.layouts == 1:
            kernels = tuple(k for k in kernels if k.family not in REORDERS)
        return kernels

    def convolution(
        self, inputs: int, outputs: int, places: int, window: int, stride: int, groups: int
    ) -> Kernel:
        """The kernel of a convolution, with counts as it computes them."""
        return convolution(inputs, outputs, places, window, stride, groups, self._widths)

    def kernel(self, kernel: Kernel) -> float:
        """Seconds of one call of a kernel, float32."""
        moved = 4.0 * kernel.places * kernel.outputs
        if kernel.family in ("overhead", *_COPIES):
            per_byte = self.seconds_per_copied_byte if kernel.family in _COPIES else 0.0
            return self.seconds_per_node + moved * per_byte
        if kernel.family == "gather_last":
            return (
                self.seconds_per_node + kernel.places * kernel.outputs * self.seconds_per_gathered
            )
        if kernel.family == "slice_last":
            rows = kernel.places * self.seconds_per_row
            return self.seconds_per_node + rows + moved * self.seconds_per_copied_byte
        if kernel.family not in _LAYERS:
            times = _PER_ELEMENT.get(kernel.family, 1.0) * kernel.window
            return self.seconds_per_node + moved * times * self.seconds_per_source_byte
        inputs = kernel.inputs // kernel.groups
        if kernel.family in BYTES:
            macs = inputs * kernel.outputs * kernel.places * kernel.window
            slower = _SLOWER_GROUPS.get(kernel.family, 1.0)
            slower *= self.ragged if kernel.family.startswith("ragged") else 1.0
            return self.seconds_per_node + macs * slower * self.byte_mac * self.seconds_per_mac
        work = LayerWork(
            kernel.family == "product", inputs, kernel.outputs, kernel.places, kernel.window, 4
        )
        if kernel.groups == 1:
            return self.seconds_per_node + self.layer(work)
        slower = _SLOWER_GROUPS.get(kernel.family, 1.0)
        macs = inputs * kernel.outputs * kernel.places * kernel.window
        return self.seconds_per_node + macs * slower * self.seconds_per_mac

    def knows(self, kernel: Kernel) -> bool:
        """Whether the price of a kernel was measured: as one with all others, for this kind."""
        return True

    def counts(self, least: int, grain: Grain) -> Counts:
        """Counts that layers like."""
        if grain is Grain.CHANNEL:
            return Counts(least, least, least)
        if grain is Grain.BYTES and self.has_byte_kernels:
            return Counts(least, *(_rounded(least, step) for step in BYTE_COUNTS))
        return Counts(least, _rounded(least, self.align), _rounded(least, self.block))

    def with_copies_costing(self, factor: float) -> AnalyticPrices:
        """The same prices, but for copies and nodes, which cost `factor` times as much."""
        return dataclasses.replace(
            self,
            seconds_per_source_byte=self.seconds_per_source_byte * factor,
            seconds_per_copied_byte=self.seconds_per_copied_byte * factor,
            seconds_per_gathered=self.seconds_per_gathered * factor,
            seconds_per_row=self.seconds_per_row * factor,
            seconds_per_node=self.seconds_per_node * factor,
        )


def _rounded(count: int, step: int) -> int:
    return -(-count // step) * step
