"""Measure what work costs on this machine."""

from __future__ import annotations

import click

import onnx_upscale
from onnx_upscale.cli.console import exit_statuses, show
from onnx_upscale.cli.options import quiet, version
from onnx_upscale.cli.paths import check_paths
from onnx_upscale.cli.progress import progress_bar
from onnx_upscale.pricing import PROVIDERS
from onnx_upscale.tables import table


@click.command()
@click.argument("profile", metavar="PROFILE.json")
@click.option(
    "--provider",
    type=click.Choice(PROVIDERS),
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
@quiet
@version
@exit_statuses
def price(profile: str, provider: str, threads: int, quiet: bool) -> None:
    """Measure what layers, copies and other nodes cost on this machine, for use as --target."""
    check_paths(sources={"none": None}, results={"PROFILE.json": profile})
    with progress_bar("measuring") as progress:
        priced = onnx_upscale.price(provider=provider, threads=threads, progress=progress)
    priced.save(profile)
    if quiet:
        return
    rows = [["kernels", "held out", "median error", "90th percentile"]]
    for family, errors in priced.errors.items():
        found = (f"{errors.median:.1%}", f"{errors.ninetieth:.1%}")
        rows.append([family, str(errors.shapes), *found])
    show(f"{profile}: {priced.prices.name}", *table(rows))
