"""The command line: parses, prints, and turns errors into exit statuses."""

from __future__ import annotations

import functools
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import click

# onnxruntime reports usage to its vendor unless told not to; a build tool should not.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnx_upscale
from onnx_upscale import tables
from onnx_upscale.errors import UpscaleError, UsageError, VerifyError
from onnx_upscale.files import check_writable, same_file, write_files
from onnx_upscale.plan import STRATEGIES
from onnx_upscale.plan.profile import BUILT_IN
from onnx_upscale.verify import Tolerance

_FAILED, _BAD_INPUT, _DIFFERENT = 1, 2, 3
_MAIN_JOB = "optimize"
_OURS = {"prog_name": "onnx-upscale", "standalone_mode": False}


class _MainJobFirst(click.Group):
    """A group whose main job needs no name: `onnx-upscale IN MASKS OUT`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, "--help", "-h", "--version"):
            args = [_MAIN_JOB, *args]
        return super().parse_args(ctx, args)

    def main(self, *args: Any, **extra: Any) -> Any:
        """Runs the command line; what click would say in several lines is said in one."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # File names are not always text.
                stream.reconfigure(errors="backslashreplace")
        try:
            status = super().main(*args, **{**extra, **_OURS})
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "onnx-upscale"
            _fail(f"{error.format_message().rstrip('.')} (see '{command} --help')", _BAD_INPUT)
        except click.ClickException as error:
            _fail(error.format_message(), error.exit_code)
        except click.Abort:
            _fail("interrupted", _FAILED)
        sys.exit(status)


def _exit_statuses(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except VerifyError as error:
            _fail(str(error), _DIFFERENT)
        except UpscaleError as error:
            _fail(str(error), _BAD_INPUT)
        except KeyboardInterrupt:
            _fail("interrupted", _FAILED)
        except MemoryError:
            _fail("out of memory", _FAILED)
        except Exception as error:
            if kwargs.get("verbose"):
                raise
            what = f"{type(error).__name__}: {error}"
            _fail(f"internal error, please report it with what -v shows: {what}", _FAILED)

    return run


def _fail(message: str, status: int) -> NoReturn:
    _say("error", message)
    sys.exit(status)


def _say(kind: str, message: str) -> None:
    line = " ".join(message.split())
    _show(f"onnx-upscale: {kind}: {line}", err=True)


def _show(text: str, err: bool = False) -> None:
    """Prints; that nobody reads it (any more) is no failure, for by now the work is done."""
    try:
        click.echo(text, err=err)
    except OSError as error:
        # What is left in the buffer must not fail either, when Python flushes it at its end.
        stream = sys.stderr if err else sys.stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not err and not isinstance(error, BrokenPipeError):
            _say("warning", f"standard output cannot be written: {error.strerror}")


def _sizes(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, tuple[int, ...]]:
    """Shapes by input name, from `NAME=1x3x224x224`; a scalar has no sizes."""
    sizes: dict[str, tuple[int, ...]] = {}
    for value in values:
        name, _, shape = value.rpartition("=")
        if not name or not re.fullmatch(r"([0-9]{1,18}(x[0-9]{1,18})*)?", shape):
            raise click.BadParameter(f"'{value}' is not of the form NAME=1x3x224x224")
        if name in sizes:
            raise click.BadParameter(f"'{name}' is given twice")
        sizes[name] = tuple(int(size) for size in shape.split("x") if size)
    return sizes


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
    click.option(
        "--samples",
        type=click.IntRange(1),
        default=2,
        show_default=True,
        help="Random inputs to compare on.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Seed of the inputs.",
    ),
    click.option(
        "--rtol",
        type=float,
        default=Tolerance.rtol,
        show_default=True,
        help="Largest difference, as a share of the largest output.",
    ),
    click.option(
        "--atol",
        type=float,
        default=Tolerance.atol,
        show_default=True,
        help="Largest difference in addition.",
    ),
    click.option(
        "--input",
        "inputs",
        metavar="NAME=1x3x224x224",
        multiple=True,
        callback=_sizes,
        help="Sizes for symbolic dimensions; repeatable.",
    ),
)
_quiet = click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
_version = click.version_option(onnx_upscale.__version__, prog_name="onnx-upscale")


@click.group(cls=_MainJobFirst, context_settings={"help_option_names": ["-h", "--help"]})
@_version
def main() -> None:
    """Channel pruning for ONNX: masks in, an equal and faster model out.

    The main job needs no name: onnx-upscale IN.onnx MASKS OUT.onnx. MASKS is a .json or .npz file,
    or '-' to use only the zeros that the weights already contain. Its options: onnx-upscale
    optimize --help.
    """


@main.command(_MAIN_JOB)
@click.argument("model", metavar="IN.onnx")
@click.argument("masks", metavar="MASKS")
@click.argument("out", metavar="OUT.onnx")
@_strategy
@_target
@click.option("--tune", is_flag=True, help="Let 'auto' measure its candidates on this machine.")
@click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Run masked and emitted model side by side.",
)
@_comparison
@click.option("--report", metavar="FILE.json", help="Write what was done as JSON.")
@_quiet
@click.option("-v", "--verbose", is_flag=True, help="Say what was pinned and what took how long.")
@_version
@_exit_statuses
def optimize(
    model: str,
    masks: str,
    out: str,
    report: str | None,
    target: str,
    quiet: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Remove masked channels: the same function as the masked model, less work."""
    _check_paths(model, masks, out, report, target)
    try:
        result = onnx_upscale.optimize(model, masks, target=target, **options)
    except VerifyError as error:
        if report is not None and error.report:
            write_files({report: _json(error.report)})
        raise
    result.report["output"]["path"] = out
    contents = {out: result.content}
    if report is not None:  # First, as OUT must be as it was if anything goes wrong.
        contents = {report: _json(result.report)} | contents
    write_files(contents)
    if verbose:
        _show(tables.details(result.report), err=True)
    if not quiet:
        _warn(result.report["verify"].get("warnings", ()))
        _show(tables.summary(result.report))


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
    _show(json.dumps(rows, indent=2) if as_json else tables.analysis(rows))


@main.command()
@click.argument("model", metavar="IN.onnx")
@click.argument("masks", metavar="MASKS")
@click.argument("out", metavar="OUT.onnx")
@_strategy
@_comparison
@_quiet
@_exit_statuses
def verify(
    model: str,
    masks: str,
    out: str,
    quiet: bool,
    **options: Any,
) -> None:
    """Check an earlier result again."""
    found = onnx_upscale.verify(model, masks, out, **options)
    if not quiet:
        _warn(found.warnings)
        _show(tables.equality(found.samples, found.max_abs, found.max_rel))


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        _say("warning", warning)


def _check_paths(model: str, masks: str, out: str, report: str | None, target: str) -> None:
    """Finds out before the work that no result would replace a source, or could not be written."""
    sources = {"the input model": model}
    if masks != "-":
        sources["the mask file"] = masks
    if target not in BUILT_IN:
        sources["the profile"] = target
    results = {"OUT": out} | ({"--report": report} if report is not None else {})
    for option, path in results.items():
        for name, source in sources.items():
            if same_file(path, source):
                raise UsageError(f"{option} {path}: is {name}, which would be lost: choose another")
    if report is not None and same_file(out, report):
        raise UsageError(f"--report {report}: is OUT as well: choose another")
    if os.path.exists(model):  # Otherwise that is the first thing to say.
        for path in results.values():
            check_writable(path)


def _json(report: dict[str, Any]) -> bytes:
    return (json.dumps(report, indent=2, allow_nan=False) + "\n").encode()
