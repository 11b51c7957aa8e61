"""How models are run to be timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import onnx

from onnx_upscale.options import Sizes
from onnx_upscale.running import Session
from onnx_upscale.tuning.budget import Budget


@dataclass(frozen=True)
class Runtime:
    """Where models run, at which sizes, and for how long.

    Attributes:
        providers: onnxruntime's execution providers, the preferred one first.
        sizes: Shapes of the inputs of the whole model.
        budget: The time for all of it.
    """

    providers: Sequence[str]
    sizes: Sizes
    budget: Budget

    def task(
        self, model: onnx.ModelProto, inputs: Mapping[str, npt.NDArray[Any]]
    ) -> Callable[[], object]:
        """One run of a model, to be timed.

        Raises:
            VerifySetupError: onnxruntime does not run it.
        """
        return Session(model, threads=1, providers=self.providers, whole=True).task(inputs)
