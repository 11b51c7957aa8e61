"""The main job: a model and masks in, an equal and faster model and a report out."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from onnx_upscale.blame import blaming_the_model
from onnx_upscale.clock import Clock
from onnx_upscale.copies import COPIES
from onnx_upscale.errors import VerifyError, VerifySetupError
from onnx_upscale.idle import why_nothing_leaves
from onnx_upscale.log import log_details
from onnx_upscale.optimizer.analyze import analyze as analyze_graph
from onnx_upscale.optimizer.apply import apply
from onnx_upscale.optimizer.bodies import grown_analysis
from onnx_upscale.optimizer.load import MaskSource, ModelSource, load
from onnx_upscale.optimizer.load.keys import united
from onnx_upscale.optimizer.plan import plan
from onnx_upscale.optimizer.verify import Verification
from onnx_upscale.options import Options
from onnx_upscale.planning import Progress, begin_digest, planned_job, sizes_of, weight_of
from onnx_upscale.prices import load_prices
from onnx_upscale.proof import prove
from onnx_upscale.report import VERSION, Copies, Report, Times
from onnx_upscale.reporting import (
    layer_reports,
    mask_counts,
    segment_reports,
    size_of,
    verified,
    verify_report,
)
from onnx_upscale.result import Result
from onnx_upscale.stats import measure

if TYPE_CHECKING:
    from onnx_upscale.samples import SampleSource


@blaming_the_model
def optimize_with(
    model: ModelSource, masks: MaskSource, options: Options, progress: Progress | None = None
) -> Result:
    """Does the main job: the five verbs in a row.

    Args:
        model: As for `optimize`.
        masks: As for `optimize`.
        options: What `optimize` takes besides.
        progress: Called with what takes long, how much of it is done, and of how much.

    Returns:
        The model and the report.
    """
    if options.recover is not None:
        return _recovered(model, masks, options, options.recover, progress)
    clock = Clock()
    job = planned_job(model, masks, options, clock, progress)
    with clock.stage("apply"):
        emitted = apply(job.plan, job.bodies)
    verification = None
    if options.verify:
        with clock.stage("verify"):
            try:
                verification = prove(
                    job.loaded, job.grown, emitted.model, job.plan, job.bodies, options
                )
            except VerifySetupError as error:
                raise VerifySetupError(f"{error}; `verify=False` does without") from None
    after = measure(emitted.model, job.sizes, emitted.added, options.verify)
    replaced = sum(op in COPIES for op in emitted.gone)
    report = Report(
        version=VERSION,
        input=job.input,
        output=size_of(after, None, "", 0),  # These two tell of the model when it is written.
        masks=mask_counts(job.loaded),
        strategy=options.strategy,
        target=str(options.target),
        profile=job.prices.name,
        predicted_seconds=job.plan.seconds,
        predicted=Times(job.unchanged.seconds_by_kind, job.plan.seconds_by_kind),
        warnings=job.warnings,
        segments=segment_reports(job.plan, job.bodies),
        layers=layer_reports(job.plan, job.bodies),
        copies=Copies(after.copies, after.copied_bytes, replaced),
        verify=verify_report(verification),
        seconds=clock.rounded(),
    )
    result = Result(emitted.model, report, sources=job.loaded.files, plan=job.plan)
    if verification is not None and not verification.ok:
        raise_if_different(verification, result.report)
    log_details(report)
    return result


def _recovered(
    model: ModelSource,
    masks: MaskSource,
    options: Options,
    samples: SampleSource,
    progress: Progress | None,
) -> Result:
    """Repairs the masked model, and optimizes that."""
    from onnx_upscale.recovery import recover as recover_model
    from onnx_upscale.recovery.weights import check_masks

    clock = Clock()
    with clock.stage("recover"):
        loaded = load(model, masks, options.inputs, mapped=True)
        check_masks(loaded)
        analysis, grown = grown_analysis(analyze_graph(loaded.graph), options.strategy)
        planned = plan(analysis, options.strategy, load_prices(options.target))
        wanted = united(loaded.graph, (*loaded.masks, *grown))
        repaired = recover_model(
            model,
            wanted,
            samples,
            seed=options.seed,
            progress=progress and partial(progress, "Recovering"),
        )
    sizes = sizes_of(loaded, options.inputs, strict=False)

    def told(report: Report) -> Report:
        digest = begin_digest(model, loaded)
        return replace(
            report,
            input=weight_of(model, loaded, sizes, True, lambda: repaired.stored.model, digest),
            masks=mask_counts(loaded),
            warnings=(
                *repaired.warnings,
                *report.warnings,
                *why_nothing_leaves(loaded, planned),
            ),
            seconds={**clock.rounded(), **report.seconds},
            recovered=repaired.report,
        )

    try:
        result = optimize_with(repaired.stored, None, replace(options, recover=None), progress)
    except VerifyError as error:
        raise VerifyError(str(error), error.report and told(error.report)) from None
    return replace(result, done=told(result.done))


def raise_if_different(verification: Verification | None, report: Report | None) -> None:
    """Raises VerifyError, with the report, for models that differ."""
    if verification is not None and not verification.ok:
        told = verified(verification) if report is None else None
        raise VerifyError(f"verification failed: {verification.failure}", report, told)
