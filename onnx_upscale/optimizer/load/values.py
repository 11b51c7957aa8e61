"""Constant tensors of a graph, decoded when asked for and remembered."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property

import onnx

from onnx_upscale.mapped import array_of, place_of
from onnx_upscale.optimizer.load.folding import Array, OperatorSets, fold, may_fold
from onnx_upscale.optimizer.load.products import layers_on_constants

__all__ = ["Array", "Constants"]

# A folded value may have as many elements as all that the model stores, or these few.
_FLOOR = 1 << 22
# All of them together as many as that times this: a stored weight may pass through some nodes.
_TIMES = 16
_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")


class Constants(Mapping[str, Array]):
    """Tensors with a known value: initializers, Constant nodes, and what nodes make of these alone.

    A tensor is in this mapping if its value is: asking whether it is there evaluates it. What
    cannot be evaluated, or is larger than all that the model stores, is not there, nor is what
    depends on it; nor what layers make of constants (`products`), for masks may change it.

    Args:
        initializers: Initializer tensors by name (those a caller may override are left out).
        producers: The node that makes each tensor, in topological order.
        opset_imports: The model's operator sets, to evaluate nodes in the right version.
    """

    def __init__(
        self,
        initializers: Mapping[str, onnx.TensorProto],
        producers: Mapping[str, onnx.NodeProto],
        opset_imports: OperatorSets,
    ) -> None:
        self._initializers = initializers
        self._mapped = {n for n, each in initializers.items() if place_of(each) is not None}
        self._producers = producers
        self._opset_imports = opset_imports
        self._candidates = self._find_candidates(frozenset())
        layers = layers_on_constants(initializers, producers, self._candidates)
        if layers:
            self._candidates = self._find_candidates(layers)
        self._settled: dict[str, Array | None] = {}
        self._made = 0

    @cached_property
    def _largest(self) -> int:
        """Elements that a folded value may have."""
        nodes = self._producers.values()
        in_nodes = [a.t for node in nodes for a in node.attribute if a.HasField("t")]
        stored = sum(_elements(tensor) for tensor in (*self._initializers.values(), *in_nodes))
        return max(_FLOOR, stored)

    def _find_candidates(self, without: Collection[str]) -> set[str]:
        """Names that follow from constants alone; only folding shows whether they have a value."""
        found = set(self._initializers)
        for output, node in self._producers.items():
            known = all(not name or name in found for name in node.input)
            if known and may_fold(node) and output not in without:
                found.add(output)
        return found

    def is_initializer(self, name: str) -> bool:
        """Whether the tensor is stored in the model as an initializer."""
        return name in self._initializers

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._value(name) is not None

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._candidates if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, name: str) -> Array:
        value = self._value(name)
        if value is None:
            raise KeyError(name)
        return value

    def _value(self, name: str) -> Array | None:
        if name not in self._candidates:
            return None
        if name in self._mapped:  # It is not remembered, so that it goes when nobody looks at it.
            return array_of(self._initializers[name])
        # No recursion: a chain of nodes may be longer than Python's stack is deep.
        waiting = [name]
        while waiting:
            current = waiting[-1]
            if current in self._settled:
                waiting.pop()
            elif current in self._initializers:
                self._settled[current] = array_of(self._initializers[current])
            else:
                node = self._producers[current]
                before = [each for each in node.input if each and each not in self._settled]
                waiting += before
                if not before:
                    self._settle(node)
        return self._settled[name]

    def _settle(self, node: onnx.NodeProto) -> None:
        inputs = {name: self._settled[name] for name in node.input if name}
        known = {name: value for name, value in inputs.items() if value is not None}
        made = None
        if len(known) == len(inputs):
            left = _TIMES * self._largest - self._made
            made = fold(node, known, self._opset_imports, min(self._largest, left))
        self._settled.update({**dict.fromkeys(node.output), **(made or {})})
        if made and node.op_type != "ConstantOfShape":
            self._made += sum(value.size for value in made.values())


def _elements(tensor: onnx.TensorProto) -> int:
    """How many elements a tensor holds; its dimensions alone may promise more than is there."""
    if place_of(tensor) is not None:
        return math.prod(tensor.dims)
    # The smallest types pack four elements into a byte.
    held = 4 * (len(tensor.raw_data) + sum(len(getattr(tensor, field)) for field in _FIELDS))
    return min(math.prod(tensor.dims), held)
