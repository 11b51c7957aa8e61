"""How long planned kernels take in onnxruntime on this machine."""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnx_upscale.benchmark import interleave
from onnx_upscale.prices import Kernel
from onnx_upscale.prices.kernels import PLAIN
from onnx_upscale.pricing.probes import probe_model, repeated
from onnx_upscale.running import Session, input_sizes, random_inputs

# Kernels in one model; sittings, each with all models loaded anew; rounds in each of them.
_TOGETHER, _SITTINGS, _ROUNDS = 40, 5, 10
_FURTHER = 8  # times that a kernel is done in the longer of two models.
# Would make one node of several that do the same.
_MERGING = ("CommonSubexpressionElimination",)
# The profile tells whole microseconds: what takes less than this is measured one by one as well, if
# its result needs no change of layout to leave a model.
_SHORT, _LEAST = 2e-5, 1e-7
_LEAVING = frozenset(
    {
        *PLAIN,
        *("product", "bytes_product", "gather", "slice", "gather_last", "slice_last"),
        *("reduce", "simple", "pool_plain", "overhead"),
    }
)
# Others who use the machine slow some sittings down, and nothing makes one faster than it is.
UNDISTURBED, _SOME = 0.1, 0.3
# In the name of a node whose time is taken off that of the others of its kernel.
_LESS = ".less"
_REORDERS = {"ReorderInput": "reorder_in", "ReorderOutput": "reorder_out"}

_CPU = "CPUExecutionProvider"

Progress = Callable[[int, int], None]


def measure_by_profile(
    kernels: Sequence[Kernel], threads: int, progress: Progress
) -> dict[Kernel, float]:
    """Measures kernels on the CPU provider, which says itself what each took.

    Args:
        kernels: The kernels.
        threads: Threads inside a kernel.
        progress: Called with how much is done, of how much.

    Returns:
        Seconds by kernel, those of the layout changes between them included.
    """
    batches = [kernels[start : start + _TOGETHER] for start in range(0, len(kernels), _TOGETHER)]
    half = _SITTINGS * len(batches)
    samples: dict[Kernel, dict[str, list[float]]] = {}
    for sitting in range(_SITTINGS):
        for number, batch in enumerate(batches):
            for event, kernel in _events(batch, threads):
                node = samples.setdefault(kernel, {}).setdefault(f"{number} {event['name']}", [])
                node.append(event["dur"] * 1e-6)
            progress(sitting * len(batches) + number + 1, 2 * half)
    taking, least = _taken_by_profile(samples, threads)
    found: dict[Kernel, float] = {}
    for kernel, by_node in samples.items():
        each = {name: _undisturbed(times) - taking for name, times in by_node.items()}
        if kernel.family in _REORDERS.values():  # Of the same one there may be several.
            found[kernel] = float(np.median(list(each.values())))
        else:  # A planned kernel may be several nodes, or what one takes longer than another.
            found[kernel] = sum(-each[name] if _LESS in name else each[name] for name in each)
        found[kernel] = max(found[kernel], least)
    short = [k for k in kernels if k.family in _LEAVING and found.get(k, 1) < _SHORT]

    def go_on(done: int, of: int) -> None:
        progress(half + half * done // of, 2 * half)

    found |= measure_one_by_one(short, (_CPU,), threads, go_on)
    progress(2 * half, 2 * half)
    return found


def _taken_by_profile(
    samples: Mapping[Kernel, Mapping[str, Sequence[float]]], threads: int
) -> tuple[float, float]:
    """What taking the profile adds to every node, and what nodes that do nothing take without."""
    nothing = [kernel for kernel in samples if kernel.family == "overhead"]
    if not nothing:
        return 0.0, _LEAST
    told = [_undisturbed(times) for kernel in nothing for times in samples[kernel].values()]
    alone = measure_one_by_one(nothing, (_CPU,), threads, lambda done, of: None)
    least = float(np.median(list(alone.values())))
    return max(float(np.median(told)) - least, 0.0), least


def _undisturbed(times: Sequence[float]) -> float:
    """What a node takes undisturbed: the mean of some, for the profile tells whole numbers."""
    return float(np.sort(times)[: max(1, round(_SOME * len(times)))].mean())


def _events(batch: Sequence[Kernel], threads: int) -> Iterator[tuple[Mapping[str, Any], Kernel]]:
    """The profile's events of kernels, without those of the warm-up."""
    model = probe_model(batch)
    with tempfile.TemporaryDirectory(prefix="onnx-upscale-") as folder:
        session = Session(model, threads, profile=str(Path(folder) / "profile"))
        interleave([session.task(_feed(model))], _ROUNDS)
        events = json.loads(Path(session.end_profile()).read_text("utf-8"))
    starts = sorted(event["ts"] for event in events if event["name"] == "model_run")
    for event in events:
        counts = event.get("cat") == "Node" and event["ts"] >= starts[-_ROUNDS:][0]
        if counts and event["name"].endswith("_kernel_time"):
            kernel = _kernel_of(event, batch)
            if kernel is not None:
                yield event, kernel


def _feed(model: onnx.ModelProto) -> Mapping[str, Any]:
    return random_inputs(model, input_sizes(model), seed=0)


def _kernel_of(event: Mapping[str, Any], batch: Sequence[Kernel]) -> Kernel | None:
    name, op = event["name"], event["args"]["op_name"]
    if op in _REORDERS:
        (shape,) = event["args"]["output_type_shape"][0].values()
        return Kernel(_REORDERS[op], shape[1], shape[1], max(math.prod(shape[2:]), 1))
    target = re.match(r"t(\d+)\.", name)
    return batch[int(target[1])] if target else None


def measure_one_by_one(
    kernels: Sequence[Kernel],
    providers: Sequence[str],
    threads: int,
    progress: Progress,
    precision: str = "float32",
) -> dict[Kernel, float]:
    """Measures kernels on a provider that does not say what each takes, in models of their own.

    Each is done once in one model and several times more in another; the rest of both is the same,
    so that their difference is what the further times take, one after the other as in a network.

    Args:
        kernels: The kernels.
        providers: onnxruntime's names of the providers.
        threads: Threads inside a kernel.
        progress: Called with how much is done, of how much.
        precision: The type of real numbers.

    Returns:
        Seconds by kernel.
    """
    found: dict[Kernel, float] = {}
    for number, kernel in enumerate(kernels):
        once = probe_model([kernel], precision)
        tasks = [
            Session(model, threads, providers, without=_MERGING).task(_feed(once))
            for model in (once, repeated(once, _FURTHER))
        ]
        less, more = np.quantile(interleave(tasks, _ROUNDS), UNDISTURBED, axis=0)
        found[kernel] = max(float(more - less) / _FURTHER, _LEAST)
        progress(number + 1, len(kernels))
    return found
