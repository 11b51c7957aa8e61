"""The options of the main job, which the functions and the command line share."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from onnx_upscale.arguments import check_known, check_seed, several
from onnx_upscale.choices import STRATEGIES, TUNE_SECONDS
from onnx_upscale.errors import UsageError
from onnx_upscale.optimizer.verify import Tolerance

if TYPE_CHECKING:
    from onnx_upscale.samples import SampleSource

Sizes: TypeAlias = "Mapping[str, tuple[int, ...]]"


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to optimize, and how to compare.

    Attributes:
        strategy: `auto`, `upscale`, `gather` or `constrained`.
        target: Whose costs `auto` plans for: `cpu` (the kind at hand), `cpu-avx512`, `cpu-avx2`,
            `cpu-arm64`, `cuda`, or the path of a profile.
        tune: Let `auto` measure its choices on this machine.
        tune_seconds: About how long that may take.
        verify: Run the masked and the emitted model side by side.
        samples: How many random inputs to run.
        seed: Seed of the inputs.
        rtol: Largest difference, as a share of the largest value of an output.
        atol: Largest difference in addition.
        inputs: Shapes of inputs with symbolic dimensions, for verifying and tuning.
        verify_at: Tensors to compare at as well, such as those in front of a selection; what lies
            behind them is compared given the same values there.
        recover: Samples of the model's inputs: readers that lose channels get new weights first,
            and what is verified is the repaired model.

    Raises:
        UsageError: One of them cannot be meant.
    """

    strategy: str = "auto"
    target: str | os.PathLike[str] = "cpu"
    tune: bool = False
    tune_seconds: float = TUNE_SECONDS
    verify: bool = True
    samples: int = 2
    seed: int = 0
    rtol: float = Tolerance.rtol
    atol: float = Tolerance.atol
    inputs: Sizes | None = None
    verify_at: Sequence[str] = ()
    recover: SampleSource | None = None

    def __post_init__(self) -> None:
        """Refuses what cannot be meant."""
        check_known("strategy", self.strategy, STRATEGIES)
        if not 0 < self.tune_seconds < math.inf:
            raise UsageError(f"`tune_seconds` {self.tune_seconds:g}: must be more than 0")
        check_seed(self.seed)
        object.__setattr__(self, "verify_at", several(self.verify_at))
        if self.samples < 1:
            raise UsageError("at least one sample is needed; use `verify=False` for none")

    @property
    def tolerance(self) -> Tolerance:
        """How much may differ."""
        return Tolerance(self.rtol, self.atol)
