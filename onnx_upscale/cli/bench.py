"""Comparing models in onnxruntime."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

import onnx_upscale
from onnx_upscale.atomic import Content, PathLike
from onnx_upscale.choices import PROVIDERS
from onnx_upscale.cli.command import command
from onnx_upscale.cli.messages import as_options
from onnx_upscale.cli.options import PATH, html, inputs, report_file
from onnx_upscale.cli.outcome import Outcome, reporting
from onnx_upscale.cli.paths import check_paths
from onnx_upscale.errors import UsageError
from onnx_upscale.files import json_file, write_files
from onnx_upscale.text import Line, Table

if TYPE_CHECKING:
    from onnx_upscale.options import Sizes


@command()
@click.argument("models", metavar="A.onnx [B.onnx ...]", type=PATH, nargs=-1, required=True)
@click.option(
    "--provider",
    type=click.Choice(PROVIDERS),
    default="cpu",
    show_default=True,
    help="Where onnxruntime runs the models.",
)
@click.option(
    "--batch", type=click.IntRange(1), help="Size of a symbolic first axis.  [default: 1]"
)
@click.option(
    "--threads",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Threads inside an operator; 0 leaves it to onnxruntime.",
)
@click.option(
    "--runs",
    type=click.IntRange(1),
    default=50,
    show_default=True,
    help="How often to time each model.",
)
@inputs
@click.option("--profile", is_flag=True, help="Also show what each operator type takes.")
@click.option(
    "--memory/--no-memory",
    default=True,
    show_default=True,
    help="Measure peak memory, each model in a process of its own.",
)
@report_file
@html
@reporting
def bench(
    models: tuple[str, ...],
    provider: str,
    batch: int | None,
    threads: int,
    runs: int,
    inputs: Sizes,
    profile: bool,
    memory: bool,
    report: str | None,
    html: str | None,
) -> Outcome:
    """Compare models in onnxruntime, run in turn; ratios are to the first."""
    from onnx_upscale import page
    from onnx_upscale.benchmark.text import comparison_rows, headline, profile_rows
    from onnx_upscale.cli.pages import page_file

    for model in models:
        if model.lower().endswith(".json"):  # As --json FILE was before.
            raise UsageError(f"{model}: is no model; to write the report there, give --report")
    check_paths(
        sources={f"model {number}": model for number, model in enumerate(models, 1)},
        results={"--report": report, "--html": html},
    )
    found = onnx_upscale.bench(
        models,
        provider=provider,
        batch=batch,
        threads=threads,
        runs=runs,
        inputs=inputs,
        profile=profile,
        memory=memory,
    )
    found = replace(found, warnings=tuple(map(as_options, found.warnings)))
    contents: dict[PathLike, Content] = {}
    if report is not None:
        contents[report] = json_file(found.to_json())
    if html is not None:
        contents[html] = page_file(page.benched_page(found))
    write_files(contents)
    lines: list[Line] = [headline(found), Table(comparison_rows(found))]
    if profile:
        lines += ["", Table(profile_rows(found))]
    return Outcome(found.to_json(), lines, found.warnings)
