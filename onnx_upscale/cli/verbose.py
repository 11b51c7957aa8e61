"""What the library logs, on standard error."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from onnx_upscale.cli.console import show


class _Lines(logging.Handler):
    """Shows each message as a line, without more."""

    def emit(self, record: logging.LogRecord) -> None:
        """Shows a message."""
        show(record.getMessage(), err=True)


@contextlib.contextmanager
def shown_log(wanted: bool) -> Iterator[None]:
    """Shows what is logged inside, if that is wanted."""
    if not wanted:
        yield
        return
    from onnx_upscale.log import LOGGER

    handler, level = _Lines(), LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
