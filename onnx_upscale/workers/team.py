"""Who computes statistics: this process alone, several on this machine, or a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import onnx

from onnx_upscale.errors import UsageError
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.samples import Samples, SampleSource, tickets_for

T = TypeVar("T")


class Team(Protocol):
    """Processes that hold a share of the samples each, and keep it from call to call."""

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


@contextlib.contextmanager
def gather(
    source: SampleSource,
    samples: Samples,
    indices: IntArray,
    model: onnx.ModelProto,
    most: int,
    workers: int | None = None,
) -> Iterator[Team | None]:
    """A team for some samples, as long as it is needed.

    Args:
        source: Where the samples come from.
        samples: The same, opened.
        indices: Which of them are used.
        model: The model.
        most: How many are used at most.
        workers: How many processes; None for one.

    Yields:
        The team; None where this process does all by itself.

    Raises:
        UsageError: There cannot be so many workers.
    """
    if workers is not None and workers < 1:
        raise UsageError(f"`workers` {workers}: must be at least 1")
    if workers is None or workers == 1:
        yield None
        return
    from onnx_upscale.workers.processes import Processes

    with Processes(tickets_for(source, samples, indices, model, most, workers)) as team:
        yield team
