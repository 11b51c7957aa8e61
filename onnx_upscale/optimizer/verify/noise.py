"""How far a model is from itself: what no comparison with it can be finer than."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.optimizer.verify.difference import Tolerance, Values, differences
from onnx_upscale.running import Session

# A few of the last bits of float32: a change that rounding alone could make.
TINY = 1e-6
_NOTHING = Tolerance(0.0, 0.0)


@dataclass(frozen=True)
class Noise:
    """How far a model is from itself, as shares of the largest value of an output.

    Attributes:
        rounding: Run twice without onnxruntime's optimizations, the second time on inputs that are
            changed by about one rounding.
        levels: Run with and without optimizations.
    """

    rounding: float
    levels: float

    @property
    def largest(self) -> float:
        """Of both."""
        return max(self.rounding, self.levels)


def own_noise(models: Iterable[onnx.ModelProto], inputs: Sequence[Values], seed: int) -> Noise:
    """Measures how far models are from themselves.

    Args:
        models: The models.
        inputs: Values for their inputs, per sample.
        seed: Seed of the tiny changes.

    Returns:
        The largest noise of any of them.
    """
    each = [_own_noise(model, inputs, seed) for model in models]
    return Noise(max(noise.rounding for noise in each), max(noise.levels for noise in each))


def _own_noise(model: onnx.ModelProto, inputs: Sequence[Values], seed: int) -> Noise:
    plain, optimized = Session(model, optimized=False), Session(model)
    rng = np.random.default_rng(seed)
    nudged = [{name: _nudged(value, rng) for name, value in values.items()} for values in inputs]
    expected = [plain.run(values) for values in inputs]

    def distance(session: Session, given: Sequence[Values]) -> float:
        found = [session.run(values) for values in given]
        return differences(expected, found, _NOTHING).relative

    return Noise(distance(plain, nudged), distance(optimized, inputs))


def _nudged(value: Array, rng: np.random.Generator) -> Array:
    if value.dtype.kind != "f":
        return value
    return (value * (1 + TINY * rng.standard_normal(value.shape))).astype(value.dtype)
