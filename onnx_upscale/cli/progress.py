"""Progress bars for what takes long."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from onnx_upscale.words import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_PATIENCE = 1.0
_OFTEN = 0.1  # Seconds between two looks of a bar: steps may be many.


@contextlib.contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Shows bars on standard error if that is a terminal, each once it has taken a second.

    Yields:
        To be called with what is going on, how much of it is done, and of how much.
    """
    begun: dict[str, float] = {}
    tasks: dict[str, TaskID] = {}
    with contextlib.ExitStack() as stack:
        bars: Progress | None = None
        shown = 0.0

        def tell(what: str, done: int, of: int) -> None:
            nonlocal bars, shown
            now = time.monotonic()
            if not sys.stderr.isatty() or now - begun.setdefault(what, now) < _PATIENCE:
                return
            if bars is None:
                bars = stack.enter_context(_bars())
            if what not in tasks:
                tasks[what] = bars.add_task(printable(what))
            due = done >= of or now - shown > _OFTEN
            shown = now if due else shown
            bars.update(tasks[what], completed=done, total=of, refresh=due)

        yield tell


@contextlib.contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """One bar.

    Args:
        label: What is going on.

    Yields:
        To be called with how much is done, of how much.
    """
    with progress_bars() as tell:
        yield functools.partial(tell, label)


def _bars() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    # What code of the user's prints goes its own way: it is redirected already.
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    )
