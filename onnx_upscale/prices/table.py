"""Prices from what was measured: a fit per family of kernels, corrected by the shapes nearby."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnx_upscale.grain import Grain
from onnx_upscale.prices.analytic import AnalyticPrices
from onnx_upscale.prices.kernels import BLOCKED, Floats, Kernel, byte_layer, features
from onnx_upscale.prices.program import Program
from onnx_upscale.prices.work import CopyWork, Counts, LayerWork

# Nearby is about one doubling of one size; a correction fades where nothing measured is nearby.
_NEAR, _DOUBT = 0.15, 0.3
# So many doublings away from everything measured, a table has nothing to say.
_FAR = 4.0


@dataclass(frozen=True)
class Measured:
    """What was measured of one family.

    Attributes:
        weights: Seconds per unit of each of `features`.
        kernels: The kernels that were measured.
        seconds: What each took, shape (kernels,).
    """

    weights: tuple[float, ...]
    kernels: tuple[Kernel, ...]
    seconds: tuple[float, ...]

    def times(self, factor: float) -> Measured:
        """The same, but for seconds, of which there are so many times as many."""
        weights = tuple(factor * weight for weight in self.weights)
        return Measured(weights, self.kernels, tuple(factor * each for each in self.seconds))

    @cached_property
    def _places(self) -> Floats:
        return np.array([kernel.coordinates for kernel in self.kernels], np.float64)

    @cached_property
    def _corrections(self) -> Floats:
        fitted = features(self.kernels) @ np.array(self.weights)
        corrections: Floats = np.log(np.array(self.seconds) / np.maximum(fitted, 1e-12))
        return corrections

    def seconds_of(self, kernel: Kernel) -> float | None:
        """Seconds of a kernel, or None where nothing like it was measured."""
        squares = self._distances(kernel)
        if squares.min() > _FAR**2:
            return None
        near = _nearness(squares)
        correction = float(near @ self._corrections / (near.sum() + _DOUBT))
        fitted = float((features([kernel]) @ np.array(self.weights))[0])
        return fitted * float(np.exp(correction))

    def longer_than(self, formula: Callable[[Kernel], float], kernel: Kernel) -> float:
        """How many times as long kernels take as a formula says, those nearest to one above all."""
        said = np.array([formula(each) for each in self.kernels])
        near = _nearness(self._distances(kernel))
        return float(np.exp(near @ np.log(np.array(self.seconds) / said) / near.sum()))

    def _distances(self, kernel: Kernel) -> Floats:
        """Squares of the distances to all that was measured."""
        squares: Floats = np.square(self._places - np.array(kernel.coordinates)).sum(1)
        return squares


def _nearness(squares: Floats) -> Floats:
    return np.asarray(1 / np.square(squares + _NEAR))


@dataclass(frozen=True)
class TablePrices:
    """Prices measured on one machine.

    Attributes:
        name: What the profile is called.
        fallback: Prices for what the table lacks.
        families: What was measured, by family of kernels.
        copy_factor: How many times as much copies cost as was measured.
    """

    name: str
    fallback: AnalyticPrices
    families: Mapping[str, Measured]
    copy_factor: float = 1.0

    @property
    def provider(self) -> str:
        """Where onnxruntime runs models on the target."""
        return self.fallback.provider

    @property
    def layouts(self) -> int:
        """How many layouts tensors have on the target."""
        return self.fallback.layouts

    def kernels(self, program: Program) -> tuple[Kernel, ...]:
        """The kernels that a program runs as on the target."""
        return self.fallback.kernels(program)

    @cached_property
    def _known(self) -> dict[Kernel, float | None]:
        return {}

    def kernel(self, kernel: Kernel) -> float:
        """Seconds of one call of a kernel."""
        measured = self._measured(kernel)
        if measured is not None:
            return measured
        if kernel not in self._estimates:
            self._estimates[kernel] = self._estimated(kernel)
        return self._estimates[kernel]

    @cached_property
    def _estimates(self) -> dict[Kernel, float]:
        return {}

    def _estimated(self, kernel: Kernel) -> float:
        family, formula = self.families.get(kernel.family), self.fallback.kernel
        # The formulas are of another machine: a family must not become cheaper where they begin.
        slower = 1.0 if family is None else family.longer_than(formula, kernel)
        return formula(kernel) * slower

    def knows(self, kernel: Kernel) -> bool:
        """Whether the table has shapes like that of a kernel."""
        return self._measured(kernel) is not None

    def _measured(self, kernel: Kernel) -> float | None:
        if kernel not in self._known:
            family = self.families.get(kernel.family)
            self._known[kernel] = None if family is None else family.seconds_of(kernel)
        return self._known[kernel]

    def layer(self, work: LayerWork) -> float:
        """Seconds that a layer takes, with the layout changes that its counts bring."""
        if work.in_bytes and self.fallback.has_byte_kernels:
            return self.kernel(byte_layer(work))
        if work.product:
            return self.kernel(Kernel("product", work.inputs, work.outputs, work.places))
        if work.grain is Grain.CHANNEL:
            return self.kernel(
                Kernel("unrolled", work.inputs, work.outputs, work.places, work.window, work.stride)
            )
        kernel = self.fallback.convolution(
            work.inputs, work.outputs, work.places, work.window, work.stride, groups=1
        )
        seconds, read = self.kernel(kernel), work.places * work.stride
        if kernel.family in BLOCKED:
            if work.plain and not kernel.family.startswith("few"):
                seconds += self._reorder("reorder_in", work.inputs, read)
            return seconds + (self._bounds(work) if work.bounded else 0.0)
        if not work.plain:
            seconds += self._reorder("reorder_out", work.inputs, read)
        return seconds + self._reorder("reorder_in", work.outputs, work.places)

    def _bounds(self, work: LayerWork) -> float:
        return self.kernel(Kernel("fused", work.outputs, work.outputs, work.places))

    def copy(self, work: CopyWork) -> float:
        """Seconds that a copy takes, the layout changes that it brings included."""
        family = "slice" if work.contiguous else "gather"
        seconds = 0.0
        if self.fallback.copies_rows(work):
            family += "_last"
        else:
            reordered = work.source if work.reordered is None else work.reordered
            if reordered:
                seconds += self._reorder("reorder_out", reordered, work.places)
            seconds += self._reorder("reorder_in", work.channels, work.places)
        seconds += self.kernel(Kernel(family, work.source, work.channels, work.places))
        return seconds * self.copy_factor

    def _reorder(self, family: str, channels: int, places: int) -> float:
        if self.layouts == 1:
            return 0.0
        return self.kernel(Kernel(family, channels, channels, places))

    def counts(self, least: int, grain: Grain) -> Counts:
        """Counts that layers like."""
        return self.fallback.counts(least, grain)

    def with_copies_costing(self, factor: float) -> TablePrices:
        """The same prices, but for copies, which cost `factor` times as much."""
        return dataclasses.replace(self, copy_factor=self.copy_factor * factor)
