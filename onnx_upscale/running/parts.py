"""A model cut into runs of nodes, each of which needs only some of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper
from onnx.helper import np_dtype_to_tensor_dtype

from onnx_upscale.mapped import place_of

Values: TypeAlias = "npt.NDArray[Any]"

MOST = 1 << 28
"""Bytes of mapped weights that one part may have; a session takes about twice as much."""


class NoTensorError(Exception):
    """What one part would have to pass to another is a sequence, a map or an optional."""


@dataclass(frozen=True)
class Part:
    """Some nodes of a model, in their order.

    Attributes:
        nodes: The nodes.
        reads: Names that they read, in subgraphs as well; those made in the part are among them.
        gives: What they make that later parts read, or that is an output of the model.
    """

    nodes: Sequence[onnx.NodeProto]
    reads: frozenset[str]
    gives: tuple[str, ...]


def mapped_bytes(model: onnx.ModelProto) -> int:
    """How much of the weights of a model is mapped."""
    places = map(place_of, model.graph.initializer)
    return sum(place.length for place in places if place is not None)


def parts_of(model: onnx.ModelProto, most: int) -> list[Part] | None:
    """Cuts a model.

    Args:
        model: A model whose nodes are in topological order.
        most: Bytes of mapped weights that a part should have at most.

    Returns:
        Its parts in the order in which they run, or None where it has something that parts have
        no place for.
    """
    graph = model.graph
    made = {name for node in graph.node for name in node.output}
    if graph.sparse_initializer or not made.issuperset(value.name for value in graph.output):
        return None
    places = {tensor.name: place_of(tensor) for tensor in graph.initializer}
    sizes = {name: place.length for name, place in places.items() if place is not None}
    groups: list[tuple[list[onnx.NodeProto], set[str]]] = [([], set())]
    for node in graph.node:
        reads = set(names_read(node))
        nodes, seen = groups[-1]
        if nodes and sum(sizes.get(name, 0) for name in seen | reads) > most:
            groups.append(([], set()))
            nodes, seen = groups[-1]
        nodes.append(node)
        seen |= reads
    wanted = {value.name for value in graph.output}
    parts: list[Part] = []
    for nodes, seen in reversed(groups):
        gives = [name for node in nodes for name in node.output if name in wanted]
        parts.append(Part(nodes, frozenset(seen), tuple(gives)))
        wanted |= seen
    return parts[::-1]


def part_model(model: onnx.ModelProto, part: Part, types: Mapping[str, int]) -> onnx.ModelProto:
    """A part as a model of its own.

    Args:
        model: The whole.
        part: The part.
        types: Element types (`TensorProto.DataType`) of what earlier parts give.
    """
    own = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    own.functions.extend(model.functions)
    graph = own.graph
    graph.name = model.graph.name or "graph"
    graph.node.extend(part.nodes)
    graph.initializer.extend(t for t in model.graph.initializer if t.name in part.reads)
    graph.input.extend(value for value in model.graph.input if value.name in part.reads)
    graph.input.extend(
        helper.make_tensor_value_info(name, kind, None)
        for name, kind in types.items()
        if name in part.reads
    )
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in part.gives)
    return own


def names_read(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, and what its bodies do."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            yield from (value.name for value in graph.output)
            for inner in graph.node:
                yield from names_read(inner)


class Loaded(Protocol):
    """A part that onnxruntime has loaded."""

    @property
    def output_types(self) -> Mapping[str, np.dtype[Any]]:
        """Element types of what it gives."""

    def run(self, inputs: Mapping[str, Values]) -> Mapping[str, Values]:
        """What it gives."""


class InParts:
    """A model that runs part by part, so that few of its weights are in memory at any time.

    Args:
        model: The model.
        parts: Its parts.
        load: Loads one of them.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        parts: Sequence[Part],
        load: Callable[[onnx.ModelProto], Loaded],
    ) -> None:
        self._model, self._load = model, load
        self._parts = [part for part in parts if part.gives]
        self._types: dict[str, np.dtype[Any]] = {}

    def _loaded(self) -> Iterator[Loaded]:
        kinds: dict[str, int] = {}
        for part in self._parts:
            loaded = self._load(part_model(self._model, part, kinds))
            types = loaded.output_types
            odd = set(part.gives) - set(types)
            if odd:
                raise NoTensorError(min(odd))
            self._types.update(types)
            kinds.update({name: np_dtype_to_tensor_dtype(kind) for name, kind in types.items()})
            yield loaded
            del loaded  # Before the next one takes its memory.

    @property
    def output_types(self) -> dict[str, np.dtype[Any]]:
        """The element type of each output."""
        names = [value.name for value in self._model.graph.output]
        if not self._types:
            for _ in self._loaded():
                pass
        return {name: self._types[name] for name in names}

    def run(self, inputs: Mapping[str, Values]) -> dict[str, Values]:
        """Runs the model.

        Args:
            inputs: A value for each input.

        Returns:
            Its outputs, and what the parts gave each other.

        Raises:
            NoTensorError: It has to be run as a whole.
            VerifySetupError: A part cannot be loaded or run.
        """
        values = dict(inputs)
        loading = self._loaded()
        for part in self._parts:
            loaded = next(loading)
            read = {name: value for name, value in values.items() if name in part.reads}
            values.update(loaded.run(read))
            del loaded
        return values
