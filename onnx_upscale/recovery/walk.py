"""Running the dense model and the one under repair side by side, from level to level."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

from onnx_upscale.optimizer.load.graph import Graph
from onnx_upscale.optimizer.load.subgraphs import reads
from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.running import Session
from onnx_upscale.samples import Batch

# What a level leaves for the next one is kept in memory up to here; beyond, it is computed again.
MOST_BYTES = 1 << 29


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

    def only(self, names: Iterable[str]) -> Pair:
        """Some of the tensors."""
        dense, seen = ({name: each[name] for name in names} for each in (self.dense, self.seen))
        return Pair(self.present, dense, seen)

    @property
    def bytes(self) -> int:
        """How much memory they take."""
        return sum(v.nbytes for each in (self.dense, self.seen) for v in each.values())


class Walk:
    """Both models, run as far as the readers of one level after the other.

    Args:
        graph: The graph of the dense model.
        repaired: The model under repair.
        levels: Per tensor, how many readers to repair lie one behind the other before it; 0 for
            those that are missing.
        samples: Gives the samples, anew each time.
    """

    def __init__(
        self,
        graph: Graph,
        repaired: onnx.ModelProto,
        levels: Mapping[str, int],
        samples: Callable[[], Iterable[Batch]],
    ) -> None:
        self._graph, self._repaired, self._levels = graph, repaired, levels
        self._samples = samples
        self._inputs = frozenset(value.name for value in graph.model.graph.input)
        self._known: Collection[str] = self._inputs
        self._kept: list[Pair] | None = None

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
        ends = tuple(dict.fromkeys((*wanted, *frontier)))
        dense, seen = (
            _Part(up_to(model, ends, self._known, self._graph))
            for model in (self._graph.model, self._repaired)
        )
        kept: list[Pair] = []
        # Tensors of unknown type cannot be handed over.
        fits = all(name in self._graph.types for name in frontier)
        for pair in self._given():
            made = Pair(pair.present, dense.run(pair.dense), seen.run(pair.seen))
            yield made
            if fits:
                kept.append(made.only(frontier))
                fits = sum(each.bytes for each in kept) <= MOST_BYTES
                if not fits:
                    kept.clear()
        if fits:
            self._known, self._kept = frozenset(frontier), kept

    def _given(self) -> Iterable[Pair]:
        if self._kept is not None:
            return self._kept
        return (Pair(batch.present, batch.inputs, batch.inputs) for batch in self._samples())

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


class _Part:
    def __init__(self, model: onnx.ModelProto) -> None:
        self._reads = [value.name for value in model.graph.input]
        self._session = Session(model) if model.graph.output else None

    def run(self, given: Mapping[str, Array]) -> dict[str, Array]:
        """What was given, and what the part makes of it."""
        if self._session is None:
            return dict(given)
        own = {name: given[name] for name in self._reads if name in given}
        return {**given, **self._session.run(own)}


def up_to(
    model: onnx.ModelProto, wanted: Sequence[str], known: Collection[str], graph: Graph
) -> onnx.ModelProto:
    """The part of a model that computes some tensors from others.

    Args:
        model: The model.
        wanted: What it is to compute.
        known: What is there already; what is wanted of that is left out.
        graph: Says of which type tensors are.

    Returns:
        A new model, with what it reads of `known` as its inputs.
    """
    ends = [name for name in dict.fromkeys(wanted) if name not in known]
    needed, nodes = set(ends), []
    for node in reversed(model.graph.node):
        if any(name in needed and name not in known for name in node.output):
            nodes.append(node)
            needed.update(reads(node))
    part = onnx.ModelProto(ir_version=model.ir_version)
    part.opset_import.extend(model.opset_import)
    part.functions.extend(model.functions)
    part.graph.name = model.graph.name or "graph"
    part.graph.node.extend(reversed(nodes))
    part.graph.initializer.extend(t for t in model.graph.initializer if t.name in needed)
    part.graph.sparse_initializer.extend(model.graph.sparse_initializer)
    given = {value.name: value for value in model.graph.input}
    # Models of IR version 3 list their initializers among the inputs.
    for name in (*given, *sorted(set(known).difference(given))):
        if name in needed:
            part.graph.input.append(given.get(name) or _typed(name, graph))
    part.graph.output.extend(_typed(name, graph) for name in ends)
    return part


def _typed(name: str, graph: Graph) -> onnx.ValueInfoProto:
    kind = graph.types.get(name, onnx.TensorProto.FLOAT)
    return onnx.helper.make_tensor_value_info(name, kind, None)
