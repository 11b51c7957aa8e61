"""The main job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from onnx_upscale.atomic import Content, PathLike
from onnx_upscale.choices import TARGETS, TUNE_SECONDS
from onnx_upscale.cli.command import command
from onnx_upscale.cli.data import data_source, images
from onnx_upscale.cli.options import (
    PATH,
    comparison,
    files,
    html,
    is_typed,
    report_file,
    strategy,
    target,
)
from onnx_upscale.cli.options import external_data as where_weights_go
from onnx_upscale.cli.outcome import Outcome, reporting
from onnx_upscale.cli.paths import check_paths
from onnx_upscale.cli.progress import progress_bars
from onnx_upscale.errors import UsageError, VerifyError
from onnx_upscale.files import json_file, write_files
from onnx_upscale.modules import module_file
from onnx_upscale.text import plain

if TYPE_CHECKING:
    from onnx_upscale.foreseen import Foreseen
    from onnx_upscale.report import Report


@command()
@files
@strategy
@target
@click.option("--tune", is_flag=True, help="Let 'auto' measure its choices on this machine.")
@click.option(
    "--tune-seconds",
    type=float,
    default=TUNE_SECONDS,
    show_default=True,
    help="About how long --tune may take.",
)
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
    type=PATH,
    help="Inputs for --recover: .npz, .npy, a folder of images, or MODULE:FUNCTION that yields "
    "dictionaries.",
)
@images
@where_weights_go
@report_file
@html
@click.option(
    "--dry-run",
    is_flag=True,
    help="Write nothing; say what would be removed, and the settings in force.",
)
@reporting
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
    dry_run: bool,
    **options: Any,
) -> Outcome:
    """Remove masked channels: the same function as the masked model, less work."""
    from onnx_upscale import tables
    from onnx_upscale.main_job import optimize_with
    from onnx_upscale.optimizer.load.model import InPlace
    from onnx_upscale.options import Options

    if recovering != (data is not None):
        raise UsageError("--recover and --data: the one needs the other")
    if is_typed("tune_seconds") and not options["tune"]:
        raise UsageError("--tune-seconds: has no meaning without --tune")
    check_paths(
        sources={
            "the input model": model,
            "the mask file": None if masks == "-" else masks,
            "the samples": data and (module_file(data) or data),
            "the profile": None if target in TARGETS else target,
        },
        results={"OUT": out, "--report": report, "--html": html},
    )
    try:
        samples = data_source(data, mean, std, size)
        given = Options(target=target, recover=samples, **options)
        with progress_bars() as progress:
            if dry_run:
                from onnx_upscale.foreseen import foresee

                return _foreseen(foresee(model, masks, given, progress))
            result = optimize_with(InPlace(model), masks, given, progress)
    except VerifyError as error:
        if error.report is not None:
            write_files(_told(error.report, report, html))
        raise
    contents, done = result.written_to(out, external_data)
    # The model last, as OUT must be as it was if anything goes wrong.
    write_files({**_told(done, report, html), **contents}, keep=result.sources)
    return Outcome(done, tables.summary(done), [*done.warnings, *done.verify.warnings])


def _foreseen(report: Foreseen) -> Outcome:
    """What would be done as comments, and the settings in force: together a file of settings."""
    from onnx_upscale import tables
    from onnx_upscale.cli.settings import in_force, toml

    context = click.get_current_context()
    settings = in_force(context)
    found = tables.foreseen(report)
    comments = [f"# {line}".rstrip() for line in plain(found)]
    lines = [*comments, "", *toml(context.command.name or "", settings)]
    told = {**report, "settings": settings}
    return Outcome(told, lines, report.warnings, tables=found)


def _told(done: Report, report: str | None, html: str | None) -> dict[PathLike, Content]:
    """What to write of a report, and where."""
    contents: dict[PathLike, Content] = {}
    if report is not None:
        contents[report] = json_file(done.to_json())
    if html is not None:
        from onnx_upscale import page
        from onnx_upscale.cli.pages import page_file

        contents[html] = page_file(page.optimized_page(done))
    return contents
