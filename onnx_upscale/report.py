"""The report: what was done, as JSON (version 1)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from onnx_upscale.optimizer.load import Loaded
from onnx_upscale.optimizer.plan import Plan
from onnx_upscale.optimizer.plan.cost import Costs
from onnx_upscale.optimizer.verify import Verification
from onnx_upscale.stats import Stats

VERSION = 1


def masks_section(loaded: Loaded) -> dict[str, int]:
    """How much the masks prune."""
    pruned = {
        side: sum(len(mask.pruned) for mask in loaded.masks if mask.side == side)
        for side in ("input", "output")
    }
    return {
        "targets": len({mask.layer.node.index for mask in loaded.masks}),
        "pruned_inputs": pruned["input"],
        "pruned_outputs": pruned["output"],
    }


def segments_section(plan: Plan) -> list[dict[str, Any]]:
    """Every segment with its writers and readers and how they get along."""
    sections, costs = [], Costs(plan.analysis.structure.graph, plan.prices)
    for segment in plan.analysis.structure.segments:
        writers = [
            {
                "node": writer.node.title,
                "channels": len(plan.writers[writer.node.index].positions),
                "realization": plan.writers[writer.node.index].name,
            }
            for writer in segment.writers
        ]
        chosen = [plan.readers.get(read.layer.node.index) for read in segment.readers]
        readers = [
            {
                "node": reader.read.layer.node.title,
                "needed": reader.needed,
                "read": len(reader.positions),
                "realization": reader.name,
                "bytes_copied": reader.bytes_copied(costs),
            }
            for reader in chosen
            if reader is not None
        ]
        sections.append(
            {
                "id": segment.id,
                "channels": len(segment.roots),
                "needed": int(plan.analysis.needs.labels[segment.roots].sum()),
                "kept": int(plan.kept.labels[segment.roots].sum()),
                "writers": writers,
                "readers": readers,
                "pinned": sorted({d.reason for d in segment.demands if d.ordered}),
                "needed_whole": sorted({d.reason for d in segment.demands if not d.ordered}),
            }
        )
    return sections


def price_warnings(plan: Plan) -> list[str]:
    """What to say of prices that were not measured for a model's shapes."""
    if not plan.estimated:
        return []
    families = ", ".join(plan.estimated)
    lacks = f"profile '{plan.prices.name}' lacks shapes of this model"
    return [f"{lacks}, which are estimated: {families}"]


def stats_section(stats: Stats, path: str | None, sha256: str, size: int) -> dict[str, Any]:
    """What a model weighs."""
    return {
        "path": path,
        "sha256": sha256,
        "bytes": size,
        "nodes": stats.nodes,
        "params": stats.params,
        "macs": stats.macs,
    }


def verify_section(verification: Verification | None) -> dict[str, Any]:
    """What the comparison found; JSON has no infinity, so what cannot be compared is null."""
    if verification is None:
        return {"ran": False, "samples": 0, "max_abs": None, "max_rel": None, "ok": None}
    return {
        "ran": True,
        "samples": verification.samples,
        "max_abs": _finite(verification.max_abs),
        "max_rel": _finite(verification.max_rel),
        "ok": verification.ok,
        "warnings": list(verification.warnings),
        "noise": None if verification.noise is None else _finite(verification.noise),
        "pieces": verification.pieces,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds per stage, to the millisecond."""
    return {stage: round(value, 3) for stage, value in seconds.items()}
