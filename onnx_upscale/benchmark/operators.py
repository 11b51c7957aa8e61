"""Where the time goes: onnxruntime's own profile, summed by operator."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from onnx_upscale.copies import COPIES

# The last two are onnxruntime's own, between the host and a GPU.
_COPIES = COPIES | {"Transpose", "QLinearConcat", "MemcpyFromHost", "MemcpyToHost"}
# In and out of the blocked layout of the CPU provider's convolutions.
_REORDERS = frozenset({"ReorderInput", "ReorderOutput"})
# Their time is that of the operators in their bodies, which the profile lists as well.
_WITH_BODIES = frozenset({"If", "Loop", "Scan"})

CATEGORIES = "compute", "copies", "reorders"


@dataclass(frozen=True)
class Operators:
    """Seconds per inference by operator type, the longest first.

    Attributes:
        seconds: By operator type, the median over the profiled runs.
    """

    seconds: Mapping[str, float]

    @property
    def categories(self) -> dict[str, float]:
        """Seconds summed as compute, copies and layout reorders."""
        sums = dict.fromkeys(CATEGORIES, 0.0)
        for op, seconds in self.seconds.items():
            sums[category(op)] += seconds
        return sums

    @property
    def over_bound(self) -> float:
        """The time of all nodes by the copy-free bound, which is what those that compute take.

        1 where nothing is copied or reordered, and where nothing ran.
        """
        compute = self.categories["compute"]
        return sum(self.seconds.values()) / compute if compute else 1.0


def category(op: str) -> str:
    """What an operator type counts as: `compute`, `copies` or `reorders`."""
    return "copies" if op in _COPIES else "reorders" if op in _REORDERS else "compute"


def read_profile(path: str | os.PathLike[str], runs: int) -> Operators:
    """Sums a profile of onnxruntime.

    Args:
        path: The profile's file.
        runs: How many runs count, from the last one backwards; those before were the warm-up.

    Returns:
        Median seconds per run of each operator type.
    """
    with open(path, encoding="utf-8") as file:
        return sum_events(json.load(file), runs)


def sum_events(events: Sequence[Mapping[str, Any]], runs: int) -> Operators:
    """What `read_profile` does, for events in onnxruntime's form: times are in microseconds."""
    starts = np.sort([event["ts"] for event in events if event["name"] == "model_run"])
    nodes = [
        event
        for event in events
        if event.get("cat") == "Node"
        and event["name"].endswith("_kernel_time")
        and event["args"]["op_name"] not in _WITH_BODIES
    ]
    run_of = np.searchsorted(starts, [event["ts"] for event in nodes], side="right") - 1
    per_run: dict[str, np.ndarray[Any, Any]] = {}
    for event, run in zip(nodes, run_of, strict=True):
        op = event["args"]["op_name"]
        per_run.setdefault(op, np.zeros(len(starts)))[run] += event["dur"]
    medians = {op: float(np.median(times[-runs:])) / 1e6 for op, times in per_run.items()}
    longest_first = sorted(medians.items(), key=lambda item: (-item[1], item[0]))
    return Operators(MappingProxyType(dict(longest_first)))
