"""What the main job would do, from its plan alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx_upscale.blame import blaming_the_model
from onnx_upscale.clock import Clock
from onnx_upscale.optimizer.load import MaskSource, ModelSource
from onnx_upscale.options import Options
from onnx_upscale.planning import Progress, planned_job
from onnx_upscale.report import (
    VERSION,
    Copies,
    Document,
    LayerReport,
    MaskCounts,
    Section,
    SegmentReport,
    Size,
)
from onnx_upscale.reporting import layer_reports, mask_counts, segment_reports


@dataclass(frozen=True)
class Seconds(Section):
    """Predicted latencies.

    Attributes:
        before: Of the model as it is.
        after: Of the model that would be emitted.
    """

    before: float
    after: float


@dataclass(frozen=True, eq=False)
class Foreseen(Document):
    """What would be done.

    Attributes:
        input: The model.
        masks: How much the masks prune.
        strategy: The strategy.
        target: The target as given.
        profile: The prices that were used.
        predicted_seconds: Latency by these prices.
        warnings: What to mind.
        segments: Every segment and how its nodes would get along.
        layers: Every layer and how wide it would be.
        copies: How many nodes would read copies, and what these would write per inference.
        seconds: By stage.
    """

    input: Size
    masks: MaskCounts
    strategy: str
    target: str
    profile: str
    predicted_seconds: Seconds
    warnings: tuple[str, ...]
    segments: tuple[SegmentReport, ...]
    layers: tuple[LayerReport, ...]
    copies: Copies
    seconds: Mapping[str, float]


@blaming_the_model
def foresee(
    model: ModelSource, masks: MaskSource, options: Options, progress: Progress | None = None
) -> Foreseen:
    """Does the main job up to its plan.

    With `recover` it is the plan for the masked model: the repaired one has the same zeros.

    Args:
        model: As for `optimize`.
        masks: As for `optimize`.
        options: What `optimize` takes besides.
        progress: As for `optimize_with`.

    Returns:
        What would be done.
    """
    clock = Clock()
    job = planned_job(model, masks, options, clock, progress)
    segments = segment_reports(job.plan, job.bodies)
    copied = [reader.bytes_copied for each in segments for reader in each.readers]
    padding = [w for each in segments for w in each.writers if w.realization == "pad"]
    return Foreseen(
        version=VERSION,
        input=job.input,
        masks=mask_counts(job.loaded),
        strategy=options.strategy,
        target=str(options.target),
        profile=job.prices.name,
        predicted_seconds=Seconds(job.unchanged.seconds, job.plan.seconds),
        warnings=job.warnings,
        segments=segments,
        layers=layer_reports(job.plan, job.bodies),
        copies=Copies(sum(map(bool, copied)) + len(padding), sum(copied)),
        seconds=clock.rounded(),
    )
