"""The main job, and a second look at its result."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from typing import Any

import click

import onnx_upscale
from onnx_upscale import page, tables
from onnx_upscale.api import verify_with
from onnx_upscale.atomic import Content, PathLike
from onnx_upscale.cli.console import exit_statuses, show, warn
from onnx_upscale.cli.data import data_source, images
from onnx_upscale.cli.options import comparison, html, quiet, strategy, target, version
from onnx_upscale.cli.options import external_data as where_weights_go
from onnx_upscale.cli.pages import page_file
from onnx_upscale.cli.paths import check_paths
from onnx_upscale.cli.progress import progress_bar
from onnx_upscale.cli.verbose import shown_log
from onnx_upscale.errors import UsageError, VerifyError
from onnx_upscale.files import json_file, write_file, write_files
from onnx_upscale.main_job import optimize_with
from onnx_upscale.modules import module_file
from onnx_upscale.options import Options
from onnx_upscale.prices import BUILT_IN
from onnx_upscale.report import Report


@click.command()
@click.argument("model", metavar="IN.onnx")
@click.argument("masks", metavar="MASKS")
@click.argument("out", metavar="OUT.onnx")
@strategy
@target
@click.option("--tune", is_flag=True, help="Let 'auto' measure its candidates on this machine.")
@click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Run masked and emitted model side by side.",
)
@comparison
@click.option(
    "--recover",
    "recovering",
    is_flag=True,
    help="Give readers that lose channels new weights first, from --data.",
)
@click.option(
    "--data",
    metavar="SAMPLES",
    help="Inputs for --recover: .npz, .npy, a folder of images, or MODULE:FUNCTION that yields "
    "dictionaries.",
)
@images
@where_weights_go
@click.option("--report", metavar="FILE.json", help="Write what was done as JSON.")
@html
@quiet
@click.option("-v", "--verbose", is_flag=True, help="Say what was pinned and what took how long.")
@version
@exit_statuses
def optimize(
    model: str,
    masks: str,
    out: str,
    report: str | None,
    html: str | None,
    target: str,
    recovering: bool,
    external_data: str,
    data: str | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    size: int | None,
    quiet: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Remove masked channels: the same function as the masked model, less work."""
    if recovering != (data is not None):
        raise UsageError("--recover and --data: the one needs the other")
    check_paths(
        sources={
            "the input model": model,
            "the mask file": None if masks == "-" else masks,
            "the samples": data and (module_file(data) or data),
            "the profile": None if target in BUILT_IN else target,
        },
        results={"OUT": out, "--report": report, "--html": html},
    )
    try:
        samples = data_source(data, mean, std, size)
        given = Options(target=target, recover=samples, **options)
        # What the user's code prints is no result of this command.
        with (
            shown_log(verbose),
            progress_bar("Recovering") as progress,
            redirect_stdout(sys.stderr),
        ):
            result = optimize_with(model, masks, given, progress)
    except VerifyError as error:
        if error.report is not None:
            write_files(_told(error.report, report, html))
        raise
    contents, done = result.written_to(out, external_data)
    # The model last, as OUT must be as it was if anything goes wrong.
    write_files({**_told(done, report, html), **contents}, keep=result.sources)
    if not quiet:
        warn([*done.warnings, *done.verify.warnings])
        show(*tables.summary(done))


def _told(done: Report, report: str | None, html: str | None) -> dict[PathLike, Content]:
    """What to write of a report, and where."""
    contents: dict[PathLike, Content] = {}
    if report is not None:
        contents[report] = json_file(done.to_json())
    if html is not None:
        contents[html] = page_file(page.optimized_page(done))
    return contents


@click.command()
@click.argument("model", metavar="IN.onnx")
@click.argument("masks", metavar="[MASKS]", default="-")
@target
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@html
@exit_statuses
def analyze(model: str, masks: str, target: str, as_json: bool, html: str | None) -> None:
    """Show what is coupled to what, what is pinned and why, and what it costs."""
    check_paths(
        sources={
            "the input model": model,
            "the mask file": None if masks == "-" else masks,
            "the profile": None if target in BUILT_IN else target,
        },
        results={"--html": html},
    )
    analyzed = onnx_upscale.analyze(model, masks)
    warn(analyzed.warnings)
    plans = tables.plans_of(analyzed, target)
    rows = tables.analysis_rows(plans)
    if html is not None:
        write_file(html, page_file(page.analyzed_page(model, plans, analyzed.warnings)))
    if as_json:
        # The one control character that JSON leaves as it is.
        show(*json.dumps(rows, indent=2).replace("\x7f", "\\u007f").splitlines())
    else:
        show(*tables.analysis(rows))


@click.command()
@click.argument("model", metavar="IN.onnx")
@click.argument("masks", metavar="MASKS")
@click.argument("out", metavar="OUT.onnx")
@strategy
@target
@comparison
@quiet
@exit_statuses
def verify(
    model: str,
    masks: str,
    out: str,
    quiet: bool,
    **options: Any,
) -> None:
    """Check an earlier result again."""
    found = verify_with(model, masks, out, Options(**options))
    if not quiet:
        warn(found.warnings)
        show(tables.equality(found.samples, found.max_abs, found.max_rel))
