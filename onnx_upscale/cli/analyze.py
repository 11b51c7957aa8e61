"""What is coupled to what in a model."""

from __future__ import annotations

import click

import onnx_upscale
from onnx_upscale.choices import TARGETS
from onnx_upscale.cli.command import command
from onnx_upscale.cli.options import PATH, html, target
from onnx_upscale.cli.outcome import Outcome, reporting
from onnx_upscale.cli.paths import check_paths
from onnx_upscale.files import write_file


@command()
@click.argument("model", metavar="IN.onnx", type=PATH)
@click.argument("masks", metavar="[MASKS]", type=PATH, default="-")
@target
@html
@reporting
def analyze(model: str, masks: str, target: str, html: str | None) -> Outcome:
    """Show what is coupled to what, what is pinned and why, and what it costs."""
    from onnx_upscale import page, tables
    from onnx_upscale.cli.pages import page_file

    check_paths(
        sources={
            "the input model": model,
            "the mask file": None if masks == "-" else masks,
            "the profile": None if target in TARGETS else target,
        },
        results={"--html": html},
    )
    analyzed = onnx_upscale.analyze(model, masks)
    plans = tables.plans_of(analyzed, target)
    report = tables.analyze_report(model, analyzed, plans, target)
    if html is not None:
        write_file(html, page_file(page.analyzed_page(model, plans, analyzed.warnings)))
    return Outcome(report, [tables.analysis(report.segments)], analyzed.warnings)
