"""The one interface behind which prices stand."""

from __future__ import annotations

from typing import Protocol

from onnx_upscale.grain import Grain
from onnx_upscale.prices.kernels import Kernel
from onnx_upscale.prices.program import Program
from onnx_upscale.prices.work import CopyWork, Counts, LayerWork


class Prices(Protocol):
    """What work costs on a target; everything that plans asks this and nothing else."""

    @property
    def name(self) -> str:
        """What the target is called."""

    @property
    def provider(self) -> str:
        """Where onnxruntime runs models on the target: `cpu` or `cuda`."""

    @property
    def layouts(self) -> int:
        """How many layouts tensors have: 2 where convolutions want blocked ones, otherwise 1."""

    def kernels(self, program: Program) -> tuple[Kernel, ...]:
        """The kernels that a program runs as on the target."""

    def layer(self, work: LayerWork) -> float:
        """Seconds that a layer takes."""

    def copy(self, work: CopyWork) -> float:
        """Seconds that a copy takes, the layout changes that it brings included."""

    def kernel(self, kernel: Kernel) -> float:
        """Seconds of one call of a kernel of onnxruntime's."""

    def knows(self, kernel: Kernel) -> bool:
        """Whether the price of a kernel was measured; it is an estimate otherwise."""

    def counts(self, least: int, grain: Grain) -> Counts:
        """Counts that layers like.

        Args:
            least: How many channels are needed.
            grain: The largest of the layers that have to do with them.

        Returns:
            Counts from `least` on.
        """

    def with_copies_costing(self, factor: float) -> Prices:
        """The same prices, but for copies, which cost `factor` times as much."""
