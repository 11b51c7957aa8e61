"""Running the dense model and the one under repair side by side, from level to level."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

from onnx_upscale.activations import Shelf, up_to
from onnx_upscale.optimizer.load.graph import Graph
from onnx_upscale.optimizer.load.subgraphs import reads
from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.running import Session
from onnx_upscale.samples import Batch


@dataclass(frozen=True)
class Pair:
    """Tensors of both models on some samples.

    Attributes:
        present: How many samples; what follows only fills a batch up.
        dense: Tensors of the dense model, by name.
        seen: The same of the model under repair.
    """

    present: int
    dense: Mapping[str, Array]
    seen: Mapping[str, Array]


class Walk:
    """Both models, run as far as the readers of one level after the other.

    Args:
        graph: The graph of the dense model.
        repaired: The model under repair.
        levels: Per tensor, how many readers to repair lie one behind the other before it; 0 for
            those that are missing.
        samples: Gives the samples, anew each time.
        shelf: Where a level puts aside what the next ones go on from.
    """

    def __init__(
        self,
        graph: Graph,
        repaired: onnx.ModelProto,
        levels: Mapping[str, int],
        samples: Callable[[], Iterable[Batch]],
        shelf: Shelf,
    ) -> None:
        self._graph, self._repaired, self._levels = graph, repaired, levels
        self._samples, self._shelf = samples, shelf
        self._inputs = frozenset(value.name for value in graph.model.graph.input)
        self._known: frozenset[str] = self._inputs
        # How many samples each batch holds, once the shelf does.
        self._present: list[int] | None = None

    def to(self, level: int, wanted: Collection[str], later: Iterable[str]) -> Iterator[Pair]:
        """Runs both models up to some tensors.

        Args:
            level: The level of these tensors.
            wanted: Names of the tensors.
            later: Those that will be wanted at higher levels.

        Yields:
            The tensors, batch by batch.

        Raises:
            VerifySetupError: onnxruntime does not run a model.
        """
        frontier = self._frontier(level, later)
        shelved = self._known if self._present is not None else frozenset()
        fresh = [name for name in frontier if name not in shelved]
        ends = tuple(dict.fromkeys((*wanted, *fresh)))
        parts = [
            _Part(up_to(model, ends, self._known, self._graph), ends)
            for model in (self._graph.model, self._repaired)
        ]
        # Tensors of unknown type cannot be handed over.
        fits = all(name in self._graph.types for name in frontier)
        presents: list[int] = []
        for present, *given in self._given(parts):
            made = [part.run(each) for part, each in zip(parts, given, strict=True)]
            yield Pair(present, *made)
            presents.append(present)
            if fits:
                fits = all(
                    self._shelf.put((name, side), values[name])
                    for side, values in enumerate(made)
                    for name in fresh
                )
                if not fits:
                    self._shelf.keep(_both(shelved))
        if fits:
            self._shelf.keep(_both(frontier))
            self._known, self._present = frozenset(frontier), presents

    def _given(
        self, parts: Sequence[_Part]
    ) -> Iterator[tuple[int, Mapping[str, Array], Mapping[str, Array]]]:
        """How many samples a batch holds, and what it gives the dense and the other part."""
        if self._present is None:
            for batch in self._samples():
                yield batch.present, batch.inputs, batch.inputs
            return
        for number, present in enumerate(self._present):
            dense, seen = (
                {name: self._shelf.get((name, side), number) for name in part.reads & self._known}
                for side, part in enumerate(parts)
            )
            yield present, dense, seen

    def _frontier(self, level: int, later: Iterable[str]) -> tuple[str, ...]:
        """The last tensors on the way to later ones that the repair up to here settles."""
        graph, pending = self._graph, list(later)
        found: dict[str, None] = {}
        passed: set[str] = set()
        while pending:
            name = pending.pop()
            if name in passed or name in graph.constants:
                continue
            passed.add(name)
            producer = graph.producers.get(name)
            if self._levels.get(name, 0) > level and producer is not None:
                pending += reads(producer.proto)
            elif producer is not None or name in self._inputs:
                found[name] = None
        return tuple(found)


def _both(names: Iterable[str]) -> set[tuple[str, int]]:
    """Names of rows: a tensor of the dense model is 0, of the other one 1."""
    return {(name, side) for name in names for side in (0, 1)}


class _Part:
    """A part of a model, and which tensors it is asked for: made by it or given."""

    def __init__(self, model: onnx.ModelProto, ends: Iterable[str]) -> None:
        self._inputs = [value.name for value in model.graph.input]
        self._ends = tuple(ends)
        self._session = Session(model) if model.graph.output else None
        made = {value.name for value in model.graph.output}
        self.reads = frozenset((*self._inputs, *(name for name in ends if name not in made)))

    def run(self, given: Mapping[str, Array]) -> dict[str, Array]:
        """The tensors."""
        found = dict(given)
        if self._session is not None:
            found |= self._session.run({n: given[n] for n in self._inputs if n in given})
        return {name: found[name] for name in self._ends}
