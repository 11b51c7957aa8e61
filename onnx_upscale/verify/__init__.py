"""verify: run the masked and the emitted model side by side on the same random inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx

from onnx_upscale.errors import UsageError, VerifySetupError
from onnx_upscale.load.values import Array
from onnx_upscale.verify.inputs import input_sizes, random_inputs
from onnx_upscale.verify.session import Session

__all__ = ["Session", "Tolerance", "Verification", "input_sizes", "random_inputs", "verify"]

Values: TypeAlias = "dict[str, Array]"


# Half precision differs by this many of its last bits when sums are taken in another order.
_ROUNDINGS = 4


@dataclass(frozen=True)
class Tolerance:
    """How much two models may differ: `atol + rtol * max |output|`, per output.

    Raises:
        UsageError: A number that nothing, or everything, would be within.
    """

    rtol: float = 1e-4
    atol: float = 1e-6

    def __post_init__(self) -> None:
        """Refuses what cannot be meant."""
        for name, value in (("rtol", self.rtol), ("atol", self.atol)):
            if not 0 <= value < np.inf:
                raise UsageError(f"--{name} {value}: must be a number from 0 on")

    def allowed(self, dtype: np.dtype[Any], scale: float) -> float:
        """The largest difference of outputs of a type, where `scale` is the largest of them."""
        coarse = _ROUNDINGS * float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0
        return self.atol + max(self.rtol, coarse) * scale


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
    inputs = [random_inputs(masked, shapes, seed + sample) for sample in range(samples)]
    try:
        expected = _run(masked, inputs)
    except VerifySetupError as error:
        raise VerifySetupError(f"{error}; --no-verify does without") from None
    try:
        found = _run(emitted, inputs)
    except VerifySetupError as error:
        return Verification(samples, np.inf, np.inf, False, (), f"emitted model: {error}")
    differences = [
        _difference(name, wanted.get(name), got.get(name), tolerance)
        for wanted, got in zip(expected, found, strict=True)
        for name in wanted | got
    ]
    return Verification(
        samples=samples,
        max_abs=max((difference.absolute for difference in differences), default=0.0),
        max_rel=max((difference.relative for difference in differences), default=0.0),
        ok=not any(difference.failure for difference in differences),
        warnings=_doubts(expected, original, inputs[0]),
        failure=next((d.failure for d in differences if d.failure), None),
    )


def _run(model: onnx.ModelProto, inputs: list[Values]) -> list[Values]:
    session = Session(model)
    return [session.run(values) for values in inputs]


@dataclass(frozen=True)
class _Difference:
    absolute: float = np.inf
    relative: float = np.inf
    failure: str | None = None


def _difference(
    name: str, wanted: Array | None, got: Array | None, tolerance: Tolerance
) -> _Difference:
    where = f"output '{name}'"
    if wanted is None or got is None:
        return _Difference(failure=f"{where} is {'new' if wanted is None else 'missing'}")
    if wanted.shape != got.shape or wanted.dtype != got.dtype:
        kinds = [f"{value.dtype} of shape {value.shape}" for value in (got, wanted)]
        return _Difference(failure=f"{where} is {kinds[0]} instead of {kinds[1]}")
    if wanted.dtype.kind not in "fiub":
        same = np.array_equal(wanted, got)
        return _Difference(0.0, 0.0) if same else _Difference(failure=f"{where} differs")
    a, b = wanted.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(a)
    if (
        not np.array_equal(a[~finite], b[~finite], equal_nan=True)
        or not np.isfinite(b[finite]).all()
    ):
        return _Difference(failure=f"{where} has infinities or NaNs in other places")
    absolute = float(np.abs(a[finite] - b[finite]).max(initial=0.0))
    scale = float(np.abs(a[finite]).max(initial=0.0))
    relative = absolute / scale if scale else np.inf if absolute else 0.0
    if absolute <= tolerance.allowed(wanted.dtype, scale):
        return _Difference(absolute, relative)
    failure = f"{where} differs by {absolute:.3g} where its largest value is {scale:.3g}"
    return _Difference(absolute, relative, failure)


def _doubts(
    expected: list[Values],
    original: onnx.ModelProto | None,
    inputs: Values,
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


def _same(one: Values, other: Values) -> bool:
    return all(
        np.array_equal(values, other[name], equal_nan=values.dtype.kind == "f")
        for name, values in one.items()
    )
