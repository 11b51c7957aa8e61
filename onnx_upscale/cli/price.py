"""Measure what work costs on this machine."""

from __future__ import annotations

import click

import onnx_upscale
from onnx_upscale.choices import PRECISIONS, PRICED
from onnx_upscale.cli.command import command
from onnx_upscale.cli.options import PATH
from onnx_upscale.cli.outcome import Outcome, reporting
from onnx_upscale.cli.paths import check_paths
from onnx_upscale.cli.progress import progress_bar
from onnx_upscale.text import Line, Table


@command()
@click.argument("profile", metavar="PROFILE.json", type=PATH)
@click.option(
    "--provider",
    type=click.Choice(PRICED),
    default="cpu",
    show_default=True,
    help="What of onnxruntime's to measure.",
)
@click.option(
    "--threads",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Threads inside an operator; 0 leaves their number to onnxruntime.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="float32",
    show_default=True,
    help="The type of real numbers; float16 with CUDA alone.",
)
@reporting
def price(profile: str, provider: str, threads: int, precision: str) -> Outcome:
    """Measure what layers, copies and other nodes cost on this machine, for use as --target."""
    check_paths(sources={"none": None}, results={"PROFILE.json": profile})
    with progress_bar("measuring") as progress:
        priced = onnx_upscale.price(
            provider=provider, threads=threads, precision=precision, progress=progress
        )
    priced.save(profile)
    rows = [["kernels", "held out", "median error", "90th percentile"]]
    for family, errors in priced.errors.items():
        found = (f"{errors.median:.1%}", f"{errors.ninetieth:.1%}")
        rows.append([family, str(errors.shapes), *found])
    lines: list[Line] = [f"{profile}: {priced.prices.name}", Table(rows)]
    return Outcome(priced.report(profile), lines)
