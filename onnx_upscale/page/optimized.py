"""The page of the main job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from onnx_upscale.figures import in_milliseconds
from onnx_upscale.page.charts import where_time_goes
from onnx_upscale.page.network import network
from onnx_upscale.page.parts import Card, Cards, Page, Part
from onnx_upscale.page.planned import (
    changed,
    copies_card,
    copies_table,
    layers_table,
    remarks,
    segments_table,
    share,
    size_cards,
    stays_table,
)
from onnx_upscale.report import Report, Times, VerifyReport


def optimized_page(report: Report) -> Page:
    """What the optimizer did.

    Args:
        report: Its report.
    """
    cards = (
        *size_cards(report),
        *copies_card(report.copies),
        *_latency(report.predicted),
        *_fidelity(report.recovered),
    )
    return Page(
        kind="optimize",
        title=name_of(report.input.path),
        lines=(*_lines(report), *proof_lines(report.verify, report.recovered is not None)),
        parts=(
            Cards(cards=cards),
            network(report.layers, report.segments),
            _where_time_goes(report.predicted),
            copies_table(report),
            stays_table(report.segments),
            segments_table(report.segments),
            layers_table(report.layers, report.segments),
            remarks((*report.warnings, *report.verify.warnings)),
        ),
    )


def name_of(path: str | None) -> str:
    """What a page calls a model."""
    return "a model in memory" if path is None else PurePath(path).name


def proof_lines(proof: VerifyReport, repaired: bool) -> Iterator[str]:
    """What the comparison with the masked model showed, if it ran."""
    what = "repaired masked model" if repaired else "masked model"
    inputs = f"{proof.samples} random input{'' if proof.samples == 1 else 's'}"
    if proof.ran and not proof.ok:
        yield f"Verification failed: it differs from the {what} on {inputs}"
    elif proof.ran:
        off = "" if proof.max_abs is None else f"; largest difference {proof.max_abs:.2g}"
        yield f"Equal to the {what} on {inputs}{off}"


def _lines(report: Report) -> Iterator[str]:
    if report.output.path is not None:
        yield f"Written to {report.output.path}"
    yield f"Strategy {report.strategy}, for {report.profile}"
    masks = report.masks
    if masks.targets:
        sides = [
            f"{count:,} {side} channels"
            for side, count in (("input", masks.pruned_inputs), ("output", masks.pruned_outputs))
            if count
        ]
        yield f"Masks of {masks.targets:,} layers prune {' and '.join(sides) or 'nothing'}"


def _latency(times: Times) -> Iterator[Card]:
    before, after = (sum(each.values()) for each in (times.before, times.after))
    if after:
        yield replace(
            changed("latency", in_milliseconds, before, after), detail="predicted, one thread"
        )


def _where_time_goes(times: Times) -> Part | None:
    if not sum(times.after.values()):
        return None
    return where_time_goes(
        (("before", times.before), ("after", times.after)),
        "As predicted for one thread by the prices of the target; what bench measures with a "
        "profile is on a page of its own.",
    )


def _fidelity(recovered: Mapping[str, Any] | None) -> Iterator[Card]:
    """How near a repaired model is to the original, output by output."""
    if recovered is None:
        return
    held = recovered["samples"]["held_out"]
    for output in recovered["outputs"]:
        detail = f"{output['name']}, {held} held-out samples"
        same, error = (
            (output[f"{what}_after"], f"{output[f'{what}_before'] or 0:.2%} without repair")
            for what in ("agreement", "error")
        )
        if same[0] is not None:
            shown = share(same[0], 1)
            yield Card("same top-1", f"{same[0]:.2%}", f"from {same[1]}", "", shown, detail)
        yield Card("error", f"{error[0]:.2%}", f"from {error[1]}", detail=detail)
