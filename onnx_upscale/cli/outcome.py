"""What a command found, printed for people or for programs."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from onnx_upscale.cli.console import exit_statuses, fail, say, show, show_json, show_markdown, warn
from onnx_upscale.cli.options import PATH, options, version
from onnx_upscale.cli.verbose import shown_log
from onnx_upscale.errors import UsageError, VerifyError
from onnx_upscale.text import Line


@dataclass(frozen=True)
class Outcome:
    """What a command found.

    Attributes:
        report: For programs, as JSON has it.
        lines: For people.
        warnings: What to mind, in the words of the library.
        notes: What is worth knowing.
        failure: Why the command failed all the same, if it did.
        tables: In place of `lines` where these are laid out, if they are made for a terminal.
    """

    report: Mapping[str, Any]
    lines: Sequence[Line]
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    failure: str | None = None
    tables: Sequence[Line] | None = None


_common = options(
    click.option(
        "--config",
        type=PATH,
        metavar="FILE.toml",
        help="Take options that are not given from a file of settings.",
    ),
    click.option(
        "--json", "as_json", is_flag=True, help="Print the report as JSON in place of text."
    ),
    click.option(
        "--markdown", "as_markdown", is_flag=True, help="Print the text as Markdown, for a comment."
    ),
    click.option("-q", "--quiet", is_flag=True, help="Print errors only."),
    click.option(
        "-v",
        "--verbose",
        is_flag=True,
        help="Say what was pinned, what took how long, and where an internal error is.",
    ),
    version,
)


def reporting(command: Callable[..., Outcome]) -> Callable[..., None]:
    """Makes a command print what it gives back, and adds the options that say how.

    Results go to standard output, all else to standard error; so does what code of the user's
    prints while the command runs.
    """

    @exit_statuses
    @functools.wraps(command)
    def run(
        *,
        config: str | None,
        as_json: bool,
        as_markdown: bool,
        quiet: bool,
        verbose: bool,
        **given: Any,
    ) -> None:
        if as_json and as_markdown:
            raise UsageError("--json and --markdown: give one of them")
        try:
            with contextlib.redirect_stdout(sys.stderr), shown_log(verbose):
                outcome = command(**given)
        except VerifyError as error:
            found = error.report or error.verified
            if as_json and found is not None:
                show_json(found)
            raise
        if not quiet:
            warn(outcome.warnings)
            for note in outcome.notes:
                say("note", note)
        if as_json:
            show_json(outcome.report)
        elif as_markdown:
            show_markdown(outcome.lines if outcome.tables is None else outcome.tables)
        elif not quiet:
            show(*outcome.lines)
        if outcome.failure is not None:
            fail(outcome.failure)

    decorated: Callable[..., None] = _common(run)
    return decorated
