"""Running models and comparing what they make, without any code of the package."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime

from build import Array

_CHOOSE = ("TopK", "NonMaxSuppression", "NonZero", "ArgMax", "Greater", "GreaterOrEqual", "Less")
AS_WRITTEN, OPTIMIZED = (
    onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
)


def session(model: onnx.ModelProto, level: Any = AS_WRITTEN) -> onnxruntime.InferenceSession:
    """A model in onnxruntime, on one thread."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = level
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def outputs(
    model: onnx.ModelProto, samples: Sequence[Mapping[str, Array]], level: Any = AS_WRITTEN
) -> list[list[Array]]:
    """What a model makes of each sample; the parts of a sequence count as outputs."""
    loaded = session(model, level)
    runs: list[list[Any]] = [loaded.run(None, dict(values)) for values in samples]
    return [
        [
            np.asarray(part)
            for each in found
            for part in (each if isinstance(each, list) else [each])
        ]
        for found in runs
    ]


def apart(wanted: list[Array], got: list[Array]) -> float:
    """The largest difference, as a share of the largest value of its output (0.01 at least)."""
    shares = [0.0]
    for one, other in zip(wanted, got, strict=True):
        if one.shape != other.shape or one.dtype != other.dtype:
            return math.inf
        if one.dtype.kind != "f":
            shares.append(0.0 if np.array_equal(one, other) else math.inf)
            continue
        finite = np.isfinite(one)
        if not np.array_equal(one[~finite], other[~finite], equal_nan=True):
            return math.inf
        largest = float(np.abs(one[finite]).max(initial=0.0))
        furthest = float(np.abs(one[finite] - other[finite]).max(initial=0.0))
        shares.append(furthest / max(largest, 1e-2))
    return max(shares)


def shaken(model: onnx.ModelProto, samples: list[dict[str, Array]]) -> list[list[Array]]:
    """What a model makes, with optimizations, of inputs that are changed by a rounding."""
    changed = [
        {
            name: value * np.float32(1 + 2e-7) if value.dtype == np.float32 else value
            for name, value in values.items()
        }
        for values in samples
    ]
    return outputs(model, changed, OPTIMIZED)


def giving(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A model with these tensors for outputs."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return probe


def tensors(
    model: onnx.ModelProto, names: list[str], samples: Sequence[Mapping[str, Array]]
) -> list[list[Array]]:
    """What a model makes, under some names, of each sample."""
    return outputs(giving(model, names), samples)


def before_choices(
    reference: onnx.ModelProto, emitted: onnx.ModelProto, samples: list[dict[str, Array]]
) -> float | None:
    """How far models that select are apart in front of what selects first.

    What selects ranks what is nearly equal, or, where masks make it so, equal. What no mask reaches
    is equal in any case, and shows nothing.

    Args:
        reference: The masked model, as `tests/kit/masked.py` makes it.
        emitted: What is compared with it.
        samples: Inputs.

    Returns:
        None where nothing that masks reach is selected from.
    """
    reached = {t.name for t in reference.graph.initializer if t.name.endswith(".mask")}
    chosen: set[str] = set()
    fronts: list[str] = []
    for node in reference.graph.node:
        if node.op_type in _CHOOSE and not chosen.intersection(node.input):
            fronts += [name for name in node.input if name in reached]
        if node.op_type in _CHOOSE or chosen.intersection(node.input):
            chosen.update(node.output)
        if reached.intersection(node.input):
            reached.update(node.output)
    made = {name for node in emitted.graph.node for name in node.output}
    fronts = [name for name in dict.fromkeys(fronts) if name in made]
    if not fronts:
        return None
    found = [tensors(model, fronts, samples) for model in (reference, emitted)]
    return max(map(apart, *found))
