"""One exported model, checked: masks, results, an independent comparison, and the bound."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

import onnx_upscale
from build import Array
from case import Masks
from masked import masked
from onnx_upscale.running import input_sizes, random_inputs
from sweeping.bound import bound
from sweeping.layers import case, find, named, random_masks

AMOUNT = 0.3
STRATEGIES = ("gather", "auto")
LARGEST_DIFFERENCE = 1e-4
_CHOOSE = ("TopK", "NonMaxSuppression", "NonZero", "ArgMax", "Greater", "GreaterOrEqual", "Less")
_NONE, _ALL = (
    onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
)


def check(path: Path) -> dict[str, Any]:
    """Masks a model on both sides, by both strategies, and compares.

    Args:
        path: The exported model.

    Returns:
        What was found, as it stands in the results of the sweep: one entry per side.
    """
    model = onnx.load(path)
    names = named(model)
    found = list(find(names))
    result: dict[str, Any] = {"nodes": len(model.graph.node), "layers": len(found)}
    for side in ("input", "output"):
        masks = random_masks(found, side, AMOUNT, seed=0)
        result[side] = _side(path, model, masked(case(names, found, masks)), masks)
    return result


def _side(
    path: Path, model: onnx.ModelProto, reference: onnx.ModelProto, masks: Masks
) -> dict[str, Any]:
    result: dict[str, Any] = {"masked": len(masks)}
    sizes = input_sizes(model, None)
    samples = [random_inputs(model, sizes, seed) for seed in (11, 12)]
    expected = _outputs(reference, samples, _NONE)
    noise: float | None = None
    document = {"version": 1, "masks": masks}
    for strategy in STRATEGIES:
        row: dict[str, Any] = {}
        result[strategy] = row
        own = strategy == "auto"
        try:
            made = onnx_upscale.optimize(path, document, strategy=strategy, samples=1, verify=own)
            row["own"] = "equal" if own else "not asked"
        except onnx_upscale.VerifyError as error:
            row["own"] = f"differs: {error}"
            made = onnx_upscale.optimize(path, document, strategy=strategy, verify=False)
        except onnx_upscale.UpscaleError as error:
            row["own"] = f"refused: {error}"
            continue
        report = made.report
        row["left"] = 1 - report["output"]["macs"] / max(report["input"]["macs"], 1)
        row["macs"] = report["input"]["macs"]
        row["copies"] = report["copies"]["count"]
        row["pieces"] = report["verify"].get("pieces", 0)
        row["warnings"] = [each[:200] for each in report["verify"].get("warnings", ())]
        found = _outputs(made.model, samples, _NONE)
        row["apart"] = max(map(_apart, expected, found))
        if row["apart"] > LARGEST_DIFFERENCE:
            if noise is None:
                noise = max(map(_apart, expected, _shaken(reference, samples)))
            row["noise"] = noise
            row["before"] = before_choices(reference, made.model, samples)
    try:
        limit = bound(reference, samples[0])
        result["bound"] = 1 - limit.coupled / max(limit.full, 1)
        result["free"] = 1 - limit.free / max(limit.full, 1)
        result["macs"], result["opaque"] = limit.full, limit.opaque
        for strategy in STRATEGIES:
            if "left" in result[strategy] and result["bound"] > 0:
                result[strategy]["ratio"] = result[strategy]["left"] / result["bound"]
    except Exception as error:  # The bound is the tool's own: its failure says nothing of a result.
        result["bound_failed"] = f"{type(error).__name__}: {error}"[:300]
    return result


def before_choices(
    reference: onnx.ModelProto, emitted: onnx.ModelProto, samples: list[dict[str, Array]]
) -> float | None:
    """How far models that select are apart in front of what selects first; None for others.

    What selects ranks what is nearly equal, or, where masks make it so, equal.
    """
    chosen: set[str] = set()
    fronts: list[str] = []
    for node in reference.graph.node:
        if node.op_type in _CHOOSE and not chosen.intersection(node.input):
            fronts += [name for name in node.input if name]
        if node.op_type in _CHOOSE or chosen.intersection(node.input):
            chosen.update(node.output)
    found = []
    for model in (reference, emitted):
        made = {name for node in model.graph.node for name in node.output}
        fronts = [name for name in dict.fromkeys(fronts) if name in made]
    if not fronts:
        return None
    for model in (reference, emitted):
        cut = onnx.ModelProto()
        cut.CopyFrom(model)
        del cut.graph.output[:]
        cut.graph.output.extend(onnx.ValueInfoProto(name=name) for name in fronts)
        found.append(_outputs(cut, samples, _NONE))
    return max(map(_apart, *found))


def _outputs(
    model: onnx.ModelProto, samples: Sequence[Mapping[str, Array]], level: Any
) -> list[list[Array]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = level
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    runs: list[list[Any]] = [session.run(None, dict(values)) for values in samples]
    return [
        [
            np.asarray(part)
            for each in found
            for part in (each if isinstance(each, list) else [each])
        ]
        for found in runs
    ]


def _shaken(model: onnx.ModelProto, samples: list[dict[str, Array]]) -> list[list[Array]]:
    """What a model makes, with optimizations, of inputs that are changed by a rounding."""
    shaken = [
        {
            name: value * np.float32(1 + 2e-7) if value.dtype == np.float32 else value
            for name, value in values.items()
        }
        for values in samples
    ]
    return _outputs(model, shaken, _ALL)


def _apart(wanted: list[Array], got: list[Array]) -> float:
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
        apart = float(np.abs(one[finite] - other[finite]).max(initial=0.0))
        shares.append(apart / max(largest, 1e-2))
    return max(shares)
