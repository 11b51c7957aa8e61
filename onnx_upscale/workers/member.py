"""One process of a team, seen from inside."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from threadpoolctl import threadpool_limits

from onnx_upscale.running.session import THREADS
from onnx_upscale.samples import Ticket


class Member:
    """Takes a share and computes on it when it is asked.

    Args:
        ticket: Says which share.
        threads: How many threads onnxruntime and BLAS may use, so that the processes of one machine
            do not take each other's cores.
    """

    def __init__(self, ticket: Ticket, threads: int) -> None:
        os.environ[THREADS] = str(threads)
        threadpool_limits(threads)
        self._share = ticket.open()

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """What a function makes of the share and further arguments."""
        return function(self._share, *arguments)
