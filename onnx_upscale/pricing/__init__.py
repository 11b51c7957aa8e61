"""pricing: measure what work costs on this machine, and make a profile of it."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import onnxruntime

from onnx_upscale.benchmark.providers import execution_providers
from onnx_upscale.choices import PRECISIONS, PRICED
from onnx_upscale.errors import UsageError
from onnx_upscale.files import Saved, json_file
from onnx_upscale.prices import load_prices
from onnx_upscale.prices.analytic import AnalyticPrices
from onnx_upscale.prices.files import table_json
from onnx_upscale.prices.machine import cpu_kind
from onnx_upscale.prices.table import TablePrices
from onnx_upscale.pricing.fit import fit
from onnx_upscale.pricing.measure import measure_by_profile, measure_one_by_one
from onnx_upscale.pricing.report import Errors, PriceReport
from onnx_upscale.pricing.shapes import planned
from onnx_upscale.pricing.whole import whole_factor
from onnx_upscale.report import VERSION

__all__ = ["Errors", "Priced", "price"]


@dataclass(frozen=True)
class Priced(Saved):
    """Prices of this machine.

    Attributes:
        prices: The prices.
        errors: By family of kernels, and for `all`, the errors on shapes that were held out.
        machine: What they were measured on.
    """

    prices: TablePrices
    errors: Mapping[str, Errors]
    machine: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The profile, as its file has it."""
        errors = {name: asdict(each) for name, each in self.errors.items()}
        return table_json(self.prices, self.machine, errors)

    def report(self, path: str | None = None) -> PriceReport:
        """What was measured, without the prices themselves.

        Args:
            path: Where the profile is.
        """
        return PriceReport(VERSION, path, self.prices.name, self.machine, self.errors)

    @property
    def content(self) -> bytes:
        """The profile as a file's content."""
        return json_file(self.to_json(), indent=1)


def price(
    *,
    provider: str = "cpu",
    threads: int = 1,
    precision: str = "float32",
    share: float = 1.0,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Priced:
    """Measures what layers, copies, layout changes and other nodes cost on this machine.

    Args:
        provider: `cpu` or `cuda`.
        threads: Threads inside a kernel; 0 leaves their number to onnxruntime.
        precision: The type of real numbers, `float32` or, on CUDA, `float16`.
        share: How large a part of the planned shapes to measure, above 0 and at most 1.
        progress: Called with how much is done, of how much.

    Returns:
        The prices, for `save` and then as a target.

    Raises:
        UsageError: There is no such provider here, or an option cannot be meant.
    """
    if provider not in PRICED:
        raise UsageError(f"`provider` {provider}: unknown (known: {', '.join(PRICED)})")
    if threads < 0:
        raise UsageError(f"`threads` {threads}: must be at least 0")
    if precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise UsageError(f"`precision` {precision}: unknown (known: {known})")
    if precision == "float16" and provider == "cpu":
        raise UsageError("`precision` float16: the kernels of CPUs compute with float32")
    if not 0 < share <= 1:
        raise UsageError(f"`share` {share}: must be above 0 and at most 1")
    providers = execution_providers(provider)
    fallback = load_prices(provider)
    assert isinstance(fallback, AnalyticPrices)
    kernels = planned(fallback, share)
    if provider == "cpu":
        seconds = measure_by_profile(kernels, threads, progress)
    else:
        seconds = measure_one_by_one(kernels, providers, threads, progress, precision)
    families, errors = fit(seconds)
    kind = cpu_kind() if provider == "cpu" else provider
    name = f"{kind} {precision} measured" if precision != "float32" else f"{kind} measured"
    prices = TablePrices(name, fallback, families)
    whole = whole_factor(prices, providers, threads, precision)
    families = {family: measured.times(whole) for family, measured in families.items()}
    machine = {
        "provider": provider,
        "threads": threads,
        "precision": precision,
        "kind": kind,
        "system": f"{platform.system()} {platform.machine()}",
        "onnxruntime": onnxruntime.__version__,
        "whole_networks": round(whole, 3),
    }
    return Priced(TablePrices(name, fallback, families), errors, machine)
