"""Filling in the report, from what the verbs give."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnx_upscale.optimizer.bodies import PlannedBody
from onnx_upscale.optimizer.load import Loaded
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.plan import Plan
from onnx_upscale.optimizer.plan.cost import Costs
from onnx_upscale.optimizer.verify import Verification
from onnx_upscale.report import (
    VERSION,
    LayerReport,
    MaskCounts,
    ReaderReport,
    SegmentReport,
    Size,
    Verified,
    VerifyReport,
    WriterReport,
)
from onnx_upscale.stats import Stats


@dataclass(frozen=True)
class Planned:
    """What a strategy would do, as reports say it.

    Attributes:
        plan: The plan.
        bodies: The plans of bodies.
    """

    plan: Plan
    bodies: tuple[PlannedBody, ...]

    @cached_property
    def segments(self) -> tuple[SegmentReport, ...]:
        """Every segment."""
        return segment_reports(self.plan, self.bodies)

    @cached_property
    def layers(self) -> tuple[LayerReport, ...]:
        """Every layer."""
        return layer_reports(self.plan, self.bodies)

    @property
    def bytes_copied(self) -> int:
        """What readers copy per inference."""
        return sum(reader.bytes_copied for each in self.segments for reader in each.readers)


def size_of(stats: Stats, path: str | None, sha256: str, size: int) -> Size:
    """What a model weighs.

    Args:
        stats: Its size and work.
        path: Its file, or None for a model in memory.
        sha256: Of its file.
        size: Bytes of its file, and of one with its weights.
    """
    return Size(path, sha256, size, stats.nodes, stats.params, stats.macs)


def mask_counts(loaded: Loaded) -> MaskCounts:
    """How much the masks prune."""
    scopes = [loaded.masks, *(body.masks for body in loaded.bodies)]
    pruned = {
        side: sum(len(mask.pruned) for masks in scopes for mask in masks if mask.side == side)
        for side in ("input", "output")
    }
    targets = sum(len({mask.layer.node.index for mask in masks}) for masks in scopes)
    return MaskCounts(targets, pruned["input"], pruned["output"])


def segment_reports(plan: Plan, bodies: Sequence[PlannedBody]) -> tuple[SegmentReport, ...]:
    """Every segment with its writers and readers and how they get along, then those of bodies."""
    reports = [*_segment_reports(plan, "", 0)]
    for each in bodies:
        reports += _segment_reports(each.plan, f"{each.body.path}/", len(reports))
    return tuple(reports)


def _segment_reports(plan: Plan, path: str, first: int) -> Iterator[SegmentReport]:
    costs = Costs(plan.analysis.structure, plan.prices)
    for segment in plan.analysis.structure.segments:
        writers = [(writer.node, plan.writers[writer.node.index]) for writer in segment.writers]
        readers = [plan.readers.get(read.layer.node.index) for read in segment.readers]
        yield SegmentReport(
            id=first + segment.id,
            channels=len(segment.roots),
            needed=int(plan.analysis.needs.labels[segment.roots].sum()),
            kept=int(plan.kept.labels[segment.roots].sum()),
            writers=tuple(
                WriterReport(f"{path}{node.title}", len(chosen.positions), chosen.name)
                for node, chosen in writers
            ),
            readers=tuple(
                ReaderReport(
                    node=f"{path}{chosen.read.layer.node.title}",
                    needed=chosen.needed,
                    read=len(chosen.positions),
                    realization=chosen.name,
                    bytes_copied=chosen.bytes_copied(costs),
                    seconds_copying=chosen.seconds_copying(costs),
                )
                for chosen in readers
                if chosen is not None
            ),
            pinned=tuple(sorted({d.reason for d in segment.demands if d.ordered})),
            needed_whole=tuple(sorted({d.reason for d in segment.demands if not d.ordered})),
        )


def layer_reports(plan: Plan, bodies: Sequence[PlannedBody]) -> tuple[LayerReport, ...]:
    """How wide every layer was and is, in the order of the model, then those of bodies."""
    reports, first = [*_layer_reports(plan, "", 0)], len(plan.analysis.structure.segments)
    for each in bodies:
        reports += _layer_reports(each.plan, f"{each.body.path}/", first)
        first += len(each.plan.analysis.structure.segments)
    return tuple(reports)


def _layer_reports(plan: Plan, path: str, first: int) -> Iterator[LayerReport]:
    structure = plan.analysis.structure
    segment_of = first + structure.segment_of
    for index, layer in structure.layers.items():
        facts, reading = structure.facts[index], plan.readers.get(index)
        read, made = facts.read or facts.write, facts.write
        inputs = None if read is None else read.inputs
        outputs = None if made is None else made.outputs
        there = np.arange(layer.inputs) if inputs is None else plan.layout.positions(inputs)
        if reading is not None:
            taken = reading.positions
        else:  # What is not computed has no reading.
            taken = there if facts.read is None else there[:0]
        makes = np.arange(layer.outputs) if outputs is None else plan.writers[index].positions
        yield LayerReport(
            node=f"{path}{layer.node.title}",
            operator=layer.node.op,
            inputs=layer.inputs,
            kept=len(there) if reading is None else len(reading.here),
            read=len(taken),
            outputs=layer.outputs,
            made=len(makes),
            reads=None if inputs is None else int(segment_of[inputs[0]]),
            makes=None if outputs is None else int(segment_of[outputs[0]]),
            weight=layer.node.inputs[layer.weight_slot],
            read_channels=_unless_all(taken, layer.inputs),
            made_channels=_unless_all(makes, layer.outputs),
        )


def _unless_all(positions: IntArray, count: int) -> tuple[int, ...] | None:
    whole = np.array_equal(positions, np.arange(count))
    return None if whole else tuple(positions.tolist())


def price_warnings(plan: Plan) -> tuple[str, ...]:
    """What to say of prices that were not measured for a model's shapes."""
    if not plan.estimated:
        return ()
    families = ", ".join(plan.estimated)
    lacks = f"profile '{plan.prices.name}' lacks shapes of this model"
    return (f"{lacks}, which are estimated: {families}",)


def verify_report(verification: Verification | None) -> VerifyReport:
    """What the comparison found, if there was one."""
    if verification is None:
        return VerifyReport()
    return VerifyReport(
        ran=True,
        samples=verification.samples,
        max_abs=finite(verification.max_abs),
        max_rel=finite(verification.max_rel),
        ok=verification.ok,
        warnings=verification.warnings,
        noise=None if verification.noise is None else finite(verification.noise),
        pieces=verification.pieces,
    )


def verified(verification: Verification) -> Verified:
    """What a comparison by itself found."""
    return Verified(VERSION, verify_report(verification))


def finite(value: float) -> float | None:
    """A number as JSON has it, where there is no infinity and no NaN."""
    return value if math.isfinite(value) else None
