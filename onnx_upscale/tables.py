"""Results as text for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onnx_upscale.api import Analyzed
from onnx_upscale.optimizer.plan import STRATEGIES
from onnx_upscale.report import Report
from onnx_upscale.reporting import segment_reports
from onnx_upscale.words import some

_MANY = 3


def summary(report: Report) -> list[str]:
    """Before and after, the copies, and the proof, in a few lines."""
    before, after, copies = report.input, report.output, report.copies
    rows = [
        ["", "before", "after", ""],
        ["size", *_change(_bytes, before.bytes, after.bytes)],
        ["weights", *_change(_count, before.params, after.params)],
        ["multiply-adds", *_change(_count, before.macs, after.macs)],
        ["nodes", str(before.nodes), str(after.nodes), ""],
        ["copies", "0", str(copies.count), f"{_bytes(copies.bytes)} per inference"],
    ]
    proof = report.verify
    if proof.max_abs is None or proof.max_rel is None:
        last = "not verified"
    else:
        last = equality(proof.samples, proof.max_abs, proof.max_rel)
    if report.recovered is not None:
        last = last.replace("the masked model", "the repaired masked model", 1)
    head = f"{after.path or 'model'}: strategy {report.strategy}"
    return [head, *table(rows), last, *_fidelity(report.recovered)]


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


def equality(samples: int, max_abs: float, max_rel: float) -> str:
    """What the comparison showed."""
    return (
        f"equal to the masked model on {samples} random inputs: "
        f"largest difference {max_abs:.2g} ({max_rel:.1g} of the largest output)"
    )


def analysis_rows(analyzed: Analyzed, target: str) -> list[dict[str, Any]]:
    """One entry per segment, with what each strategy would copy in it."""
    plans = {
        strategy: segment_reports(
            analyzed.plan(strategy, target), analyzed.plan_bodies(strategy, target)
        )
        for strategy in STRATEGIES
    }
    rows = []
    for number, segment in enumerate(plans["gather"]):
        copied = {
            strategy: sum(reader.bytes_copied for reader in segments[number].readers)
            for strategy, segments in plans.items()
        }
        rows.append(
            {
                "id": segment.id,
                "channels": segment.channels,
                "needed": segment.needed,
                "writers": [writer.node for writer in segment.writers],
                "readers": {reader.node: reader.needed for reader in segment.readers},
                "pinned": list(segment.pinned),
                "needed_whole": list(segment.needed_whole),
                "bytes_copied": copied,
            }
        )
    return rows


def analysis(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The entries of `analysis_rows` as a table."""
    head = ["id", "channels", "needed", "writers", "readers (needed)", "pinned or whole because"]
    lines = [[*head, *(f"{strategy} copies" for strategy in STRATEGIES)]]
    for row in rows:
        readers = [f"{node} ({needed})" for node, needed in row["readers"].items()]
        lines.append(
            [
                str(row["id"]),
                str(row["channels"]),
                str(row["needed"]),
                some(row["writers"], _MANY) or "-",
                some(readers, _MANY) or "-",
                some([*row["pinned"], *row["needed_whole"]], _MANY) or "-",
                *(_bytes(row["bytes_copied"][strategy]) for strategy in STRATEGIES),
            ]
        )
    return table(lines)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines of aligned columns; the first row is the head."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.2f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def _count(number: float) -> str:
    for unit in ("", " k", " M"):
        if number < 1000:
            return f"{number:.0f}" if not unit else f"{number:.2f}{unit}"
        number /= 1000
    return f"{number:.2f} G"


def _change(text: Callable[[float], str], before: int, after: int) -> tuple[str, str, str]:
    return text(before), text(after), f"{after / before - 1:+.1%}" if before else ""
