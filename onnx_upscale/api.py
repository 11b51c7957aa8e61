"""The Python interface of the main job, and of its verbs analyze and verify."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnx_upscale.arguments import check_known
from onnx_upscale.blame import blaming_the_model
from onnx_upscale.choices import STRATEGIES, TUNE_SECONDS
from onnx_upscale.main_job import optimize_with, raise_if_different
from onnx_upscale.optimizer.analyze import Analysis
from onnx_upscale.optimizer.analyze import analyze as analyze_graph
from onnx_upscale.optimizer.bodies import PlannedBody, grown_analysis, plan_bodies
from onnx_upscale.optimizer.load import Loaded, MaskSource, ModelSource, load
from onnx_upscale.optimizer.load.formats import format_warnings
from onnx_upscale.optimizer.plan import Plan, plan
from onnx_upscale.optimizer.verify import Tolerance, Verification
from onnx_upscale.options import Options, Sizes
from onnx_upscale.prices import load_prices
from onnx_upscale.proof import prove
from onnx_upscale.result import Result

if TYPE_CHECKING:
    from onnx_upscale.samples import SampleSource


@dataclass(frozen=True)
class Analyzed:
    """A model that was analyzed and not changed.

    Attributes:
        loaded: The model and its masks.
        analysis: What is known about its channels.
    """

    loaded: Loaded
    analysis: Analysis

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to mind."""
        return format_warnings(self.loaded.graph.model.graph.node)

    def plan(self, strategy: str, target: str = "cpu") -> Plan:
        """What a strategy would do."""
        check_known("strategy", strategy, STRATEGIES)
        analysis, _ = grown_analysis(self.analysis, strategy)
        return plan(analysis, strategy, load_prices(target))

    def plan_bodies(self, strategy: str, target: str = "cpu") -> tuple[PlannedBody, ...]:
        """What a strategy would do in the bodies of If, Loop and Scan."""
        check_known("strategy", strategy, STRATEGIES)
        return plan_bodies(self.loaded.bodies, strategy, load_prices(target))


def optimize(
    model: ModelSource,
    masks: MaskSource = None,
    *,
    strategy: str = "auto",
    target: str | os.PathLike[str] = "cpu",
    tune: bool = False,
    tune_seconds: float = TUNE_SECONDS,
    verify: bool = True,
    samples: int = 2,
    seed: int = 0,
    rtol: float = Tolerance.rtol,
    atol: float = Tolerance.atol,
    inputs: Sizes | None = None,
    verify_at: Sequence[str] = (),
    recover: SampleSource | None = None,
) -> Result:
    """Removes masked channels from a model: the same function as the masked model, less work.

    Args:
        model: A path or a `ModelProto`, which is not changed.
        masks: A path, a dictionary of the same form, or None for the zeros in the weights alone.
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
        recover: Samples of the model's inputs, as for `recover`: readers that lose channels get new
            weights first, and what is emitted equals the repaired model.

    Returns:
        The model and the report.

    Raises:
        UpscaleError: One of its subclasses says what is wrong with the input.
        VerifyError: The models differ; the error holds the report.
    """
    options = Options(
        strategy=strategy,
        target=target,
        tune=tune,
        tune_seconds=tune_seconds,
        verify=verify,
        samples=samples,
        seed=seed,
        rtol=rtol,
        atol=atol,
        inputs=inputs,
        verify_at=verify_at,
        recover=recover,
    )
    return optimize_with(model, masks, options)


@blaming_the_model
def analyze(model: ModelSource, masks: MaskSource = None) -> Analyzed:
    """Analyzes a model without changing it.

    Args:
        model: A path or a `ModelProto`.
        masks: Masks, as for `optimize`.

    Returns:
        What is coupled, known and needed.
    """
    loaded = load(model, masks, mapped=True)
    return Analyzed(loaded, analyze_graph(loaded.graph))


def verify(
    model: ModelSource,
    masks: MaskSource,
    emitted: ModelSource,
    *,
    strategy: str = "auto",
    target: str | os.PathLike[str] = "cpu",
    samples: int = 2,
    seed: int = 0,
    rtol: float = Tolerance.rtol,
    atol: float = Tolerance.atol,
    inputs: Sizes | None = None,
    verify_at: Sequence[str] = (),
) -> Verification:
    """Compares an earlier result with the masked model again.

    Args:
        model: The original model.
        masks: Its masks.
        emitted: The result.
        strategy: The strategy it was made with.
        target: The target it was made for. These two matter for `constrained`, which has masks of
            its own, and for models that have to be compared piece by piece.
        samples: How many random inputs to run.
        seed: Seed of the inputs.
        rtol: As for `optimize`.
        atol: As for `optimize`.
        inputs: As for `optimize`.
        verify_at: As for `optimize`.

    Returns:
        What was found.

    Raises:
        VerifyError: The models differ.
    """
    options = Options(
        strategy=strategy,
        target=target,
        samples=samples,
        seed=seed,
        rtol=rtol,
        atol=atol,
        inputs=inputs,
        verify_at=verify_at,
    )
    return verify_with(model, masks, emitted, options)


@blaming_the_model
def verify_with(
    model: ModelSource, masks: MaskSource, emitted: ModelSource, options: Options
) -> Verification:
    """`verify`, with its options as one value."""
    loaded = load(model, masks, options.inputs, mapped=True)
    other = load(emitted, mapped=True).graph.model
    analysis, grown = grown_analysis(analyze_graph(loaded.graph), options.strategy)
    # Where the channels of an earlier result are is not known, but a wrong claim shows.
    prices = load_prices(options.target)
    claimed = plan(analysis, options.strategy, prices)
    bodies = plan_bodies(loaded.bodies, options.strategy, prices)
    found = prove(loaded, grown, other, claimed, bodies, options)
    if not found.ok and found.pieces:
        hint = "it may have been made with another strategy or target, or with `tune`"
        found = replace(found, failure=f"{found.failure}; or {hint}")
    raise_if_different(found, None)
    return found
