"""A team on a Ray cluster."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from onnx_upscale.errors import UpscaleError, UsageError, WorkerError
from onnx_upscale.samples import Ticket
from onnx_upscale.workers.member import Member
from onnx_upscale.workers.sigterm import TermHandler

T = TypeVar("T")

LOCAL = "local"
"""The address that starts a cluster on this machine."""
_PATIENCE = 5  # Seconds until somebody must have taken the call,
_LONGER = 30  # and until a cluster must have answered, or must have started workers.
_ENDED = (
    "a worker on the cluster ended before it was done: was it killed, perhaps for want of memory?"
)
_QUIET = {"log_to_driver": False, "logging_level": "ERROR"}


class Connection:
    """A Ray cluster to work on, as a context manager. One that this process is in already is used.

    Args:
        address: `local`, `auto` for the one that runs on this machine, `HOST:PORT`, or
            `ray://HOST:PORT`.
        workers: How many workers are wanted; None for one per CPU of the cluster.

    Raises:
        UsageError: Ray is not installed.
    """

    def __init__(self, address: str, workers: int | None) -> None:
        try:
            # Ray reports usage to its vendor unless told not to; a build tool should not.
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # Of the other workers.
            import ray
        except ImportError:
            raise UsageError(
                f"`ray` {address}: needs Ray: pip install 'onnx-upscale[ray]'"
            ) from None
        self._ray, self._address, self._wanted = ray, address, workers
        self._ours = False
        self.workers = 0

    def __enter__(self) -> Connection:
        ray = self._ray
        if not ray.is_initialized():
            self._handler = TermHandler()
            try:
                self._start()
            except BaseException:
                self._handler.set_again()
                raise
            self._handler.set_beside_ray()
            self._ours = True
        cpus = int(ray.cluster_resources().get("CPU", 0))
        self.workers = self._wanted or cpus
        if not 0 < self.workers <= cpus:
            self.__exit__()
            raise UsageError(f"`workers` {self.workers}: the cluster has {cpus} CPUs")
        return self

    def _start(self) -> None:
        ray, address = self._ray, self._address
        if address == LOCAL:
            ray.init(
                address="local",
                num_cpus=self._wanted or os.cpu_count(),
                include_dashboard=False,
                **_QUIET,
            )
            return
        _check_answers(address)
        try:
            ray.init(address=address, **_QUIET)
        except Exception as error:  # Whatever it raises; also where versions differ.
            raise UsageError(f"`ray` {address}: {_first_line(error)}") from None

    def __exit__(self, *exception: object) -> None:
        if self._ours:
            self._ray.shutdown()
            self._handler.set_again()

    def team(self, tickets: Sequence[Ticket]) -> Cluster:
        """A worker per ticket."""
        return Cluster(self._ray, tickets)


class Cluster:
    """A worker per ticket, somewhere on a cluster.

    Args:
        ray: The module, connected to a cluster.
        tickets: Of the shares, at least one.

    Raises:
        UpscaleError: A worker cannot take its share.
    """

    def __init__(self, ray: Any, tickets: Sequence[Ticket]) -> None:
        self._ray = ray
        actor = ray.remote(num_cpus=1)(_Actor)
        deck = ray.put(list(tickets))  # Once for all workers of a machine.
        self._actors = [actor.remote(deck, number) for number in range(len(tickets))]
        started = [each.ready.remote() for each in self._actors]
        ready, _ = ray.wait(started, num_returns=len(started), timeout=_LONGER)
        if len(ready) < len(started):
            raise WorkerError(
                f"the cluster started {len(ready)} of {len(started)} workers within {_LONGER} "
                "seconds: are its CPUs taken?"
            )
        list(self._results(started))

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self._actors)

    def ask(self, function: Callable[..., T], *arguments: Any) -> Iterator[T]:
        """Calls a function in every worker, as `Team.ask`."""
        given = self._ray.put(arguments)
        return self._results([each.call.remote(function, given) for each in self._actors])

    def spread(self, function: Callable[..., T], items: Sequence[Any]) -> Iterator[T]:
        """Calls a function for every item in some worker, as `Team.spread`."""
        workers = self._actors
        return self._results(
            [
                workers[number % len(workers)].call.remote(function, (item,))
                for number, item in enumerate(items)
            ]
        )

    def _results(self, references: Sequence[Any]) -> Iterator[Any]:
        errors, waiting = self._ray.exceptions, list(references)
        while waiting:
            try:
                result = self._ray.get(waiting.pop(0))
            except errors.RayTaskError as error:
                if isinstance(error.cause, UpscaleError):
                    raise error.cause from None
                raise
            except (errors.RayActorError, errors.RaySystemError):
                raise WorkerError(_ENDED) from None
            yield result


class _Actor:
    def __init__(self, deck: Sequence[Ticket], number: int) -> None:
        self._ticket: Ticket | None = deck[number]
        self._member: Member | None = None

    def ready(self) -> None:
        """Takes the share: here, as what a constructor raises does not arrive as it is."""
        assert self._ticket is not None
        self._member = Member(self._ticket, threads=1)
        self._ticket = None

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """What a function makes of the share and further arguments."""
        assert self._member is not None
        return self._member.call(function, arguments)


def _check_answers(address: str) -> None:
    """Finds out whether a cluster is there, for Ray itself tries for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address != "auto":
        if not host or not port.isdecimal() or int(port) > 65535:
            raise UsageError(f"`ray` {address}: give HOST:PORT, ray://HOST:PORT, auto or {LOCAL}")
        try:
            socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
        except OSError as error:
            raise UsageError(
                f"`ray` {address}: no cluster answers there: {error.strerror or error}"
            ) from None
    # Somebody else may have answered, and Ray would wait for ever: let another process try.
    code = f"import ray; ray.init(address={address!r}, log_to_driver=False)"
    try:
        tried = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=_LONGER
        )
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"`ray` {address}: what answers there is no Ray cluster: it said nothing for {_LONGER} "
            "seconds"
        ) from None
    if tried.returncode and address == "auto":
        raise UsageError(f"`ray` auto: no cluster runs on this machine; {LOCAL} starts one")
    if tried.returncode:
        lines = tried.stderr.strip().splitlines() or ["it cannot be reached"]
        raise UsageError(f"`ray` {address}: no cluster answers: {lines[-1].strip()}")


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
