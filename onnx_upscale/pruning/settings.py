"""How a model is pruned, whatever the goal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from onnx_upscale.choices import PRUNED, STRENGTH
from onnx_upscale.options import Sizes
from onnx_upscale.pruning.evaluation import Evaluation


@dataclass(frozen=True)
class Settings:
    """How a model is pruned, whatever the goal.

    Attributes:
        target: Whose costs are planned for.
        mode: Whether readers that read the same channels must agree.
        layers: Patterns of the layers to prune; none for all.
        count: How many samples to use at most.
        strength: How much weights are pulled to what they were.
        seed: Which samples are used.
        inputs: Shapes of model inputs by name, where dimensions are symbolic; a sample's otherwise.
        runs: How often each model is timed at least.
        evaluation: The user's own measure.
        workers: Over how many processes the samples are divided.
        ray: On which Ray cluster.
    """

    target: str | os.PathLike[str] = "cpu"
    mode: str = "joint"
    layers: Sequence[str] = ()
    count: int = PRUNED
    strength: float = STRENGTH
    seed: int = 0
    inputs: Sizes | None = None
    runs: int = 30
    evaluation: Evaluation | None = None
    workers: int | None = None
    ray: str | None = None
