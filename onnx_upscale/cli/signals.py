"""Signals that end a process, as a chance to clean up first."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

# `docker stop` and a closed terminal; not every system has both.
_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP end what runs inside as SIGINT does: with KeyboardInterrupt.

    Those that somebody has set to something else, as `nohup` ignores SIGHUP, stay as they are.
    """
    in_main = threading.current_thread() is threading.main_thread()  # Others cannot set signals.
    ours = [each for each in _ENDING if in_main and signal.getsignal(each) is signal.SIG_DFL]

    def interrupt(*_: object) -> None:
        for each in ours:  # Often both come, and the second must not cut the cleaning short.
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    for each in ours:
        signal.signal(each, interrupt)
    try:
        yield
    finally:
        for each in ours:
            signal.signal(each, signal.SIG_DFL)
