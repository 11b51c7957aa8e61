"""What every command does alike: prints, and turns errors into exit statuses."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, TextIO

import click

from onnx_upscale.cli.messages import as_options
from onnx_upscale.errors import UpscaleError, VerifyError, WorkerError
from onnx_upscale.text import Line, Table, plain
from onnx_upscale.words import printable

_FAILED, BAD_INPUT, _DIFFERENT = 1, 2, 3


def exit_statuses(command: Callable[..., None]) -> Callable[..., None]:
    """Lets a command end with the exit status of the contract and one line whatever goes wrong."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except VerifyError as error:
            fail(as_options(str(error)), _DIFFERENT)
        except WorkerError as error:
            fail(as_options(str(error)))
        except UpscaleError as error:
            fail(as_options(str(error)), BAD_INPUT)
        except KeyboardInterrupt:
            fail("interrupted")
        except MemoryError:
            fail("out of memory")
        except Exception as error:  # Of ours: one line for it as well, never a page of code.
            if kwargs.get("verbose"):
                show(*traceback.format_exc().split("\n"), err=True)
            what = one_line(f"{type(error).__name__}: {error}")
            fail(f"internal error, please report it with what -v shows: {what}")

    return run


def fail(message: str, status: int = _FAILED) -> NoReturn:
    """Ends with an error message."""
    say("error", message)
    sys.exit(status)


def say(kind: str, message: str) -> None:
    """Prints a message on one line of standard error."""
    show(f"onnx-upscale: {kind}: {message}", err=True)


def one_line(text: str) -> str:
    """What others say in several lines."""
    return " ".join(text.split())


def show(*lines: Line, err: bool = False) -> None:
    """Prints lines; that nobody reads them (any more) is no failure, for by now the work is done.

    What does not show as itself is printed as its code (`printable`). Tables fit the terminal,
    and are as wide as they need be where there is none.
    """
    try:
        click.echo(_text(lines, sys.stderr if err else sys.stdout), err=err)
    except OSError as error:
        # What is left in the buffer must not fail either, when Python flushes it at its end.
        stream = sys.stderr if err else sys.stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not err and not isinstance(error, BrokenPipeError):
            say("warning", f"standard output cannot be written: {error.strerror}")


def _text(lines: Sequence[Line], stream: TextIO) -> str:
    if not stream.isatty() or not any(isinstance(line, Table) for line in lines):
        return "\n".join(map(printable, plain(lines)))
    from onnx_upscale.cli.terminal import fitted

    return fitted(lines)


def show_json(document: Mapping[str, Any]) -> None:
    """Prints a report, for programs."""
    from onnx_upscale.files import json_file

    # The one control character that JSON leaves as it is.
    show(*json_file(document).decode().replace("\x7f", "\\u007f").splitlines())


def show_markdown(lines: Iterable[Line]) -> None:
    """Prints lines as Markdown, for what shows them so."""
    from onnx_upscale.markdown import markdown

    show(*markdown(lines))


def warn(warnings: Iterable[str]) -> None:
    """Prints warnings of the library."""
    for warning in warnings:
        say("warning", as_options(warning))
