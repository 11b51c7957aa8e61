"""What a comparison found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnx_upscale.benchmark.operators import Operators
from onnx_upscale.benchmark.statistics import Estimate
from onnx_upscale.report import Section

VERSION = 1


@dataclass(frozen=True)
class Measured(Section):
    """What was found about one model.

    Attributes:
        name: What reports call it.
        path: Its file, or None for a model in memory.
        bytes: Size of its file, external weights included.
        latency: Seconds per inference.
        ratio: Latency as a share of the first model's, paired by rounds.
        throughput: Inputs per second: the batch, per median latency.
        peak_memory: Bytes that loading and running it take, or None where that was not measured.
        operators: Seconds by operator type, if it was profiled.
    """

    name: str
    path: str | None
    bytes: int
    latency: Estimate
    ratio: Estimate
    throughput: float
    peak_memory: int | None = None
    operators: Operators | None = None

    def to_json(self) -> dict[str, Any]:
        """As it is written to a file."""
        return {
            "name": self.name,
            "path": self.path,
            "bytes": self.bytes,
            "latency_ms": _estimate(self.latency, 1e3),
            "ratio": _estimate(self.ratio),
            "throughput_per_s": self.throughput,
            "peak_memory_bytes": self.peak_memory,
            "profile_ms": None if self.operators is None else _profile(self.operators),
        }


@dataclass(frozen=True)
class Comparison:
    """What was found about all models.

    Attributes:
        provider: `cpu`, `cuda` or `tensorrt`.
        batch: How many inputs an inference takes: the first axis of the first input.
        threads: Threads inside an operator; 0 means that onnxruntime chose.
        runs: How many times each model was timed.
        inputs: Shapes by the input names of the first model.
        models: What was found, in the order given; the first is what others are compared with.
        warnings: What to keep in mind, one line each.
    """

    provider: str
    batch: int
    threads: int
    runs: int
    inputs: Mapping[str, tuple[int, ...]]
    models: tuple[Measured, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As it is written to a file."""
        return {
            "version": VERSION,
            "provider": self.provider,
            "batch": self.batch,
            "threads": self.threads,
            "runs": self.runs,
            "inputs": {name: list(shape) for name, shape in self.inputs.items()},
            "models": [model.to_json() for model in self.models],
            "warnings": list(self.warnings),
        }


def _estimate(estimate: Estimate, unit: float = 1.0) -> dict[str, float]:
    return {
        "median": estimate.median * unit,
        "low": estimate.low * unit,
        "high": estimate.high * unit,
    }


def _profile(operators: Operators) -> dict[str, Any]:
    return {
        **{name: seconds * 1e3 for name, seconds in operators.categories.items()},
        "over_bound": operators.over_bound,
        "operators": {op: seconds * 1e3 for op, seconds in operators.seconds.items()},
    }
