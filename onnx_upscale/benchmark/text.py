"""A comparison as text for people."""

from __future__ import annotations

from onnx_upscale.benchmark.operators import CATEGORIES, Operators
from onnx_upscale.benchmark.results import Comparison, Measured
from onnx_upscale.benchmark.statistics import Estimate


def comparison_rows(comparison: Comparison) -> list[list[str]]:
    """One row per model under a head, as cells of a table."""
    memory = any(model.peak_memory is not None for model in comparison.models)
    head = ["model", "latency ms", "95%", "ratio", "95%", "inputs/s", "size MB"]
    return [
        [*head, *["memory MB"] * memory],
        *(
            [*_cells(model), *[_megabytes(model.peak_memory)] * memory]
            for model in comparison.models
        ),
    ]


def profile_rows(comparison: Comparison) -> list[list[str]]:
    """Milliseconds per operator type under a head, a column per model, and their sums."""
    profiles = [model.operators or Operators({}) for model in comparison.models]
    longest: dict[str, float] = {}
    for profile in profiles:
        for op, seconds in profile.seconds.items():
            longest[op] = max(seconds, longest.get(op, 0.0))
    rows = [["operator ms", *(model.name for model in comparison.models)]]
    for op in sorted(longest, key=lambda op: (-longest[op], op)):
        times = (profile.seconds.get(op) for profile in profiles)
        rows.append([op, *("-" if time is None else _milliseconds(time) for time in times)])
    for name in CATEGORIES:
        sums = (profile.categories[name] for profile in profiles)
        rows.append([f"= {name}", *(_milliseconds(time) for time in sums)])
    rows.append(["all by compute", *(f"{profile.over_bound:.3f}" for profile in profiles)])
    return rows


def headline(comparison: Comparison) -> str:
    """What was run, how often, and how."""
    shapes = ", ".join(
        f"{name} {'x'.join(map(str, shape)) or 'scalar'}"
        for name, shape in comparison.inputs.items()
    )
    threads = f"{comparison.threads} thread(s)" if comparison.threads else "threads as by default"
    return (
        f"onnxruntime, provider {comparison.provider}, {threads}, {comparison.runs} runs in turn, "
        f"inputs: {shapes or 'none'}"
    )


def _cells(model: Measured) -> list[str]:
    latency, ratio = model.latency, model.ratio
    return [
        model.name,
        _milliseconds(latency.median),
        f"{_milliseconds(latency.low)} to {_milliseconds(latency.high)}",
        f"{ratio.median:.3f}",
        _interval(ratio),
        f"{model.throughput:.4g}",
        _megabytes(model.bytes),
    ]


def _interval(ratio: Estimate) -> str:
    return f"{ratio.low:.3f} to {ratio.high:.3f}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3f}"


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.2f}"
