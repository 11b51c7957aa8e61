"""bench: compare models in onnxruntime, side by side.

Everything that reports a latency in this project measures it here: the command, `tune`, the demo
and the tables of the documentation.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx_upscale.arguments import several
from onnx_upscale.benchmark.measure import Seconds, Task, interleave, orders, shares
from onnx_upscale.benchmark.memory import peak_memory
from onnx_upscale.benchmark.operators import CATEGORIES, Operators, read_profile
from onnx_upscale.benchmark.providers import execution_providers
from onnx_upscale.benchmark.results import Comparison, Measured
from onnx_upscale.benchmark.statistics import (
    FEWEST,
    Estimate,
    disturbed,
    indistinct,
    latencies,
    paired_ratios,
)
from onnx_upscale.benchmark.subjects import Sizes, Subject, read_subjects
from onnx_upscale.errors import UsageError, VerifySetupError
from onnx_upscale.optimizer.load import ModelSource
from onnx_upscale.running import Draw, Session, on_first_draw

__all__ = [
    "CATEGORIES",
    "Comparison",
    "Estimate",
    "Measured",
    "Operators",
    "bench",
    "interleave",
]

_PROFILED_RUNS = 20
# With nine, one disturbed sitting on either side is outside the 95% interval of the median.
_SITTINGS = 9
# Where loading a model compiles it, which takes minutes, it is loaded once for all sittings.
_LOADED_ONCE = frozenset({"tensorrt"})


def bench(
    models: ModelSource | Sequence[ModelSource],
    *,
    provider: str = "cpu",
    batch: int | None = None,
    threads: int = 1,
    runs: int = 50,
    inputs: Sizes | None = None,
    profile: bool = False,
    memory: bool = True,
    names: Sequence[str] | None = None,
) -> Comparison:
    """Compares models in onnxruntime: latency, throughput, size, memory.

    All models are loaded, warmed up, and run in turn on the same random inputs, so that whatever
    disturbs the machine disturbs all of them; the ratio to the first is taken round by round. The
    runs are divided among nine sittings, each with the models loaded anew, because two loads of one
    model can differ by a percent for as long as they live.

    Args:
        models: Paths or models; the first is what the others are compared with.
        provider: `cpu`, `cuda` or `tensorrt`, as onnxruntime is configured by default. On a GPU the
            inputs and outputs stay there.
        batch: Size of the first axis of inputs where it is symbolic; None means 1.
        threads: Threads inside an operator, which never spin; 0 leaves their number to onnxruntime.
        runs: How many times to time each model.
        inputs: Shapes of inputs with symbolic dimensions, by name.
        profile: Find out what the operators take, in runs of their own.
        memory: Find out the peak memory of each model, in processes of their own.
        names: What to call the models; None means their file names.

    Returns:
        What was found.

    Raises:
        UpscaleError: One of its subclasses says what is wrong with models or options.
    """
    models = several(models)
    _check_options(models, batch, threads, runs)
    runtime = _Runtime(provider, execution_providers(provider), threads)

    def timed(draw: Draw) -> tuple[list[Subject], list[Seconds]]:
        subjects = read_subjects(models, names, inputs, batch, draw)
        return subjects, _timed(subjects, runtime, runs)

    subjects, sittings = on_first_draw(timed)
    operators: list[Operators] | list[None] = [None] * len(subjects)
    if profile:
        operators = _profiled(subjects, runtime, min(runs, _PROFILED_RUNS))
    peaks = [runtime.peak_memory(subject) if memory else None for subject in subjects]
    ratios = paired_ratios(sittings)
    size = _batch(subjects[0])
    return Comparison(
        provider=provider,
        batch=size,
        threads=threads,
        runs=runs,
        inputs={name: value.shape for name, value in subjects[0].inputs.items()},
        models=tuple(
            Measured(
                name=subject.name,
                path=subject.path,
                bytes=subject.bytes,
                latency=latency,
                ratio=ratio,
                throughput=size / latency.median,
                peak_memory=peak,
                operators=ops,
            )
            for subject, latency, ratio, peak, ops in zip(
                subjects, latencies(sittings), ratios, peaks, operators, strict=True
            )
        ),
        warnings=(
            *indistinct([subject.name for subject in subjects], ratios),
            *disturbed(ratios),
            *_doubts(provider, runs, profile),
        ),
    )


def _check_options(
    models: Sequence[ModelSource], batch: int | None, threads: int, runs: int
) -> None:
    if not models:
        raise UsageError("at least one model is needed")
    for option, value, least in (("runs", runs, 1), ("batch", batch, 1), ("threads", threads, 0)):
        if value is not None and value < least:
            raise UsageError(f"`{option}` {value}: must be at least {least}")


@dataclass(frozen=True)
class _Runtime:
    """How onnxruntime runs the models."""

    provider: str
    providers: tuple[str, ...]
    threads: int

    def load(self, subject: Subject, profile: str | None = None) -> tuple[Session, Task]:
        """A session, and one run of it on the subject's inputs."""
        try:
            session = Session(subject.source, self.threads, self.providers, profile, whole=True)
            return session, session.task(subject.inputs)
        except VerifySetupError as error:
            raise VerifySetupError(f"{subject.name}: {error}") from None

    def peak_memory(self, subject: Subject) -> int | None:
        return peak_memory(
            subject.source, subject.inputs, threads=self.threads, providers=self.providers
        )


def _timed(subjects: Sequence[Subject], runtime: _Runtime, runs: int) -> list[Seconds]:
    places = range(len(subjects))
    sittings: list[Seconds] = []
    tasks: dict[int, Task] = {}
    turns, done = itertools.cycle(orders(len(subjects))), 0
    for rounds, order in zip(shares(runs, _SITTINGS), turns, strict=False):
        if runtime.provider not in _LOADED_ONCE:
            tasks.clear()  # Before the next are loaded, so that none are in memory twice.
        if not tasks:
            # In changing order, as it decides where in memory the weights lie.
            tasks.update((place, runtime.load(subjects[place])[1]) for place in order)
        sittings.append(interleave([tasks[place] for place in places], rounds, done_before=done))
        done += rounds
    return sittings


def _profiled(subjects: Sequence[Subject], runtime: _Runtime, runs: int) -> list[Operators]:
    with tempfile.TemporaryDirectory(prefix="onnx-upscale-") as folder:
        loaded = [
            runtime.load(subject, str(Path(folder) / f"{number}"))
            for number, subject in enumerate(subjects)
        ]
        interleave([task for _, task in loaded], runs)
        return [read_profile(session.end_profile(), runs) for session, _ in loaded]


def _batch(subject: Subject) -> int:
    shapes = [value.shape for value in subject.inputs.values()]
    return next((shape[0] for shape in shapes if shape), 1)


def _doubts(provider: str, runs: int, profile: bool) -> list[str]:
    doubts = []
    if runs < FEWEST:
        doubts.append(
            f"{runs} runs are too few for a 95% interval: the whole range is given; "
            f"`runs` {FEWEST} or more gives one"
        )
    if profile and provider != "cpu":
        doubts.append(
            "onnxruntime's profile counts how long operators take to start on a GPU, not to run"
        )
    return doubts
