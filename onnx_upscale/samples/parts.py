"""Samples for several processes: each takes some whole batches."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from onnx_upscale.errors import DataError, UsageError
from onnx_upscale.mapped import embedded
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.samples.arrays import Samples
from onnx_upscale.samples.batches import Batch, batches, divide
from onnx_upscale.samples.images import Images
from onnx_upscale.samples.source import SampleSource, open_source
from onnx_upscale.storage import Stored


@dataclass(frozen=True)
class Some:
    """Some samples, in memory, under the numbers that they have among all.

    Attributes:
        items: By number, arrays by input name, each with one sample along the first axis.
        count: How many samples there are in all.
        together: Whether several can be read at once.
    """

    items: Mapping[int, Mapping[str, Array]]
    count: int
    together: bool

    def at(self, indices: Sequence[int]) -> dict[str, Array]:
        """Those at some places, by input name."""
        found = [self.items[index] for index in indices]
        return {name: np.concatenate([each[name] for each in found]) for name in found[0]}

    def read(self, start: int, stop: int) -> dict[str, Array]:
        """Some of them one after the other, by input name."""
        return self.at(range(self.count)[start:stop])


@dataclass
class Share:
    """What one process holds: the model, and its part of the samples.

    Attributes:
        model: The model.
        samples: The samples.
        indices: Which of them are its own.
        first: How many batches come before them.
        held: What a function leaves here for the next one.
    """

    model: onnx.ModelProto
    samples: Samples
    indices: IntArray
    first: int = 0
    held: dict[str, Any] = field(default_factory=dict)

    def batches(self) -> Iterator[Batch]:
        """Its own samples, in order."""
        return batches(self.samples, self.indices, self.model)


@dataclass(frozen=True)
class Ticket:
    """What a process needs to take its share; it travels.

    Attributes:
        model: The model, as a file's content.
        source: A path or `Images` that the process opens by itself; or its samples.
        count: How many samples there are in all.
        most: How many are used.
        indices: Which are its own.
        first: How many batches come before them.
    """

    model: bytes
    source: str | Images | Some
    count: int
    most: int
    indices: IntArray
    first: int

    def open(self) -> Share:
        """The share.

        Raises:
            DataError: The samples cannot be read, or are others than where the ticket was made.
        """
        model = onnx.load_model_from_string(self.model)
        source = self.source
        samples = source if isinstance(source, Some) else open_source(source, model, self.most)
        if samples.count != self.count:
            raise DataError(
                f"the samples: a worker finds {samples.count} of them, the main process "
                f"{self.count}: do both see the same files?"
            )
        return Share(model, samples, self.indices, self.first)


def tickets_for(
    source: SampleSource,
    samples: Samples,
    indices: IntArray,
    model: Stored,
    most: int,
    parts: int,
    everywhere: IntArray | None = None,
) -> list[Ticket]:
    """Divides samples among processes.

    Files and folders of images are opened by each process itself. Anything else is read here, once,
    for a function or an iterator need not give the same again, and every process gets its part.

    Args:
        source: Where the samples come from.
        samples: The same, opened.
        indices: Which of them are used.
        model: The model.
        most: How many are used at most.
        parts: How many processes there are.
        everywhere: Samples that every process gets, besides knowing which are its own.

    Returns:
        At most as many tickets.

    Raises:
        UsageError: The model is too large to travel.
    """
    if model.is_large:
        raise UsageError("`workers`: models above 2 GB are looked at by one process")
    content = embedded(model.model).SerializeToString(deterministic=True)
    given: str | Images | Some | None = _described(source)
    if given is None and everywhere is not None:
        given = _some(samples, everywhere)
    return [
        Ticket(content, given or _some(samples, own), samples.count, most, own, first)
        for own, first in divide(samples, indices, model.model, parts)
    ]


def _described(source: SampleSource) -> str | Images | None:
    """What another process can open by itself."""
    if isinstance(source, Images):
        return dataclasses.replace(source, folder=os.path.abspath(source.folder))
    if isinstance(source, str | os.PathLike) and os.path.exists(source):
        return os.path.abspath(source)
    return None


def _some(samples: Samples, own: IntArray) -> Some:
    items = {int(index): samples.at([int(index)]) for index in own}
    return Some(items, samples.count, samples.together)
