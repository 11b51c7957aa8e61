"""Pages to test: of real results, of results with strange names, and of large ones."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import onnx_upscale
from benchmarks import small
from build import Net
from onnx_upscale import Report, page
from onnx_upscale.benchmark import Comparison
from onnx_upscale.benchmark.statistics import Estimate
from onnx_upscale.pruning.report import Asked
from onnx_upscale.pruning.results import Pruned
from onnx_upscale.report import LayerReport

MODELS = Path(__file__).parents[2] / "models"
HOSTILE = (
    "<script>window.hit = 1</script>",
    '"><img src=x onerror="window.hit = 1">',
    "'--></style></svg></title><svg onload=window.hit=1>",
    "{{ 7 * 7 }}{% raw %}&lt;b&gt;",
    "a\x00b\x1b[31m\u202edc.\n\ud800",
)
"""What names of models and files may be."""


@functools.cache
def digits() -> Report:
    """The report of the sample."""
    report = onnx_upscale.optimize(
        MODELS / "digits.onnx", MODELS / "digits.masks.json", samples=1, target="cpu-avx512"
    ).report
    report = replace(report, warnings=())  # Whether this is another kind of CPU.
    return report.written_to("out.onnx", "5a", 800_000)


@functools.cache
def comparison() -> Comparison:
    """Two models that were timed and profiled."""
    models = [small("x"), small("y")]
    return onnx_upscale.bench(models, runs=2, profile=True, names=["one", "two"], memory=False)


@functools.cache
def pruned() -> Pruned:
    """A small model that was pruned."""
    net = Net(17, x=["batch", 8])
    hidden = net("Relu", net("MatMul", "x", net.constant(net.random(8, 64), "a")))
    model = net.model(net("MatMul", hidden, net.constant(net.random(64, 4), "b")))
    samples = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
    return onnx_upscale.prune(model, samples, macs=0.7, runs=2, target="cpu-avx512")


def outcomes(ratios: Mapping[float, tuple[float, float]]) -> list[page.Outcome]:
    """What a sweep might have made.

    Args:
        ratios: By goal, the ratio that was measured and the agreement.
    """
    found = []
    for goal, (ratio, agreement) in ratios.items():
        one = pruned()
        before, after = one.report.latency
        estimate = Estimate(ratio, ratio * 0.98, ratio * 1.02)
        outputs = [
            dataclasses.replace(output, agreement_after=agreement)
            for output in one.report.recovered.outputs
        ]
        report = dataclasses.replace(
            one.report,
            goal=Asked("latency", goal, False),
            latency=(before, dataclasses.replace(after, ratio=estimate)),
            recovered=dataclasses.replace(one.report.recovered, outputs=tuple(outputs)),
        )
        path = f"out/{goal:g}.onnx"
        command = f"onnx-upscale prune in.onnx {path} --data 'my samples.npz' --latency {goal:g}"
        found.append(page.Outcome(path, dataclasses.replace(one, report=report), command))
    return found


SWEEP = {0.9: (0.91, 0.998), 0.7: (0.7, 0.97), 0.6: (0.62, 0.99), 0.5: (0.52, 0.94)}
"""Of which 0.7 is beaten by 0.6."""


@functools.cache
def large(count: int = 1000) -> Report:
    """The report of a network of many layers, each in a segment of its own, with long names."""
    report, segment = digits(), digits().segments[1]
    name = "/backbone/stages.{0}/blocks.{1}/pointwise_expansion/Conv"
    names = [name.format(n // 100, n % 100) for n in range(count)]
    writer, reader = segment.writers[0], segment.readers[0]
    segments = tuple(
        dataclasses.replace(
            segment,
            id=n,
            writers=(dataclasses.replace(writer, node=names[n]),),
            readers=(dataclasses.replace(reader, node=names[n + 1]),),
        )
        for n in range(count - 1)
    )
    layers = tuple(
        LayerReport(each, "Conv", 64, 48, 32 + n % 17, 64, 40, n - 1 if n else None, n)
        for n, each in enumerate(names)
    )
    return dataclasses.replace(report, segments=segments, layers=layers)


def renamed(value: Any, name: str) -> Any:
    """The same, in which every text is a name: all that a page may be told."""
    if isinstance(value, str):
        return name
    if isinstance(value, tuple):
        return tuple(renamed(each, name) for each in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            each.name: renamed(getattr(value, each.name), name)
            for each in dataclasses.fields(value)
            if each.name not in ("emitted", "masks", "kept")
        }
        return dataclasses.replace(value, **fields)
    if isinstance(value, Mapping):
        return {f"{name}{n}": each for n, each in enumerate(value.values())}
    return value
