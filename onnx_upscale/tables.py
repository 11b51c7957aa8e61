"""Results as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from onnx_upscale.choices import STRATEGIES
from onnx_upscale.figures import before_and_after, in_bytes, in_milliseconds, in_short
from onnx_upscale.report import VERSION, AnalyzeReport, Coupled, Report
from onnx_upscale.reporting import Planned, mask_counts
from onnx_upscale.text import Line, Table
from onnx_upscale.words import some

if TYPE_CHECKING:
    from onnx_upscale.api import Analyzed
    from onnx_upscale.foreseen import Foreseen

_MANY = 3


def summary(report: Report) -> list[Line]:
    """Before and after, the copies, and the proof, in a few lines."""
    before, after, copies = report.input, report.output, report.copies
    rows = [
        ["", "before", "after", ""],
        ["size", *before_and_after(in_bytes, before.bytes, after.bytes)],
        ["weights", *before_and_after(in_short, before.params, after.params)],
        ["multiply-adds", *before_and_after(in_short, before.macs, after.macs)],
        ["nodes", str(before.nodes), str(after.nodes), ""],
        [
            *("copies", str(copies.replaced), str(copies.count)),
            f"{in_bytes(copies.bytes)} per inference",
        ],
    ]
    proof = report.verify
    if proof.max_abs is None or proof.max_rel is None:
        last = "not verified"
    else:
        last = equality(proof.samples, proof.max_abs, proof.max_rel)
    if report.recovered is not None:
        last = last.replace("the masked model", "the repaired masked model", 1)
    head = f"{after.path or 'model'}: strategy {report.strategy}"
    return [head, Table(rows), last, *_fidelity(report.recovered)]


def _fidelity(recovered: Mapping[str, Any] | None) -> list[str]:
    """How near a repaired model is to the original, output by output."""
    lines = []
    for output in recovered["outputs"] if recovered is not None else ():
        after = f"error {output['error_after']:.2%} (masked {output['error_before']:.2%})"
        if output["agreement_after"] is not None:
            share, before = output["agreement_after"], output["agreement_before"]
            after = f"same top-1 {share:.2%} (masked {before:.2%}), {after}"
        lines.append(f"{output['name']}: {after}")
    if recovered is not None:
        used = recovered["samples"]
        lines.append(
            f"recovered on {used['fitted']} samples; {used['held_out']} held out show the above"
        )
    return lines


def foreseen(report: Foreseen) -> list[Line]:
    """What would be removed from which layers, what would be copied, and what that would gain."""
    segments, copies, seconds = report.segments, report.copies, report.predicted_seconds
    kept = (sum(each.channels for each in segments), sum(each.kept for each in segments))
    rows = [
        ["", "before", "after", ""],
        ["channels", *before_and_after(in_short, *kept)],
        ["copies", "0", str(copies.count), f"{in_bytes(copies.bytes)} per inference"],
        [
            "predicted latency",
            *before_and_after(in_milliseconds, seconds.before, seconds.after),
        ],
    ]
    layers = [
        [each.node, f"{each.read} of {each.inputs}", f"{each.made} of {each.outputs}"]
        for each in report.layers
        if (each.read, each.made) != (each.inputs, each.outputs)
    ]
    head = f"nothing is written: strategy {report.strategy} for {report.profile} would do this"
    if not layers:
        return [head, Table(rows), "", "no layer would lose a channel"]
    return [head, Table(rows), "", Table([["layer", "reads", "makes"], *layers])]


def equality(samples: int, max_abs: float, max_rel: float) -> str:
    """What the comparison showed."""
    return (
        f"equal to the masked model on {samples} random inputs: "
        f"largest difference {max_abs:.2g} ({max_rel:.1g} of the largest output)"
    )


def plans_of(analyzed: Analyzed, target: str) -> dict[str, Planned]:
    """What each strategy would do."""
    return {
        strategy: Planned(analyzed.plan(strategy, target), analyzed.plan_bodies(strategy, target))
        for strategy in STRATEGIES
    }


def analyze_report(
    path: str | None, analyzed: Analyzed, plans: Mapping[str, Planned], target: str
) -> AnalyzeReport:
    """What is coupled to what, and what each strategy would do.

    Args:
        path: The file of the model, or None for a model in memory.
        analyzed: The model.
        plans: What each strategy would do.
        target: The target as given.
    """
    return AnalyzeReport(
        version=VERSION,
        path=path,
        target=target,
        profile=next(iter(plans.values())).plan.prices.name,
        masks=mask_counts(analyzed.loaded),
        predicted_seconds={strategy: each.plan.seconds for strategy, each in plans.items()},
        warnings=analyzed.warnings,
        segments=coupled(plans),
    )


def coupled(plans: Mapping[str, Planned]) -> tuple[Coupled, ...]:
    """Every segment, with what each strategy would copy in it."""
    return tuple(
        Coupled(
            id=segment.id,
            channels=segment.channels,
            needed=segment.needed,
            writers=tuple(writer.node for writer in segment.writers),
            readers={reader.node: reader.needed for reader in segment.readers},
            pinned=segment.pinned,
            needed_whole=segment.needed_whole,
            bytes_copied={
                strategy: sum(reader.bytes_copied for reader in each.segments[number].readers)
                for strategy, each in plans.items()
            },
        )
        for number, segment in enumerate(plans["gather"].segments)
    )


def analysis(segments: Sequence[Coupled]) -> Table:
    """The segments of a model as a table."""
    head = ["id", "channels", "needed", "writers", "readers (needed)", "pinned or whole because"]
    lines = [[*head, *(f"{strategy} copies" for strategy in STRATEGIES)]]
    for each in segments:
        readers = [f"{node} ({needed})" for node, needed in each.readers.items()]
        lines.append(
            [
                str(each.id),
                str(each.channels),
                str(each.needed),
                some(each.writers, _MANY) or "-",
                some(readers, _MANY) or "-",
                some([*each.pinned, *each.needed_whole], _MANY) or "-",
                *(in_bytes(each.bytes_copied[strategy]) for strategy in STRATEGIES),
            ]
        )
    return Table(lines)
