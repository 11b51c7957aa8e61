"""The page of prune: one model, or a sweep with its front."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from onnx_upscale.page.benched import interval, latency_card
from onnx_upscale.page.charts import Front, Point, on_front, ticks
from onnx_upscale.page.network import network
from onnx_upscale.page.optimized import name_of, proof_lines
from onnx_upscale.page.parts import (
    Card,
    Cards,
    Cell,
    Column,
    Command,
    Group,
    Page,
    Part,
    Table,
    number,
)
from onnx_upscale.page.planned import (
    copies_card,
    copies_table,
    layers_table,
    long_table,
    remarks,
    segments_table,
    share,
    size_cards,
    stays_table,
)
from onnx_upscale.pruning.plot import fidelity
from onnx_upscale.pruning.report import Asked, PruneReport
from onnx_upscale.pruning.results import Pruned
from onnx_upscale.recovery.report import Refitted


@dataclass(frozen=True)
class Outcome:
    """A pruned model, where it was written to, and the command that makes it again."""

    path: str
    pruned: Pruned
    command: str


def pruned_page(model: str, outcomes: Sequence[Outcome]) -> Page:
    """What pruning to one or several goals made.

    Args:
        model: The path of the original.
        outcomes: A model per goal.
    """
    first = outcomes[0].pruned.report
    used = first.recovered.samples
    warnings = [warning for each in outcomes for warning in each.pruned.warnings]
    return Page(
        kind="prune",
        title=name_of(model),
        lines=(
            f"For {first.target}, {used.fitted + used.held_out:,} samples: fidelity on "
            f"{used.held_out:,} held out, on which nothing was fitted",
            *(_single(outcomes[0]) if len(outcomes) == 1 else ()),
        ),
        parts=(
            *(_one(outcomes[0]) if len(outcomes) == 1 else _sweep(outcomes)),
            remarks(warnings),
        ),
    )


def _single(outcome: Outcome) -> Iterator[str]:
    yield f"{goal_text(outcome.pruned.report.goal)}: written to {outcome.path}"
    yield from proof_lines(outcome.pruned.report.verify, repaired=True)


def goal_text(goal: Asked) -> str:
    """A goal in words."""
    return (
        f"Goal {goal.name} {goal.value * 1e3:g} ms"
        if goal.seconds
        else (f"Goal {goal.name} {goal.value:g}")
    )


def _one(outcome: Outcome) -> Iterator[Part | None]:
    pruned = outcome.pruned
    optimized = pruned.result.report
    yield _cards(pruned)
    yield network(optimized.layers, optimized.segments)
    yield copies_table(optimized)
    yield _repaired(pruned.report.recovered.readers)
    yield stays_table(optimized.segments)
    yield segments_table(optimized.segments)
    yield layers_table(optimized.layers, optimized.segments)
    yield Command(title="Make it again", line=outcome.command)


def _sweep(outcomes: Sequence[Outcome]) -> Iterator[Part | None]:
    yield _front(outcomes)
    yield _table(outcomes)
    for place, outcome in enumerate(outcomes):
        optimized = outcome.pruned.result.report
        parts = (
            Command(line=outcome.command),
            _cards(outcome.pruned),
            network(optimized.layers, optimized.segments, explained=False),
        )
        report = outcome.pruned.report
        yield Group(
            title=outcome.path,
            note="; ".join((goal_text(report.goal), *proof_lines(report.verify, repaired=True))),
            anchor=_anchor(place),
            parts=tuple(part for part in parts if part is not None),
        )


def _anchor(place: int) -> str:
    return f"model-{place + 1}"


def _cards(pruned: Pruned) -> Cards:
    report = pruned.report
    return Cards(
        cards=(
            latency_card(*report.latency),
            *_fidelity(report),
            *size_cards(pruned.result.report),
            *copies_card(pruned.result.report.copies),
        )
    )


def _fidelity(report: PruneReport) -> Iterator[Card]:
    if report.score is not None:
        before, after = report.score.before, report.score.after
        yield Card("score", f"{after:.6g}", f"from {before:.6g}")
    agreement, error = report.recovered.agreement, report.recovered.error
    if agreement is not None:
        yield Card("same top-1", f"{agreement:.2%}", share=share(agreement, 1))
    yield Card("error of the outputs", f"{error:.2%}")


def _repaired(readers: Sequence[Refitted]) -> Table | None:
    return long_table(
        "What the repair did",
        (
            Column("layer"),
            *(Column(head, True) for head in ("channels", "kept", "error before", "error after")),
        ),
        [
            (
                Cell(names=(reader.node,)),
                number(reader.channels),
                number(reader.kept, share(reader.kept, reader.channels)),
                Cell(f"{reader.error_before:.3%}", reader.error_before),
                Cell(f"{reader.error_after:.3%}", reader.error_after),
            )
            for reader in readers
        ],
        "The error of each repaired layer, as a share of the variance of what it should make.",
    )


def _front(outcomes: Sequence[Outcome]) -> Front:
    """Fidelity against measured latency, with the original."""
    rows = [each.pruned.row for each in outcomes]
    score = outcomes[0].pruned.report.score
    label, best, values = fidelity(rows, None if score is None else score.before)
    ratios = [each.pruned.report.latency[1].ratio for each in outcomes]
    front = on_front(
        [(1.0, best), *((ratio.median, y) for ratio, y in zip(ratios, values, strict=True))]
    )
    left, right, x_ticks = ticks(min(ratio.low for ratio in ratios), 1.0)
    low, high, y_ticks = ticks(min(best, *values), max(best, *values))

    def across(value: float) -> float:
        return round(100 * (value - left) / (right - left), 2)

    def along(value: float) -> float:
        return round(100 * (high - value) / (high - low), 2)

    points = [
        Point(
            "original",
            f"the original: {label} {best:.6g}",
            "",
            across(1),
            along(best),
            across(1),
            across(1),
            front[0],
        )
    ]
    for place, (outcome, ratio, y) in enumerate(zip(outcomes, ratios, values, strict=True)):
        measured = interval(outcome.pruned.report.latency[1])
        points.append(
            Point(
                label=f"{outcome.pruned.report.goal.value:g}",
                text=f"{outcome.path}: {measured}, ratio {ratio.median:.3f}; {label} {y:.4g}",
                anchor=_anchor(place),
                x=across(ratio.median),
                y=along(y),
                low=across(ratio.low),
                high=across(ratio.high),
                on_front=front[place + 1],
            )
        )
    return Front(
        title="Fidelity against latency",
        note="The line joins the models that no other beats in both respects. Ratios are measured, "
        "with their 95% intervals.",
        across="latency, share of the original",
        along=label,
        x_ticks=x_ticks,
        y_ticks=y_ticks,
        points=tuple(sorted(points, key=lambda point: point.x)),
    )


def _table(outcomes: Sequence[Outcome]) -> Table:
    rows = [each.pruned.row for each in outcomes]
    keys = {
        "latency": "latency",
        "predicted": "predicted",
        "macs": "multiply-adds",
        "params": "weights",
        "agreement": "same top-1",
        "error": "error",
        "score": "score",
    }
    there = [key for key in keys if any(row[key] is not None for row in rows)]
    return Table(
        title="Models",
        note="Shares of the original.",
        columns=(Column("model"), *(Column(keys[key], True) for key in there)),
        rows=tuple(
            (Cell(names=(each.path,)), *(_figure(key, row[key]) for key in there))
            for each, row in zip(outcomes, rows, strict=True)
        ),
    )


def _figure(key: str, value: float) -> Cell:
    texts = {"agreement": "{:.2%}", "error": "{:.2%}", "score": "{:.6g}"}
    barred = key in ("latency", "macs", "params")
    return Cell(texts.get(key, "{:.3f}").format(value), value, share(value, 1) if barred else None)
