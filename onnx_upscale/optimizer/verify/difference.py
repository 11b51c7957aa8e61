"""How far the outputs of two models are apart, and how far they may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from onnx_upscale.choices import ATOL, RTOL
from onnx_upscale.errors import UsageError
from onnx_upscale.optimizer.load.values import Array

Values: TypeAlias = "dict[str, Array]"

# Half precision differs by this many of its last bits when sums are taken in another order.
_ROUNDINGS = 4


@dataclass(frozen=True)
class Tolerance:
    """How much two models may differ: `atol + rtol * max |output|`, per output.

    Raises:
        UsageError: A number that nothing, or everything, would be within.
    """

    rtol: float = RTOL
    atol: float = ATOL

    def __post_init__(self) -> None:
        """Refuses what cannot be meant."""
        for name, value in (("rtol", self.rtol), ("atol", self.atol)):
            if not 0 <= value < np.inf:
                raise UsageError(f"`{name}` {value}: must be a number from 0 on")

    def allowed(self, dtype: np.dtype[Any], scale: float) -> float:
        """The largest difference of outputs of a type, where `scale` is the largest of them.

        Whole numbers and flags must be the same.
        """
        if dtype.kind in "iub":
            return 0.0
        coarse = _ROUNDINGS * float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0
        return self.atol + max(self.rtol, coarse) * scale


@dataclass(frozen=True)
class Difference:
    """How far two values of one output are apart, and why that is too far, if it is."""

    absolute: float = np.inf
    relative: float = np.inf
    failure: str | None = None


def difference(
    name: str,
    wanted: Array | None,
    got: Array | None,
    tolerance: Tolerance,
    kind: str = "output",
) -> Difference:
    """Compares two values of one output.

    Args:
        name: The output.
        wanted: What it must be, or None where it must not be.
        got: What it is, or None where it is missing.
        tolerance: How much they may differ.
        kind: What messages call an output.

    Returns:
        The difference.
    """
    where = f"{kind} '{name}'"
    if wanted is None or got is None:
        return Difference(failure=f"{where} is {'new' if wanted is None else 'missing'}")
    if wanted.shape != got.shape or wanted.dtype != got.dtype:
        kinds = [f"{value.dtype} of shape {value.shape}" for value in (got, wanted)]
        return Difference(failure=f"{where} is {kinds[0]} instead of {kinds[1]}")
    if wanted.dtype.kind not in "fiub":
        same = np.array_equal(wanted, got)
        return Difference(0.0, 0.0) if same else Difference(failure=f"{where} differs")
    a, b = wanted.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(a)
    if (
        not np.array_equal(a[~finite], b[~finite], equal_nan=True)
        or not np.isfinite(b[finite]).all()
    ):
        return Difference(failure=f"{where} has infinities or NaNs in other places")
    absolute = float(np.abs(a[finite] - b[finite]).max(initial=0.0))
    scale = float(np.abs(a[finite]).max(initial=0.0))
    relative = absolute / scale if scale else np.inf if absolute else 0.0
    if absolute <= tolerance.allowed(wanted.dtype, scale):
        return Difference(absolute, relative)
    failure = f"{where} differs by {absolute:.3g} where its largest value is {scale:.3g}"
    return Difference(absolute, relative, failure)


def differences(
    expected: Sequence[Values],
    found: Sequence[Values],
    tolerance: Tolerance,
    kind: str = "output",
) -> Difference:
    """Compares all outputs of several samples.

    Args:
        expected: What the outputs must be, by name, per sample.
        found: What they are.
        tolerance: How much they may differ.
        kind: What messages call an output.

    Returns:
        The largest differences, and the first that is too large.
    """
    each = [
        difference(name, wanted.get(name), got.get(name), tolerance, kind)
        for wanted, got in zip(expected, found, strict=True)
        for name in wanted | got
    ]
    return Difference(
        max((difference.absolute for difference in each), default=0.0),
        max((difference.relative for difference in each), default=0.0),
        next((difference.failure for difference in each if difference.failure), None),
    )
