"""A progress bar for what takes long."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

_PATIENCE = 1.0


@contextlib.contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """Shows progress on standard error if that is a terminal, once a second has passed.

    Args:
        label: What is going on.

    Yields:
        To be called with how much is done, of how much.
    """
    start, bars = time.monotonic(), list[Any]()
    with contextlib.ExitStack() as stack:

        def report(done: int, of: int) -> None:
            if not sys.stderr.isatty() or time.monotonic() - start < _PATIENCE:
                return
            if not bars:
                bar = click.progressbar(length=of, label=label, file=sys.stderr)
                bars.append(stack.enter_context(bar))
            bars[0].update(done - bars[0].pos)

        yield report
