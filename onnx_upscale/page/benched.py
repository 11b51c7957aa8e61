"""The page of bench: latencies side by side, and where the time goes."""

from __future__ import annotations

from collections.abc import Iterator

from onnx_upscale.benchmark.operators import Operators
from onnx_upscale.benchmark.results import Comparison, Measured
from onnx_upscale.benchmark.text import headline
from onnx_upscale.figures import in_bytes, in_milliseconds
from onnx_upscale.page.charts import where_time_goes, whiskers
from onnx_upscale.page.parts import NOTHING, Card, Cards, Cell, Column, Page, Part, Table
from onnx_upscale.page.planned import changed, remarks, share


def benched_page(comparison: Comparison) -> Page:
    """What a comparison found.

    Args:
        comparison: The comparison; where there are two models, the first is the one before.
    """
    models = comparison.models
    return Page(
        kind="bench",
        title=" and ".join((", ".join(m.name for m in models[:-1]), models[-1].name))
        if models[1:]
        else models[0].name,
        lines=(headline(comparison),),
        parts=(
            Cards(cards=tuple(_cards(*models))) if len(models) == 2 else None,
            latencies(models),
            _times(models),
            _table(models),
            _operators(models),
            remarks(comparison.warnings),
        ),
    )


def interval(model: Measured) -> str:
    """A latency with its interval."""
    latency = model.latency
    low, high = (in_milliseconds(end).removesuffix(" ms") for end in (latency.low, latency.high))
    return f"{in_milliseconds(latency.median)} ({low} to {high})"


def latencies(models: tuple[Measured, ...]) -> Part:
    """Latencies with their intervals."""
    return whiskers(
        "Latency",
        ((m.name, interval(m), m.latency.median, m.latency.low, m.latency.high) for m in models),
        "Medians with their 95% intervals, measured in turn.",
    )


def latency_card(before: Measured, after: Measured) -> Card:
    """Two latencies, and the interval of their ratio, which is paired by rounds."""
    ratio = after.ratio
    return Card(
        "latency",
        in_milliseconds(after.latency.median),
        f"from {in_milliseconds(before.latency.median)}",
        f"{ratio.median - 1:+.1%}",
        share(ratio.median, 1),
        f"ratio {ratio.median:.3f}, 95% interval {ratio.low:.3f} to {ratio.high:.3f}",
    )


def _cards(before: Measured, after: Measured) -> Iterator[Card]:
    yield latency_card(before, after)
    yield changed("size", in_bytes, before.bytes, after.bytes)
    if before.peak_memory is not None and after.peak_memory is not None:
        yield changed("peak memory", in_bytes, before.peak_memory, after.peak_memory)


def _times(models: tuple[Measured, ...]) -> Part | None:
    """Where the time goes, where that was profiled."""
    profiled = [(model.name, model.operators) for model in models if model.operators is not None]
    if not profiled:
        return None
    return where_time_goes(
        [(name, operators.categories) for name, operators in profiled],
        "By onnxruntime's own profile, in runs of their own, which are slower than those above.",
    )


def _operators(models: tuple[Measured, ...]) -> Part | None:
    profiles = [model.operators for model in models if model.operators is not None]
    types = dict.fromkeys(op for profile in profiles for op in profile.seconds)
    if not types:
        return None
    longest = max(max(profile.seconds.values(), default=0.0) for profile in profiles)
    return Table(
        title="Operators",
        note="Milliseconds per inference.",
        columns=(Column("operator"), *(Column(model.name, True) for model in models)),
        rows=tuple(
            (Cell(op), *(_time(model.operators, op, longest) for model in models))
            for op in sorted(types, key=lambda op: -max(p.seconds.get(op, 0.0) for p in profiles))
        ),
    )


def _time(operators: Operators | None, op: str, longest: float) -> Cell:
    seconds = None if operators is None else operators.seconds.get(op)
    if seconds is None:
        return NOTHING
    return Cell(f"{seconds * 1e3:.3f}", seconds, share(seconds, longest))


def _table(models: tuple[Measured, ...]) -> Part:
    memory = any(model.peak_memory is not None for model in models)
    heads = ("latency ms", "ratio", "95% of the ratio", "inputs/s", "size", *["memory"] * memory)
    return Table(
        title="Models",
        note="Ratios are to the first model, paired by rounds.",
        columns=(Column("model"), *(Column(head, True) for head in heads)),
        rows=tuple(
            (
                Cell(names=(model.name,)),
                Cell(f"{model.latency.median * 1e3:.3f}", model.latency.median),
                Cell(f"{model.ratio.median:.3f}", model.ratio.median),
                Cell(f"{model.ratio.low:.3f} to {model.ratio.high:.3f}", model.ratio.low),
                Cell(f"{model.throughput:,.4g}", model.throughput),
                Cell(in_bytes(model.bytes), model.bytes),
                *([_memory(model.peak_memory)] * memory),
            )
            for model in models
        ),
    )


def _memory(size: int | None) -> Cell:
    return NOTHING if size is None else Cell(in_bytes(size), size)
