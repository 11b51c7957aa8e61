"""The first half of the main job: load, analyze, plan."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import onnx

from onnx_upscale.clock import Clock
from onnx_upscale.errors import UsageError, VerifySetupError
from onnx_upscale.idle import why_nothing_leaves
from onnx_upscale.mapped import Place
from onnx_upscale.optimizer.analyze import Analysis
from onnx_upscale.optimizer.analyze import analyze as analyze_graph
from onnx_upscale.optimizer.apply import masked_model
from onnx_upscale.optimizer.bodies import PlannedBody, grown_analysis, plan_bodies
from onnx_upscale.optimizer.load import Loaded, MaskSource, ModelSource, load
from onnx_upscale.optimizer.load.formats import format_warnings
from onnx_upscale.optimizer.load.masking import LayerMask
from onnx_upscale.optimizer.load.model import check_lasting, stored_or_path
from onnx_upscale.optimizer.plan import Plan, as_it_is, plan
from onnx_upscale.options import Options, Sizes
from onnx_upscale.prices import Prices, load_prices, target_warnings
from onnx_upscale.report import Size
from onnx_upscale.reporting import price_warnings, size_of
from onnx_upscale.running import input_sizes
from onnx_upscale.stats import measure

Progress = Callable[[str, int, int], None]
"""Called with what takes long, how much of it is done, and of how much."""

Digest = Callable[[], tuple[str, int]]
"""Gives the sha256 of a model, and the bytes of all its files."""


@dataclass(frozen=True)
class PlannedJob:
    """What is to be done.

    Attributes:
        model: The model as it was given.
        options: How to optimize.
        loaded: The model and its masks.
        sizes: Shapes of inputs at which work is counted.
        analysis: What is known about its channels.
        grown: The masks that the strategy added.
        prices: What work costs on the target.
        plan: What is to be done.
        bodies: The same in the bodies of If, Loop and Scan.
        digest: Gives the sha256 of the model as it was given, and the bytes of its files.
    """

    model: ModelSource
    options: Options
    loaded: Loaded
    sizes: Sizes
    analysis: Analysis
    grown: tuple[LayerMask, ...]
    prices: Prices
    plan: Plan
    bodies: tuple[PlannedBody, ...]
    digest: Digest

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to mind."""
        return (
            *format_warnings(self.loaded.graph.model.graph.node),
            *target_warnings(self.options.target),
            *price_warnings(self.plan),
            *why_nothing_leaves(self.loaded, self.plan, self.bodies),
        )

    @property
    def unchanged(self) -> Plan:
        """What stands for the model as it was given, only to predict what it takes."""
        return as_it_is(self.analysis, self.prices)

    @property
    def input(self) -> Size:
        """What the model weighs."""

        def masked() -> onnx.ModelProto:
            seen = [(each.body, each.plan.analysis.graph) for each in self.bodies]
            return masked_model(self.plan.analysis.graph, seen)

        runs = self.options.verify
        return weight_of(self.model, self.loaded, self.sizes, runs, masked, self.digest)


def planned_job(
    model: ModelSource,
    masks: MaskSource,
    options: Options,
    clock: Clock,
    progress: Progress | None = None,
) -> PlannedJob:
    """Loads, analyzes and plans.

    Args:
        model: As for `optimize`.
        masks: As for `optimize`.
        options: What `optimize` takes besides.
        clock: Told how long each takes.
        progress: Called with what takes long, how much of it is done, and of how much.

    Returns:
        What is to be done.
    """
    if options.tune and options.strategy != "auto":
        raise UsageError("`tune`: is for strategy auto, as no other has choices to measure")
    with clock.stage("load"):
        loaded = load(model, masks, options.inputs, runs=options.verify, mapped=True)
    digest = begin_digest(model, loaded)
    sizes = sizes_of(loaded, options.inputs, strict=options.verify or options.tune)
    with clock.stage("analyze"):
        analysis, grown = grown_analysis(analyze_graph(loaded.graph), options.strategy)
    with clock.stage("plan"):
        prices = load_prices(options.target)
        if options.tune:
            from onnx_upscale.tuning import tuned_plan

            told = progress and partial(progress, "Tuning")
            planned = tuned_plan(analysis, prices, sizes, options.tune_seconds, told)
        else:
            planned = plan(analysis, options.strategy, prices)
        bodies = plan_bodies(loaded.bodies, options.strategy, prices)
    return PlannedJob(
        model, options, loaded, sizes, analysis, grown, prices, planned, bodies, digest
    )


def sizes_of(loaded: Loaded, inputs: Sizes | None, strict: bool) -> Sizes:
    """Shapes at which work is counted; they matter less than the work itself if nothing runs."""
    try:
        return input_sizes(loaded.graph.model, inputs)
    except VerifySetupError:
        if strict:
            raise
        return {}


def begin_digest(model: ModelSource, loaded: Loaded) -> Digest:
    """Begins to read the file of a model once more, beside whatever else is done.

    Args:
        model: The model as it was given.
        loaded: The same when it is loaded.

    Returns:
        Waits for the end.
    """
    held = stored_or_path(model)
    if not isinstance(held, str):
        return lambda: held.size("model.onnx")
    check_lasting(held)

    def read() -> tuple[str, int]:
        sha256, length = hashlib.sha256(), os.path.getsize(held)
        for block in Place(held, 0, length).blocks():
            sha256.update(block)
        return sha256.hexdigest(), length + sum(map(os.path.getsize, loaded.files))

    reading = ThreadPoolExecutor(max_workers=1)
    future = reading.submit(read)
    reading.shutdown(wait=False)
    return future.result


def weight_of(
    model: ModelSource,
    loaded: Loaded,
    sizes: Sizes,
    runs: bool,
    shown_by: Callable[[], onnx.ModelProto],
    digest: Digest,
) -> Size:
    """What a model weighs as it was given.

    Args:
        model: The model as it was given.
        loaded: The same when it is loaded.
        sizes: Shapes of its inputs.
        runs: Whether it may run where nothing else shows how large tensors are.
        shown_by: Gives the model that computes as the result does, which then runs: a detector that
            finds something else computes on another number of things.
        digest: Gives the hash and the bytes of its file.
    """
    held = stored_or_path(model)
    graph = loaded.graph
    stats = measure(graph.model, sizes, runs=runs, shown_by=shown_by, known=graph.tensors)
    return size_of(stats, held if isinstance(held, str) else None, *digest())
