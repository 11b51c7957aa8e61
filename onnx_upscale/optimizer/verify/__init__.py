"""verify: run the emitted model and an independent reference on the same random inputs.

The reference is the masked model as the contract defines it (`reference`), run in onnxruntime
without its optimizations; the emitted model runs with them, as its users will run it. Models that
are not continuous are compared piece by piece (`pieces`), and against their own noise (`noise`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from onnx_upscale.errors import UsageError, VerifySetupError
from onnx_upscale.optimizer.verify.accuracy import at_full_accuracy
from onnx_upscale.optimizer.verify.difference import (
    Difference,
    Tolerance,
    Values,
    difference,
    differences,
)
from onnx_upscale.optimizer.verify.noise import TINY, own_noise
from onnx_upscale.optimizer.verify.pieces import View, compare_pieces, find_cuts, record, unchanged
from onnx_upscale.optimizer.verify.reference import NodeMask, reference_model
from onnx_upscale.running import Session, input_sizes, run_on_random

__all__ = [
    "TINY",
    "Difference",
    "NodeMask",
    "Tolerance",
    "Verification",
    "View",
    "difference",
    "reference_model",
    "unchanged",
    "verify",
]

# Noise is measured on few runs, so a difference may be this many times as large.
_NOISE = 4.0
# Where a model jumps or has quantized weights, and each piece is equal, the whole may still be
# apart by a few roundings to whole numbers that its own noise did not happen to show:
# onnxruntime's optimizations turn what is quantized into products of whole numbers.
_FEW_ROUNDINGS = 0.05


@dataclass(frozen=True)
class Verification:
    """What a comparison found.

    Attributes:
        samples: How many inputs were run.
        max_abs: Largest absolute difference over all outputs.
        max_rel: Largest difference as a share of the largest value of its output.
        ok: Whether the models are equal.
        warnings: Reasons to doubt that the comparison could have failed.
        failure: What differed first, or None.
        noise: How far the reference is from itself, as a share; None where nobody had to ask.
        pieces: At how many tensors the models were cut to be compared; 0 if as a whole.
    """

    samples: int
    max_abs: float
    max_rel: float
    ok: bool
    warnings: tuple[str, ...]
    failure: str | None
    noise: float | None = None
    pieces: int = 0


def verify(
    reference: onnx.ModelProto,
    emitted: onnx.ModelProto,
    *,
    original: onnx.ModelProto | None = None,
    leaking: Callable[[], onnx.ModelProto] | None = None,
    masks_matter: bool = True,
    samples: int = 2,
    seed: int = 0,
    tolerance: Tolerance | None = None,
    sizes: Mapping[str, tuple[int, ...]] | None = None,
    at: Collection[str] = (),
    view: View = unchanged,
) -> Verification:
    """Compares two models in onnxruntime.

    Args:
        reference: What the emitted model must equal.
        emitted: The emitted model.
        original: The model without masks, whose noise counts as well.
        leaking: Makes the reference with rounding noise in place of what masks make zero.
        masks_matter: Whether to warn if the masks do not change what the original computes.
        samples: How many random inputs to run.
        seed: Seed of the inputs.
        tolerance: Largest difference allowed.
        sizes: Shapes of inputs that have symbolic dimensions.
        at: Tensors to compare at; what lies behind them is compared given the same values there.
        view: What the emitted model is said to hold of a tensor of the reference.

    Returns:
        What was found; a difference is no exception.

    Raises:
        UsageError: There is no tensor to compare at.
        VerifySetupError: onnxruntime cannot run the reference.
    """
    tolerance = tolerance or Tolerance()
    reference, emitted = at_full_accuracy(reference), at_full_accuracy(emitted)
    original = None if original is None else at_full_accuracy(original)
    shapes = input_sizes(reference, sizes)
    run, seeds = Session(reference, optimized=False).run, range(seed, seed + samples)
    inputs, expected = run_on_random(run, reference, shapes, seeds)
    del run  # It holds the weights once more.
    comparison = _Comparison(
        reference, emitted, original, leaking, inputs, expected, tolerance, at, view, seed
    )
    return comparison.outcome(masks_matter)


class _Comparison:
    """One comparison, from the plain one to those that cost more."""

    def __init__(
        self,
        reference: onnx.ModelProto,
        emitted: onnx.ModelProto,
        original: onnx.ModelProto | None,
        leaking: Callable[[], onnx.ModelProto] | None,
        inputs: Sequence[Values],
        expected: Sequence[Values],
        tolerance: Tolerance,
        at: Collection[str],
        view: View,
        seed: int,
    ) -> None:
        self._reference, self._emitted, self._original = reference, emitted, original
        self._leaking = leaking
        self._inputs, self._expected = inputs, expected
        self._tolerance, self._view, self._seed = tolerance, view, seed
        self._cuts = find_cuts(reference, at)
        missing = set(at) - set(self._cuts.tensors)
        if missing:
            raise UsageError(
                f"`verify_at` {min(missing)}: no node of the model makes such a tensor from its "
                "inputs"
            )
        self._forced = bool(at)
        quantized = any(node.op_type == "DequantizeLinear" for node in reference.graph.node)
        self._rounds = quantized or bool(self._cuts.tensors)

    def outcome(self, masks_matter: bool) -> Verification:
        doubts = _doubts(self._inputs, self._expected)
        # What the first inputs do not show may be in the branch of an If that others take.
        if masks_matter and all(map(_same, self._expected, self._run_unmasked())):
            doubts += ("the masks do not change the outputs, so equality says little about them",)
        try:
            session = Session(self._emitted)
            found = [session.run(values) for values in self._inputs]
        except VerifySetupError as error:
            return self._outcome(Difference(failure=f"emitted model: {error}"))
        whole = differences(self._expected, found, self._tolerance)
        if whole.failure is None and not self._forced:
            return self._outcome(whole, doubts)
        return self._closer(found, whole, doubts)

    def _run_unmasked(self) -> Iterator[Values | None]:
        """What the original makes; None where there is none, or where it runs with masks alone."""
        if self._original is None:
            yield from (None for _ in self._inputs)
            return
        session = Session(self._original, optimized=False)
        for values in self._inputs:
            try:
                yield session.run(values)
            except VerifySetupError:
                yield None

    @functools.cached_property
    def _unmasked(self) -> list[Values | None]:
        """The same of all inputs at once."""
        return list(self._run_unmasked())

    def _closer(
        self,
        found: Sequence[Values],
        whole: Difference,
        doubts: tuple[str, ...],
    ) -> Verification:
        """Compares again where a difference of the whole may be the model's own noise."""
        cuts = len(self._cuts.tensors)
        models = [self._reference]
        if self._original is not None and None not in self._unmasked:
            models.append(self._original)
        noise = own_noise(models, self._inputs, self._seed)
        itself = f"the model differs from itself by {noise.largest:.2g} of its output"
        is_noise = whole.relative <= _NOISE * noise.largest
        recorded = record(self._reference, self._cuts, self._inputs)
        pieces = compare_pieces(
            self._emitted, self._cuts, self._inputs, recorded, self._view, self._tolerance
        )
        if pieces.failure is not None and not cuts and pieces.relative <= _NOISE * noise.rounding:
            # There is nothing but the whole to compare, and that is no finer than its noise.
            doubt = f"{itself}, so that a difference of {whole.relative:.2g} proves little"
            return self._outcome(replace(whole, failure=None), (*doubts, doubt), noise.largest)
        if pieces.failure is not None or whole.failure is None:
            return self._outcome(pieces, doubts, noise.largest, cuts)
        few = self._rounds and self._beside_original(found, whole) <= _FEW_ROUNDINGS
        if is_noise or few:
            how = f"piece by piece, cut at {cuts} tensors" if cuts else "without optimizations"
            doubt = f"{itself}: compared {how}"
            return self._outcome(pieces, (*doubts, doubt), noise.largest, cuts)
        if whole.relative <= _NOISE * self._leak():
            doubt = (
                "outputs follow what rounding leaves of channels that the masks make zero: "
                "compared without optimizations"
            )
            return self._outcome(pieces, (*doubts, doubt), noise.largest, cuts)
        failure = (
            f"{whole.failure}, only with the optimizations of onnxruntime, which change what the "
            "emitted model computes"
        )
        return self._outcome(replace(whole, failure=failure), noise=noise.largest)

    def _leak(self) -> float:
        """How far the reference is from itself if zeros of masks are rounding noise instead.

        A model may divide a masked tensor by its norm, and so show noise that nothing else does.
        """
        if self._leaking is None:
            return 0.0
        session = Session(at_full_accuracy(self._leaking()), optimized=False)
        found = [session.run(values) for values in self._inputs]
        leak = differences(self._expected, found, self._tolerance)
        return leak.relative if leak.failure else 0.0

    def _beside_original(self, found: Sequence[Values], whole: Difference) -> float:
        """The largest difference, as a share of what an output has without masks, if that is more.

        Of an output that is zero under masks, no difference would be a small share.
        """
        if None in self._unmasked or not np.isfinite(whole.absolute):
            return whole.relative
        shares = [0.0]
        for wanted, got, unmasked in zip(self._expected, found, self._unmasked, strict=True):
            for name, value in wanted.items():
                if value.dtype.kind == "f":
                    other = (unmasked or {}).get(name, value)
                    other = other if other.shape == value.shape else value
                    finite = np.isfinite(value) & np.isfinite(other)
                    before, after, other = (
                        each[finite].astype(np.float64) for each in (value, got[name], other)
                    )
                    apart = np.abs(after - before).max(initial=0.0)
                    scale = np.abs([before, other]).max(initial=0.0)
                    shares.append(apart / scale if scale else np.inf if apart else 0.0)
        return max(shares)

    def _outcome(
        self,
        apart: Difference,
        doubts: tuple[str, ...] = (),
        noise: float | None = None,
        pieces: int = 0,
    ) -> Verification:
        return Verification(
            samples=len(self._inputs),
            max_abs=apart.absolute,
            max_rel=apart.relative,
            ok=apart.failure is None,
            warnings=doubts if apart.failure is None else (),
            failure=apart.failure,
            noise=noise,
            pieces=pieces,
        )


def _doubts(inputs: Sequence[Values], expected: Sequence[Values]) -> tuple[str, ...]:
    """Ways in which the comparison could not have failed."""
    if not any(expected):
        return ("the model makes no tensor on these inputs, so there is nothing to compare",)
    if inputs[0] and len(expected) > 1 and _same(expected[0], expected[1]):
        return ("the outputs do not change with the inputs, so equality on them proves little",)
    return ()


def _same(one: Values, other: Values | None) -> bool:
    return (
        other is not None
        and one.keys() == other.keys()
        and all(
            np.array_equal(values, other[name], equal_nan=values.dtype.kind == "f")
            for name, values in one.items()
        )
    )
