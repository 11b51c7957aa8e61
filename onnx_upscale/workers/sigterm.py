"""What SIGTERM does in this process, while Ray is in it and after."""

from __future__ import annotations

import signal
import threading


class TermHandler:
    """What SIGTERM does now, to be set again once Ray has changed it.

    Ray sets a handler from Python and another below, of which Python knows nothing. When it shuts
    down, it has the system's default below, and Python still takes the first to be in force: from
    then on SIGTERM kills, whatever `signal.getsignal` says.
    """

    def __init__(self) -> None:
        in_main = threading.current_thread() is threading.main_thread()  # Others cannot set any.
        self._before = signal.getsignal(signal.SIGTERM) if in_main else None

    def set_beside_ray(self) -> None:
        """Sets it again while Ray runs; where nobody had set any, Ray's is better than none."""
        if self._before is not signal.SIG_DFL:
            self.set_again()

    def set_again(self) -> None:
        """Sets it again."""
        if self._before is not None:  # Or something other than Python has set it.
            signal.signal(signal.SIGTERM, self._before)
