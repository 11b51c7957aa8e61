"""The main job: a model and masks in, an equal and faster model and a report out."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from onnx_upscale.blame import blaming_the_model
from onnx_upscale.errors import VerifyError, VerifySetupError
from onnx_upscale.idle import why_nothing_leaves
from onnx_upscale.log import log_details
from onnx_upscale.optimizer.analyze import analyze as analyze_graph
from onnx_upscale.optimizer.apply import apply
from onnx_upscale.optimizer.bodies import grown_analysis, plan_bodies
from onnx_upscale.optimizer.load import Loaded, MaskSource, ModelSource, load
from onnx_upscale.optimizer.load.formats import format_warnings
from onnx_upscale.optimizer.load.keys import united
from onnx_upscale.optimizer.load.model import stored_or_path
from onnx_upscale.optimizer.plan import plan
from onnx_upscale.optimizer.verify import Verification
from onnx_upscale.options import Options, Sizes
from onnx_upscale.prices import load_prices, target_warnings
from onnx_upscale.proof import prove
from onnx_upscale.recovery import recover as recover_model
from onnx_upscale.recovery.recover import Progress
from onnx_upscale.recovery.weights import check_masks
from onnx_upscale.report import VERSION, Copies, Report
from onnx_upscale.reporting import (
    layer_reports,
    mask_counts,
    price_warnings,
    segment_reports,
    size_of,
    verify_report,
)
from onnx_upscale.result import Result
from onnx_upscale.running import input_sizes
from onnx_upscale.samples import SampleSource
from onnx_upscale.stats import measure
from onnx_upscale.storage import Stored
from onnx_upscale.tune import tuned_plan


@blaming_the_model
def optimize_with(
    model: ModelSource, masks: MaskSource, options: Options, progress: Progress | None = None
) -> Result:
    """Does the main job: the five verbs in a row.

    Args:
        model: As for `optimize`.
        masks: As for `optimize`.
        options: What `optimize` takes besides.
        progress: Called with how much of `recover` is done.

    Returns:
        The model and the report.
    """
    if options.recover is not None:
        return _recovered(model, masks, options, options.recover, progress)
    clock = _Clock()
    with clock.stage("load"):
        loaded = load(model, masks, options.inputs, runs=options.verify, mapped=True)
    sizes = _sizes(loaded, options.inputs, strict=options.verify or options.tune)
    with clock.stage("analyze"):
        analysis, grown = grown_analysis(analyze_graph(loaded.graph), options.strategy)
    with clock.stage("plan"):
        prices = load_prices(options.target)
        if options.tune and options.strategy == "auto":
            planned = tuned_plan(analysis, prices, sizes)
        else:
            planned = plan(analysis, options.strategy, prices)
        bodies = plan_bodies(loaded.bodies, options.strategy, prices)
    with clock.stage("apply"):
        emitted = apply(planned, bodies)
    verification = None
    if options.verify:
        with clock.stage("verify"):
            try:
                verification = prove(loaded, grown, emitted.model, planned, bodies, options)
            except VerifySetupError as error:
                raise VerifySetupError(f"{error}; `verify=False` does without") from None
    before = measure(loaded.graph.model, sizes, runs=options.verify)
    after = measure(emitted.model, sizes, emitted.added, options.verify)
    stored = Stored(emitted.model, loaded.files)
    report = Report(
        version=VERSION,
        input=size_of(before, *_weight_of(model, loaded)),
        output=size_of(after, None, *stored.size("model.onnx")),
        masks=mask_counts(loaded),
        strategy=options.strategy,
        target=str(options.target),
        profile=prices.name,
        predicted_seconds=planned.seconds,
        warnings=(
            *format_warnings(loaded.graph.model.graph.node),
            *target_warnings(options.target),
            *price_warnings(planned),
            *why_nothing_leaves(loaded, planned, bodies),
        ),
        segments=segment_reports(planned, bodies),
        layers=layer_reports(planned, bodies),
        copies=Copies(after.copies, after.copied_bytes),
        verify=verify_report(verification),
        seconds=clock.rounded(),
    )
    raise_if_different(verification, report)
    log_details(report)
    return Result(emitted.model, report, sources=loaded.files, plan=planned)


def _recovered(
    model: ModelSource,
    masks: MaskSource,
    options: Options,
    samples: SampleSource,
    progress: Progress | None,
) -> Result:
    """Repairs the masked model, and optimizes that."""
    clock = _Clock()
    with clock.stage("recover"):
        loaded = load(model, masks, options.inputs, mapped=True)
        check_masks(loaded)
        analysis, grown = grown_analysis(analyze_graph(loaded.graph), options.strategy)
        planned = plan(analysis, options.strategy, load_prices(options.target))
        wanted = united(loaded.graph, (*loaded.masks, *grown))
        repaired = recover_model(model, wanted, samples, seed=options.seed, progress=progress)
    sizes = _sizes(loaded, options.inputs, strict=False)

    def told(report: Report) -> Report:
        return replace(
            report,
            input=size_of(measure(loaded.graph.model, sizes), *_weight_of(model, loaded)),
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
        result = optimize_with(repaired.stored, None, replace(options, recover=None))
    except VerifyError as error:
        raise VerifyError(str(error), error.report and told(error.report)) from None
    return replace(result, report=told(result.report))


def raise_if_different(verification: Verification | None, report: Report | None) -> None:
    """Raises VerifyError, with the report, for models that differ."""
    if verification is not None and not verification.ok:
        raise VerifyError(f"verification failed: {verification.failure}", report)


def _sizes(loaded: Loaded, inputs: Sizes | None, strict: bool) -> Sizes:
    """Shapes at which work is counted; they matter less than the work itself if nothing runs."""
    try:
        return input_sizes(loaded.graph.model, inputs)
    except VerifySetupError:
        if strict:
            raise
        return {}


def _weight_of(model: ModelSource, loaded: Loaded) -> tuple[str | None, str, int]:
    """The path of a model, the sha256 of its file, and the bytes of all its files."""
    held = stored_or_path(model)
    if not isinstance(held, str):
        return None, *held.size("model.onnx")
    with open(held, "rb") as file:
        sha256 = hashlib.sha256(file.read()).hexdigest()
    beside = sum(map(os.path.getsize, loaded.files))
    return held, sha256, os.path.getsize(held) + beside


class _Clock:
    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._seconds[name] = time.perf_counter() - start

    def rounded(self) -> dict[str, float]:
        """Seconds by stage, to the millisecond."""
        return {name: round(seconds, 3) for name, seconds in self._seconds.items()}
