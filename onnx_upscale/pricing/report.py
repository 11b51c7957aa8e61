"""The report of price, in version 1 of its form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnx_upscale.report import Document, Section


@dataclass(frozen=True)
class Errors(Section):
    """How far off prices are on shapes that were held out, as shares of what was measured.

    Attributes:
        median: The median error.
        ninetieth: The 90th percentile.
        shapes: How many shapes that was found on.
    """

    median: float
    ninetieth: float
    shapes: int


@dataclass(frozen=True, eq=False)
class PriceReport(Document):
    """What was measured.

    Attributes:
        version: Of the form of the report.
        path: Where the profile is, or None.
        profile: What reports call it.
        machine: What was measured.
        errors: By family of kernels, and for `all`, the errors on shapes that were held out.
    """

    version: int
    path: str | None
    profile: str
    machine: Mapping[str, Any]
    errors: Mapping[str, Errors]
