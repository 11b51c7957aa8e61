"""Signals that end a process, as a chance to clean up first."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

# Ctrl-C, `docker stop` and a closed terminal; not every system has all.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
_ENDING = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
_USUAL = (signal.SIG_DFL, signal.default_int_handler)


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP end what runs inside as SIGINT does: with KeyboardInterrupt, once.

    Those that somebody has set to something else, as `nohup` ignores SIGHUP, stay as they are.
    """
    in_main = threading.current_thread() is threading.main_thread()  # Others cannot set signals.
    before = {each: signal.getsignal(each) for each in _ENDING if in_main}
    ours = [each for each, handler in before.items() if handler in _USUAL]

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
            signal.signal(each, before[each])
