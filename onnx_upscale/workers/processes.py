"""A team of processes on this machine."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from onnx_upscale.errors import WorkerError
from onnx_upscale.samples import Ticket
from onnx_upscale.workers.member import Member

T = TypeVar("T")

_ENDED = (
    "a worker process ended before it was done: was it killed, perhaps for want of memory? fewer "
    "`workers` take less; a script that uses them must not run when it is imported"
)
# Of a worker process alone, where it is set once: what is called there has no other place.
_MEMBERS: list[Member] = []


class Processes:
    """A process per ticket, each a pool of its own, so that a share stays where it was opened.

    They are started afresh, not forked: threads of onnxruntime and BLAS do not survive that. Use as
    a context manager.

    Args:
        tickets: Of the shares, at least one.
    """

    def __init__(self, tickets: Sequence[Ticket]) -> None:
        context = multiprocessing.get_context("spawn")
        self._threads = max(1, (os.cpu_count() or 1) // len(tickets))
        self._tickets = tickets
        self._pools = [
            ProcessPoolExecutor(1, mp_context=context, initializer=_ignore_interrupts)
            for _ in tickets
        ]
        self._pids: list[int] = []

    def __enter__(self) -> Processes:
        try:
            started = [
                pool.submit(_start, ticket, self._threads)
                for pool, ticket in zip(self._pools, self._tickets, strict=True)
            ]
            self._pids = list(_results(started))
        except BaseException:  # Also when interrupted: no process stays behind.
            self._end(at_once=True)
            raise
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        self._end(at_once=kind is not None)

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self._pools)

    def ask(self, function: Callable[..., T], *arguments: Any) -> Iterator[T]:
        """Calls a function in every process, as `Team.ask`."""
        return _results([pool.submit(_call, function, arguments) for pool in self._pools])

    def spread(self, function: Callable[..., T], items: Sequence[Any]) -> Iterator[T]:
        """Calls a function for every item in some process, as `Team.spread`."""
        return _results(
            [
                pool.submit(_call, function, (item,))
                for pool, item in zip(itertools.cycle(self._pools), items, strict=False)
            ]
        )

    def _end(self, at_once: bool) -> None:
        for pid in self._pids if at_once else ():  # Whatever they compute, nobody wants it.
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGTERM)
        for pool in self._pools:
            pool.shutdown(wait=not at_once, cancel_futures=True)


def _results(futures: Sequence[Future[T]]) -> Iterator[T]:
    waiting = list(futures)
    while waiting:
        try:
            result = waiting.pop(0).result()  # Out of the list, as it may be large.
        except BrokenProcessPool:
            raise WorkerError(_ENDED) from None
        yield result


def _ignore_interrupts() -> None:
    # Ctrl-C reaches all processes of a terminal; the main one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _start(ticket: Ticket, threads: int) -> int:
    _MEMBERS[:] = [Member(ticket, threads)]
    return os.getpid()


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return _MEMBERS[0].call(function, arguments)
