"""prune: choose, repair, optimize, verify and measure, from a model and a few samples."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

from onnx_upscale.arguments import check_seed, several
from onnx_upscale.blame import blaming_the_model
from onnx_upscale.choices import PRUNED, STRENGTH
from onnx_upscale.errors import UsageError
from onnx_upscale.optimizer.load import ModelSource
from onnx_upscale.options import Sizes
from onnx_upscale.pruning.evaluation import Evaluate, Evaluation
from onnx_upscale.pruning.goals import Asked, Goal, read_goals
from onnx_upscale.pruning.pruner import Progress, Pruner
from onnx_upscale.pruning.results import Pruned, Sweep
from onnx_upscale.pruning.settings import Settings
from onnx_upscale.samples import SampleSource


def prune(
    model: ModelSource,
    samples: SampleSource,
    *,
    latency: float | str | None = None,
    macs: float | None = None,
    params: float | None = None,
    agreement: float | None = None,
    error: float | None = None,
    score: float | None = None,
    **options: Any,
) -> Pruned:
    """Makes a model smaller and faster without masks, labels or training.

    It chooses the channels whose loss costs least for what it saves, gives their readers new
    weights in closed form, and optimizes the result exactly. Exactly one goal is given.

    Args:
        model: A path or a `ModelProto`, which is not changed.
        samples: Inputs of the model, without labels, as `recover` takes them.
        latency: Measured latency: a share of the original's, such as 0.7, or a time, such as "5ms".
        macs: Multiply-adds, as a share.
        params: Weights, as a share.
        agreement: As fast as possible while this share of the held-out samples gets the same top-1
            answer as from the original.
        error: As fast as possible while the outputs differ by no more than this share.
        score: As fast as possible while `evaluate` gives at least this.
        **options: As for `prune_all`.

    Returns:
        The model, with what lies between and a report.

    Raises:
        UpscaleError: One of its subclasses says what is wrong with the input.
    """
    asked: dict[str, Asked] = {
        "latency": latency,
        "macs": macs,
        "params": params,
        "agreement": agreement,
        "error": error,
        "score": score,
    }
    goals = read_goals(asked)
    if len(goals) > 1:
        raise UsageError("`latency`: give one value; several values are for prune_all")
    (pruned,) = prune_all(model, samples, goals, **options)
    return pruned


@blaming_the_model
def prune_all(
    model: ModelSource,
    samples: SampleSource,
    goals: Goal | float | str | Sequence[Goal | float | str],
    *,
    evaluate: Evaluate | None = None,
    target: str | os.PathLike[str] = "cpu",
    mode: str = "joint",
    layers: Sequence[str] = (),
    count: int = PRUNED,
    strength: float = STRENGTH,
    seed: int = 0,
    inputs: Sizes | None = None,
    runs: int = 30,
    workers: int | None = None,
    ray: str | None = None,
    progress: Progress | None = None,
) -> Sweep:
    """Prunes one model to several goals, for the price of the statistics once.

    Args:
        model: As for `prune`.
        samples: As for `prune`.
        goals: What is asked for: latencies as `prune` takes them, or goals from `read_goals`.
        evaluate: A measure of your own: a function from the path of an .onnx file to a number (more
            is better), or `MODULE:FUNCTION`. It is called for the original and for each result.
        target: A built-in target or a profile: whose costs are planned for.
        mode: `joint`, or `agreement` where all readers of a channel must give it up together, or
            `freedom` where each does by itself.
        layers: Patterns (`*`, `?`, `[...]`) of the layers to prune, by weight, node, output, torch
            parameter or module, as for `mask`; none for all, those right before an output only
            where a goal is out of reach without. They lose channels that they read; where other
            layers read these as well, each by itself.
        count: How many samples to use at most; a fifth of them is held out.
        strength: As for `recover`.
        seed: Which samples are used.
        inputs: Shapes of model inputs by name, where dimensions are symbolic; a sample's otherwise.
        runs: How often each model is timed at least.
        workers: As for `recover`.
        ray: As for `recover`; several models of a sweep are repaired there at the same time.
        progress: Called now and then.

    Returns:
        A result per goal, and a table of all.

    Raises:
        UpscaleError: One of its subclasses says what is wrong with the input.
    """
    if count < 2:
        raise UsageError(f"`count` {count}: must be at least 2")
    if not 0 <= strength < math.inf:
        raise UsageError(f"`strength` {strength}: must be 0 or more")
    check_seed(seed)
    if runs < 1:
        raise UsageError(f"`runs` {runs}: must be at least 1")
    layers, goals = several(layers), several(goals)
    if not goals:
        raise UsageError("give at least one goal")
    read = [
        goal if isinstance(goal, Goal) else read_goals({"latency": [goal]})[0] for goal in goals
    ]
    least = next((goal for goal in read if goal.name == "score"), None)
    if least is not None and evaluate is None:
        raise UsageError(f"{least}: needs `evaluate`, which says what a score is")
    evaluation = None if evaluate is None else Evaluation.of(evaluate)
    settings = Settings(
        target, mode, layers, count, strength, seed, inputs, runs, evaluation, workers, ray
    )
    with Pruner(model, samples, settings, progress, least) as pruner:
        return Sweep(tuple(pruner.reach_all(read)))
