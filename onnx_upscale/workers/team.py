"""Who computes statistics: this process alone, several on this machine, or a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from onnx_upscale.errors import UsageError
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.samples import Samples, SampleSource, tickets_for
from onnx_upscale.storage import Stored

T = TypeVar("T")


class Team(Protocol):
    """Processes that hold a share of the samples each, and keep it from call to call."""

    @property
    def size(self) -> int:
        """How many there are."""

    def ask(self, function: Callable[..., T], *arguments: Any) -> Iterator[T]:
        """Calls a function in every process.

        Args:
            function: Importable by name; called with the share of the process, then the arguments.
            *arguments: The same for all; they and the results travel.

        Yields:
            The results, in the order of the shares.

        Raises:
            UpscaleError: The function raised it in one of the processes.
            WorkerError: A process ended.
        """

    def spread(self, function: Callable[..., T], items: Sequence[Any]) -> Iterator[T]:
        """Calls a function for every item, each in some process.

        Args:
            function: Importable by name; called with the share of the process, and an item.
            items: What travels there.

        Yields:
            The results, in the order of the items.

        Raises:
            UpscaleError: As for `ask`.
        """


@contextlib.contextmanager
def gather(
    source: SampleSource,
    samples: Samples,
    indices: IntArray,
    model: Stored,
    most: int,
    workers: int | None = None,
    ray: str | None = None,
    everywhere: IntArray | None = None,
) -> Iterator[Team | None]:
    """A team for some samples, as long as it is needed.

    Args:
        source: Where the samples come from.
        samples: The same, opened.
        indices: Which of them are used.
        model: The model.
        most: How many are used at most.
        workers: How many processes; None for one, on a cluster for one per CPU.
        ray: The address of a Ray cluster, or `local`; None for processes on this machine.
        everywhere: Samples that every process gets, besides knowing which are its own.

    Yields:
        The team; None where this process does all by itself.

    Raises:
        UsageError: There cannot be so many workers, or there is no such cluster.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"`workers` {workers}: must be at least 1")
    if ray is not None:
        from onnx_upscale.workers.cluster import Connection

        with Connection(ray, workers) as cluster:
            parts = cluster.workers
            yield cluster.team(
                tickets_for(source, samples, indices, model, most, parts, everywhere)
            )
    elif workers is None or workers == 1:
        yield None
    else:
        from onnx_upscale.workers.processes import Processes

        tickets = tickets_for(source, samples, indices, model, most, workers, everywhere)
        with Processes(tickets) as team:
            yield team
