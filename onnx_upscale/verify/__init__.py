"""verify: run the masked and the emitted model side by side on the same random inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx

from onnx_upscale.errors import VerifySetupError
from onnx_upscale.verify.difference import (
    Difference,
    Tolerance,
    Values,
    difference,
    differences,
)
from onnx_upscale.verify.inputs import input_sizes, random_inputs
from onnx_upscale.verify.session import Session

__all__ = [
    "Difference",
    "Session",
    "Tolerance",
    "Verification",
    "difference",
    "input_sizes",
    "random_inputs",
    "verify",
]


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
    apart = differences(expected, found, tolerance)
    doubts = _doubts(expected, original, inputs[0])
    if apart.failure is not None:
        apart, doubt = _second_opinion(masked, emitted, inputs, found, apart, tolerance)
        doubts += doubt
    return Verification(
        samples=samples,
        max_abs=apart.absolute,
        max_rel=apart.relative,
        ok=apart.failure is None,
        warnings=doubts,
        failure=apart.failure,
    )


def _run(model: onnx.ModelProto, inputs: list[Values], optimized: bool = True) -> list[Values]:
    session = Session(model, optimized=optimized)
    return [session.run(values) for values in inputs]


def _second_opinion(
    masked: onnx.ModelProto,
    emitted: onnx.ModelProto,
    inputs: list[Values],
    found: list[Values],
    first: Difference,
    tolerance: Tolerance,
) -> tuple[Difference, tuple[str, ...]]:
    """Whether it is onnxruntime's own optimizations that make the models differ.

    They get some models wrong. If that befalls the masked model alone, the emitted one is right; if
    it befalls the emitted one, its users would get wrong results, whoever is to blame.
    """
    expected = _run(masked, inputs, optimized=False)
    plain = differences(expected, _run(emitted, inputs, optimized=False), tolerance)
    if plain.failure is not None:
        return first, ()
    apart = differences(expected, found, tolerance)
    if apart.failure is None:
        doubt = "onnxruntime's optimizations change what the masked model computes: it ran without"
        return apart, (doubt,)
    blame = "only with onnxruntime's optimizations, which change what the emitted model computes"
    return replace(apart, failure=f"{apart.failure}, {blame}"), ()


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
