"""The Python interface: the five verbs in a row."""

from __future__ import annotations

import functools
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import onnx

from onnx_upscale.atomic import Content, PathLike
from onnx_upscale.errors import (
    ModelError,
    UpscaleError,
    VerifyError,
    VerifySetupError,
)
from onnx_upscale.files import Saved, check_writable, write_files
from onnx_upscale.idle import why_nothing_leaves
from onnx_upscale.log import log_details
from onnx_upscale.mapped import embedded
from onnx_upscale.optimizer.analyze import Analysis
from onnx_upscale.optimizer.analyze import analyze as analyze_graph
from onnx_upscale.optimizer.apply import apply
from onnx_upscale.optimizer.load import Loaded, MaskSource, ModelSource, load
from onnx_upscale.optimizer.load.formats import format_warnings
from onnx_upscale.optimizer.load.keys import united
from onnx_upscale.optimizer.load.masking import LayerMask, mask_graph
from onnx_upscale.optimizer.load.model import why_invalid
from onnx_upscale.optimizer.plan import Plan, grow_masks, plan
from onnx_upscale.optimizer.verify import Tolerance, Verification
from onnx_upscale.options import Options, Sizes
from onnx_upscale.prices import load_prices, target_warnings
from onnx_upscale.proof import prove
from onnx_upscale.recovery import recover as recover_model
from onnx_upscale.recovery.recover import Progress
from onnx_upscale.report import VERSION, Copies, Report
from onnx_upscale.reporting import (
    mask_counts,
    price_warnings,
    segment_reports,
    size_of,
    verify_report,
)
from onnx_upscale.running import input_sizes
from onnx_upscale.samples import SampleSource
from onnx_upscale.stats import measure
from onnx_upscale.storage import Stored
from onnx_upscale.tune import tuned_plan

__all__ = ["Analyzed", "Result", "analyze", "optimize", "optimize_with", "verify", "verify_with"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _blaming_the_model(job: Callable[_P, _R]) -> Callable[_P, _R]:
    """What fails on a model (the first argument) that is not valid ONNX is that model's error."""

    @functools.wraps(job)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return job(*args, **kwargs)
        except (UpscaleError, MemoryError):
            raise
        except Exception as error:
            model: Any = args[0] if args else kwargs["model"]
            undecodable = isinstance(error, UnicodeDecodeError)  # Names can be any bytes to others.
            reason = str(error) if undecodable else why_invalid(model)
            if reason is None:
                raise
            where = "the model" if isinstance(model, onnx.ModelProto) else str(model)
            raise ModelError(f"{where}: is not valid ONNX: {reason}") from error

    return run


@dataclass(frozen=True)
class Result(Saved):
    """An optimized model.

    Attributes:
        emitted: The emitted model; what is large in it may still be in the files that were read.
        report: What was done; it also reads like the dictionary of the report file.
        sources: The external files in which weights of the model that was read lie; if there are
            any, those of the result go to a file of their own unless somebody says otherwise.
    """

    emitted: onnx.ModelProto = field(repr=False)
    report: Report = field(repr=False)
    sources: frozenset[Path] = frozenset()

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The emitted model; above 2 GB, weights that nothing changed stay where they were read."""
        return self.emitted if self._stored.is_large else embedded(self.emitted)

    @cached_property
    def content(self) -> bytes:
        """The model as the content of one file; the same model gives the same bytes."""
        content: bytes = self.model.SerializeToString(deterministic=True)
        return content

    @cached_property
    def _stored(self) -> Stored:
        return Stored(self.emitted, self.sources)

    def save(self, path: PathLike, *, external_data: str = "auto") -> None:
        """Writes it, in full or not at all.

        Args:
            path: Where to.
            external_data: `always`: weights go to a file beside it. `never`: everything is in one
                file. `auto`: as the model that was read, and beside it where one file is too small.

        Raises:
            OutputError: It cannot be written.
        """
        check_writable(path)
        write_files(self._stored.files(path, external_data), keep=self.sources)

    def written_to(
        self, path: str, external_data: str = "auto"
    ) -> tuple[dict[PathLike, Content], Report]:
        """What `save` would write, and the report of that.

        Args:
            path: As for `save`.
            external_data: As for `save`.

        Returns:
            Contents by path, and the report.

        Raises:
            OutputError: It does not fit into one file.
        """
        sha256, size = self._stored.size(path, external_data)
        files = self._stored.files(path, external_data)
        return files, self.report.written_to(path, sha256, size)


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
        analysis, _ = _grown(self.analysis, strategy)
        return plan(analysis, strategy, load_prices(target))


def optimize(
    model: ModelSource,
    masks: MaskSource = None,
    *,
    strategy: str = "auto",
    target: str | os.PathLike[str] = "cpu",
    tune: bool = False,
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
        tune: Let `auto` measure its candidates on this machine.
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


@_blaming_the_model
def optimize_with(
    model: ModelSource, masks: MaskSource, options: Options, progress: Progress | None = None
) -> Result:
    """`optimize`, with its options as one value, and called with how much of `recover` is done."""
    if options.recover is not None:
        return _recovered(model, masks, options, options.recover, progress)
    clock = _Clock()
    with clock.stage("load"):
        loaded = load(model, masks, options.inputs, runs=options.verify, mapped=True)
    sizes = _sizes(loaded, options.inputs, strict=options.verify or options.tune)
    with clock.stage("analyze"):
        analysis, grown = _grown(analyze_graph(loaded.graph), options.strategy)
    with clock.stage("plan"):
        prices = load_prices(options.target)
        if options.tune and options.strategy == "auto":
            planned = tuned_plan(analysis, prices, sizes)
        else:
            planned = plan(analysis, options.strategy, prices)
    with clock.stage("apply"):
        emitted = apply(planned)
    verification = None
    if options.verify:
        with clock.stage("verify"):
            try:
                verification = prove(loaded, grown, emitted.model, planned, options)
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
            *why_nothing_leaves(loaded, planned),
        ),
        segments=segment_reports(planned),
        copies=Copies(after.copies, after.copied_bytes),
        verify=verify_report(verification),
        seconds=clock.rounded(),
    )
    _raise_if_different(verification, report)
    log_details(report)
    return Result(emitted.model, report, loaded.files)


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
        loaded = load(model, masks, options.inputs)
        analysis, grown = _grown(analyze_graph(loaded.graph), options.strategy)
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
        result = optimize_with(repaired.model, None, replace(options, recover=None))
    except VerifyError as error:
        raise VerifyError(str(error), error.report and told(error.report)) from None
    return replace(result, report=told(result.report), sources=loaded.files)


@_blaming_the_model
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


@_blaming_the_model
def verify_with(
    model: ModelSource, masks: MaskSource, emitted: ModelSource, options: Options
) -> Verification:
    """`verify`, with its options as one value."""
    loaded = load(model, masks, options.inputs, mapped=True)
    other = load(emitted, mapped=True).graph.model
    analysis, grown = _grown(analyze_graph(loaded.graph), options.strategy)
    # Where the channels of an earlier result are is not known, but a wrong claim shows.
    claimed = plan(analysis, options.strategy, load_prices(options.target))
    found = prove(loaded, grown, other, claimed, options)
    if not found.ok and found.pieces:
        hint = "it may have been made with another strategy or target, or with `tune`"
        found = replace(found, failure=f"{found.failure}; or {hint}")
    _raise_if_different(found, None)
    return found


def _raise_if_different(verification: Verification | None, report: Report | None) -> None:
    if verification is not None and not verification.ok:
        raise VerifyError(f"verification failed: {verification.failure}", report)


def _grown(analysis: Analysis, strategy: str) -> tuple[Analysis, tuple[LayerMask, ...]]:
    """What a strategy must equal: the analysis under its masks, and those that it adds."""
    if strategy != "constrained":
        return analysis, ()
    grown = grow_masks(analysis)
    return analyze_graph(mask_graph(analysis.graph, grown), analysis.structure), grown


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
    if isinstance(model, onnx.ModelProto):
        return None, *Stored(model).size("model.onnx")
    with open(model, "rb") as file:
        sha256 = hashlib.sha256(file.read()).hexdigest()
    return str(model), sha256, sum(map(os.path.getsize, (model, *loaded.files)))


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
