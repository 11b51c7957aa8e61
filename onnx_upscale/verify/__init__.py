"""verify: run the masked and the emitted model side by side on the same random inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from onnx_upscale.errors import VerifySetupError
from onnx_upscale.verify.inputs import input_sizes, random_inputs
from onnx_upscale.verify.session import Session

__all__ = ["Session", "Tolerance", "Verification", "input_sizes", "random_inputs", "verify"]


@dataclass(frozen=True)
class Tolerance:
    """How much two models may differ: `atol + rtol * max |output|`, per output."""

    rtol: float = 1e-4
    atol: float = 1e-6


@dataclass(frozen=True)
class Verification:
    """What a comparison found.

    Attributes:
        samples: How many inputs were run.
        max_abs: Largest absolute difference over all outputs.
        max_rel: Largest difference as a share of the largest value of its output.
        ok: Whether every output was within tolerance.
        warnings: Reasons to doubt that the comparison could have failed.
        failure: What differed first, or None.
    """

    samples: int
    max_abs: float
    max_rel: float
    ok: bool
    warnings: tuple[str, ...]
    failure: str | None


def verify(
    masked: onnx.ModelProto,
    emitted: onnx.ModelProto,
    *,
    original: onnx.ModelProto | None = None,
    samples: int = 2,
    seed: int = 0,
    tolerance: Tolerance | None = None,
    sizes: Mapping[str, tuple[int, ...]] | None = None,
) -> Verification:
    """Compares two models in onnxruntime.

    Args:
        masked: The masked model, which is what the emitted one must equal.
        emitted: The emitted model.
        original: The model without masks, to see that the masks change anything at all.
        samples: How many random inputs to run.
        seed: Seed of the inputs.
        tolerance: Largest difference allowed.
        sizes: Shapes of inputs that have symbolic dimensions.

    Returns:
        What was found; a difference is no exception.

    Raises:
        VerifySetupError: onnxruntime cannot run the masked model.
    """
    tolerance = tolerance or Tolerance()
    shapes = input_sizes(masked, sizes)
    reference = Session(masked)
    expected = []
    for sample in range(samples):
        expected.append(reference.run(random_inputs(masked, shapes, seed + sample)))
    del reference
    try:
        checked = Session(emitted)
        found = [checked.run(random_inputs(masked, shapes, seed + s)) for s in range(samples)]
    except VerifySetupError as error:
        return Verification(samples, np.inf, np.inf, False, (), f"emitted model: {error}")
    max_abs = max_rel = 0.0
    failure = None
    for wanted, got in zip(expected, found, strict=True):
        for name in wanted:
            absolute, scale = _difference(wanted[name], got[name])
            max_abs = max(max_abs, absolute)
            max_rel = max(max_rel, absolute / scale if scale else (np.inf if absolute else 0.0))
            if not absolute <= tolerance.atol + tolerance.rtol * scale and failure is None:
                failure = f"output '{name}' differs by {absolute:.3g} where its largest value is {scale:.3g}"
    warnings = _doubts(expected, original, random_inputs(masked, shapes, seed))
    return Verification(samples, max_abs, max_rel, failure is None, warnings, failure)


def _difference(wanted: np.ndarray, got: np.ndarray) -> tuple[float, float]:
    """Largest absolute difference, and the largest finite value of what is wanted."""
    if wanted.shape != got.shape or wanted.dtype != got.dtype:
        return np.inf, 0.0
    if wanted.dtype.kind not in "fiub" or not wanted.size:
        return (0.0 if np.array_equal(wanted, got) else np.inf), 0.0
    a, b = wanted.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return np.inf, 0.0
    gap = np.abs(a[finite] - b[finite])
    scale = np.abs(a[finite]).max(initial=0.0)
    return float(gap.max(initial=0.0)), float(scale)


def _doubts(
    expected: list[dict[str, np.ndarray]],
    original: onnx.ModelProto | None,
    inputs: Mapping[str, np.ndarray],
) -> tuple[str, ...]:
    """Ways in which the comparison could not have failed."""
    doubts = []
    if inputs and len(expected) > 1 and _same(expected[0], expected[1]):
        doubts.append(
            "the outputs do not change with the inputs, so equality on them proves little"
        )
    if original is not None and _same(expected[0], Session(original).run(inputs)):
        doubts.append("the masks do not change the outputs, so equality says little about them")
    return tuple(doubts)


def _same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    return all(
        np.array_equal(one[name], other[name], equal_nan=_has_nan(one[name])) for name in one
    )


def _has_nan(values: np.ndarray) -> bool:
    return values.dtype.kind == "f"
