"""Both models, level by level: what the readers of one level need to be repaired."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence

from onnx_upscale.activations import Shelf
from onnx_upscale.optimizer.analyze import analyze
from onnx_upscale.optimizer.load.graph import Graph, Use, build_graph
from onnx_upscale.optimizer.load.masking import mask_graph, resolve_masks
from onnx_upscale.optimizer.load.masks import Mask
from onnx_upscale.optimizer.load.model import read_model
from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.recovery.fit import Fit
from onnx_upscale.recovery.model import Repaired
from onnx_upscale.recovery.moments import Moments
from onnx_upscale.recovery.readers import find_readers
from onnx_upscale.recovery.walk import Walk
from onnx_upscale.samples import Batch, Share
from onnx_upscale.workers import Team

Seen = Sequence[Moments | None]
"""Moments per reader of a level; None where there was nothing to read."""


class Levels:
    """The model under repair, and its readers level by level. Use as a context manager.

    Args:
        graph: The graph of the dense model, seen through its masks.
        samples: Gives the samples, anew each time.
        seed: Seed of the positions that are looked at.
        strength: How much weights will be pulled to what they are.
        first: Number of the first batch.
    """

    def __init__(
        self,
        graph: Graph,
        samples: Callable[[], Iterable[Batch]],
        seed: int,
        strength: float,
        first: int = 0,
    ) -> None:
        self.found = find_readers(analyze(graph))
        self.repaired = Repaired(graph, self.found.readers)
        self._levels = self.found.by_level
        self._graph, self._seed, self._first, self._strength = graph, seed, first, strength
        self._shelf = Shelf()
        self._walk = Walk(graph, self.repaired.model, self.found.levels, samples, self._shelf)

    def __enter__(self) -> Levels:
        return self

    def __exit__(self, *exception: object) -> None:
        self._shelf.keep(())

    def __len__(self) -> int:
        """How many levels there are."""
        return len(self._levels)

    def fits(self, number: int) -> list[Fit]:
        """The readers of a level, without moments."""
        return [
            Fit.of(reader, self._graph, self.repaired, self._seed, self._strength, self._first)
            for reader in self._levels[number]
        ]

    def seen(self, number: int, tell: Callable[[int], None] = lambda present: None) -> list[Fit]:
        """The readers of a level with their moments; the levels before must be repaired.

        Args:
            number: Which level.
            tell: Called with how many samples were looked at, batch by batch.

        Raises:
            UpscaleError: The model does not run on the samples, or what it makes is not finite.
        """
        fits, readers = self.fits(number), self._levels[number]
        later = [reader.data for level in self._levels[number + 1 :] for reader in level]
        for pair in self._walk.to(readers[0].level, [reader.data for reader in readers], later):
            for fit in fits:
                fit.add(pair)
            tell(pair.present)
        return fits

    def written(self, number: int) -> dict[Use, Array]:
        """The constants of the readers of a level."""
        uses = [(reader.layer.weight, reader.bias) for reader in self._levels[number]]
        return {use: self.repaired.value(use) for both in uses for use in both if use is not None}


def begin(share: Share, masks: Sequence[Mask], seed: int, strength: float) -> None:
    """Makes a share ready for repairing a model with some masks."""
    graph = build_graph(read_model(share.model))
    graph = mask_graph(graph, resolve_masks(graph, masks))
    if "levels" in share.held:
        share.held["levels"].__exit__()
    share.held["levels"] = Levels(graph, share.batches, seed, strength, share.first)


def moments_of(share: Share, number: int, written: Mapping[Use, Array]) -> Seen:
    """The moments that a share has of a level, after the constants of the last one are written."""
    levels: Levels = share.held["levels"]
    for use, values in written.items():
        levels.repaired.write(use, values)
    return [fit.total() for fit in levels.seen(number)]


def moments_of_all(team: Team, number: int, written: Mapping[Use, Array]) -> Seen:
    """The moments of all shares together."""
    return functools.reduce(_added, team.ask(moments_of, number, dict(written)))


def _added(one: Seen, other: Seen) -> Seen:
    return [
        functools.reduce(operator.add, there) if (there := [s for s in pair if s]) else None
        for pair in zip(one, other, strict=True)
    ]
