"""The page of analyze: what is coupled, and what each strategy would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx_upscale.figures import in_bytes, in_milliseconds
from onnx_upscale.page.network import network
from onnx_upscale.page.optimized import name_of
from onnx_upscale.page.parts import Cell, Column, Page, Part, Table, number
from onnx_upscale.page.planned import layers_table, remarks, segments_table, share, stays_table
from onnx_upscale.reporting import Planned


def analyzed_page(model: str, plans: Mapping[str, Planned], warnings: Sequence[str]) -> Page:
    """What is coupled with what, and what that costs.

    Args:
        model: The path of the model.
        plans: What each strategy would do; the first is shown in full.
        warnings: What to mind.
    """
    strategy, shown = next(iter(plans.items()))
    return Page(
        kind="analyze",
        title=name_of(model),
        lines=(
            f"As strategy {strategy} would do it, for {shown.plan.prices.name}; nothing is changed",
        ),
        parts=(
            _strategies(plans),
            network(shown.layers, shown.segments),
            stays_table(shown.segments),
            segments_table(shown.segments),
            layers_table(shown.layers, shown.segments),
            remarks(warnings),
        ),
    )


def _strategies(plans: Mapping[str, Planned]) -> Part:
    seconds = {strategy: each.plan.seconds for strategy, each in plans.items()}
    copied = {strategy: each.bytes_copied for strategy, each in plans.items()}
    slowest, most = max(seconds.values()), max(copied.values())
    return Table(
        title="Strategies",
        note="The latency that is predicted of each, and what it would copy per inference.",
        columns=(
            *(Column("strategy"), Column("latency", True)),
            *(Column("copied", True), Column("layers that read a copy", True)),
        ),
        rows=tuple(
            (
                Cell(strategy),
                Cell(
                    in_milliseconds(seconds[strategy]),
                    seconds[strategy],
                    share(seconds[strategy], slowest),
                ),
                Cell(
                    in_bytes(copied[strategy]),
                    copied[strategy],
                    share(copied[strategy], most) if most else 0.0,
                ),
                number(sum(bool(r.bytes_copied) for s in each.segments for r in s.readers)),
            )
            for strategy, each in plans.items()
        ),
    )
