"""The command line: parses, prints, and turns errors into exit statuses."""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

# onnxruntime reports usage to its vendor unless told not to; a build tool should not.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnx_upscale
from onnx_upscale import tables
from onnx_upscale.errors import OutputError, UpscaleError, UsageError, VerifyError
from onnx_upscale.files import check_writable, same_file, write_files
from onnx_upscale.plan import STRATEGIES

_FAILED, _BAD_INPUT, _DIFFERENT = 1, 2, 3
_MAIN_JOB = "optimize"


class _MainJobFirst(click.Group):
    """A group whose main job needs no name: `onnx-upscale IN MASKS OUT`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h", "--version"):
            args = [_MAIN_JOB, *args]
        return super().parse_args(ctx, args)


def _exit_statuses(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except VerifyError as error:
            _fail(str(error), _DIFFERENT)
        except UpscaleError as error:
            _fail(str(error), _BAD_INPUT)
        except MemoryError:
            _fail("out of memory", _FAILED)

    return run


def _fail(message: str, status: int) -> None:
    line = " ".join(message.split())
    click.echo(f"onnx-upscale: error: {line}", err=True)
    sys.exit(status)


class _Sizes(click.ParamType):
    """`NAME=1x3x224x224`."""

    name = "NAME=SIZES"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, tuple[int, ...]]:
        name, equals, sizes = str(value).rpartition("=")
        if not equals or not name or not re.fullmatch(r"(\d+(x\d+)*)?", sizes):
            self.fail(f"'{value}' is not of the form NAME=1x3x224x224", param, ctx)
        return name, tuple(int(size) for size in sizes.split("x") if size)


def _options(*options: Callable[..., Any]) -> Callable[..., Any]:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_strategy = click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    default="auto",
    show_default=True,
    help="How readers that want different channels get along.",
)
_target = click.option(
    "--target",
    default="cpu",
    show_default=True,
    metavar="cpu|cuda|PROFILE.json",
    help="Whose costs 'auto' plans for.",
)
_comparison = _options(
    click.option("--samples", type=click.IntRange(1), default=2, show_default=True, help="Random inputs to compare on."),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the inputs."),
    click.option("--rtol", type=click.FloatRange(0), default=1e-4, show_default=True, help="Largest difference, as a share of the largest output."),
    click.option("--atol", type=click.FloatRange(0), default=1e-6, show_default=True, help="Largest difference in addition."),
    click.option("--input", "inputs", type=_Sizes(), multiple=True, help="Sizes for symbolic dimensions; repeatable."),
)  # fmt: skip
_volume = _options(
    click.option("-q", "--quiet", is_flag=True, help="Print errors only."),
    click.option("-v", "--verbose", is_flag=True, help="Say what was pinned, and what every stage took."),
)  # fmt: skip


@click.group(cls=_MainJobFirst, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(onnx_upscale.__version__, prog_name="onnx-upscale")
def main() -> None:
    """Channel pruning for ONNX: masks in, an equal and faster model out.

    The main job needs no name: onnx-upscale IN.onnx MASKS OUT.onnx. MASKS is a .json or .npz file, or '-' to use
    only the zeros that the weights already contain.
    """


@main.command(_MAIN_JOB)
@click.argument("model", metavar="IN.onnx")
@click.argument("masks", metavar="MASKS")
@click.argument("out", metavar="OUT.onnx")
@_strategy
@_target
@click.option("--tune", is_flag=True, help="Let 'auto' measure its candidates on this machine.")
@click.option("--verify/--no-verify", default=True, show_default=True, help="Run masked and emitted model side by side.")  # fmt: skip
@_comparison
@click.option("--report", metavar="FILE.json", help="Write what was done as JSON.")
@_volume
@_exit_statuses
def optimize(
    model: str,
    masks: str,
    out: str,
    report: str | None,
    inputs: tuple[tuple[str, tuple[int, ...]], ...],
    quiet: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Remove masked channels: the same function as the masked model, less work."""
    _check_paths(model, masks, out, report)
    try:
        result = onnx_upscale.optimize(model, masks, inputs=_sizes(inputs), **options)
    except VerifyError as error:
        if report is not None and error.report:
            write_files({report: _json(error.report)})
        raise
    result.report["output"]["path"] = out
    contents: dict[str | os.PathLike[str], bytes] = {out: result.content}
    if report is not None:
        contents[report] = _json(result.report)
    write_files(contents)
    for warning in result.report["verify"].get("warnings", ()):
        click.echo(f"onnx-upscale: warning: {warning}", err=True)
    if verbose:
        click.echo(tables.details(result.report), err=True)
    if not quiet:
        click.echo(tables.summary(result.report))


@main.command()
@click.argument("model", metavar="IN.onnx")
@click.argument("masks", metavar="[MASKS]", default="-")
@_target
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@_exit_statuses
def analyze(model: str, masks: str, target: str, as_json: bool) -> None:
    """Show what is coupled to what, what is pinned and why, and what it costs."""
    analyzed = onnx_upscale.analyze(model, masks)
    rows = tables.analysis_rows(analyzed, target)
    click.echo(json.dumps(rows, indent=2) if as_json else tables.analysis(rows))


@main.command()
@click.argument("model", metavar="IN.onnx")
@click.argument("masks", metavar="MASKS")
@click.argument("out", metavar="OUT.onnx")
@_strategy
@_comparison
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@_exit_statuses
def verify(
    model: str,
    masks: str,
    out: str,
    inputs: tuple[tuple[str, tuple[int, ...]], ...],
    quiet: bool,
    **options: Any,
) -> None:
    """Check an earlier result again."""
    found = onnx_upscale.verify(model, masks, out, inputs=_sizes(inputs), **options)
    for warning in found.warnings:
        click.echo(f"onnx-upscale: warning: {warning}", err=True)
    if not quiet:
        click.echo(tables.equality(found.samples, found.max_abs, found.max_rel))


def _sizes(inputs: tuple[tuple[str, tuple[int, ...]], ...]) -> dict[str, tuple[int, ...]]:
    sizes = dict(inputs)
    if len(sizes) < len(inputs):
        raise UsageError("--input: the same input is given twice")
    return sizes


def _check_paths(model: str, masks: str, out: str, report: str | None) -> None:
    sources = {"the input model": model} | ({"the mask file": masks} if masks != "-" else {})
    results = {"OUT": out} | ({"--report": report} if report is not None else {})
    for option, path in results.items():
        for name, source in sources.items():
            if same_file(path, source):
                raise UsageError(f"{option} {path}: is {name}, which would be lost: choose another")
    if report is not None and same_file(out, report):
        raise OutputError(f"--report {report}: is OUT as well: choose another")
    for path in results.values():
        if Path(model).exists():
            check_writable(path)


def _json(report: dict[str, Any]) -> bytes:
    return (json.dumps(report, indent=2, allow_nan=False) + "\n").encode()
