"""Shapes and types of the tensors of a model, found when somebody asks for them.

In this order, and no further than it takes: what the model declares; onnx's shape inference with
data propagation; names for sizes that only a run shows, followed through shape arithmetic; what two
runs show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property

import onnx

from onnx_upscale.declared import Shape
from onnx_upscale.errors import VerifySetupError
from onnx_upscale.optimizer.load.arithmetic import Value
from onnx_upscale.optimizer.load.polynomials import polynomial
from onnx_upscale.optimizer.load.shapes import Inferred, infer, skeleton
from onnx_upscale.optimizer.load.tracing import Found, trace
from onnx_upscale.optimizer.load.witness import Sizes, Witness, observe, shapes_at
from onnx_upscale.running import input_sizes, model_inputs

__all__ = ["Sizes", "Tensors"]


class Tensors:
    """The shapes and types of a model's tensors.

    Args:
        model: The model; it must not be changed afterwards.
        sizes: Shapes of some inputs, at which the model runs if its shapes show no other way.
        runs: Whether it may run for that at all.
    """

    def __init__(self, model: onnx.ModelProto, sizes: Sizes | None, runs: bool) -> None:
        self._model, self._sizes, self._runs = model, sizes, runs

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """The shape of each tensor that has a known one."""
        return self._found.shapes

    @property
    def types(self) -> Mapping[str, int]:
        """The element type of each tensor (`TensorProto.DataType`) that has a known one."""
        return self._found.types

    @property
    def values(self) -> Mapping[str, Value]:
        """Values that follow from shapes, some entries perhaps not; constants are not here."""
        return self._found.values

    @cached_property
    def counted(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each tensor that has a known one, as work is counted.

        A size that is open is what follows from the sizes that were given, and from those that
        inputs get when nobody says (`input_sizes`), or else what one run shows at these; 1 where
        that shows nothing either.
        """
        names = self._named
        return {
            tensor: tuple(size if isinstance(size, int) else _value(size, names) for size in shape)
            for tensor, shape in self.shapes.items()
        }

    @cached_property
    def _named(self) -> Mapping[str, int]:
        """What the names in shapes stand for where work is counted."""
        given = {value.name for value in model_inputs(self._model)}
        chosen = {name: size for name, size in (self._sizes or {}).items() if name in given}
        try:
            sizes = input_sizes(self._model, chosen)
        except VerifySetupError:  # An input of no known rank.
            return {}
        found = self._bound(sizes)
        shown = dict[str, str]()
        for tensor, shape in self.shapes.items():
            if tensor not in given:
                shown.update({dim: tensor for dim in shape if isinstance(dim, str)})
        asked = [shown[dim] for dim in sorted(shown) if polynomial(dim).at(found) is None]
        if asked and self._runs:
            found = {**self._bound(shapes_at(self._model, asked, sizes)), **found}
        return found

    def _bound(self, seen: Sizes) -> dict[str, int]:
        """What the names in the shapes of some tensors stand for."""
        return {
            dim: size
            for tensor, sizes in seen.items()
            for dim, size in zip(self.shapes.get(tensor, ()), sizes, strict=False)
            if isinstance(dim, str)
        }

    @cached_property
    def _found(self) -> Found:
        inferred = infer(skeleton(self._model))
        slim, found = inferred.model, derive(inferred, self._model)
        lacking = _lacking(slim, found)
        if not lacking or not self._runs:
            return found
        reshaped = _made(slim, "Reshape")
        witness = observe(self._model, [*lacking, *reshaped], self._sizes)
        if witness is None:
            return found
        return _derive_from(witness, lacking, inferred, self._model)


def _value(size: str | None, names: Mapping[str, int]) -> int:
    if size is None:
        return 1
    value = names.get(size, polynomial(size).at(names))
    return 1 if value is None else max(value, 1)


def derive(inferred: Inferred, model: onnx.ModelProto) -> Found:
    """The shapes and types that follow from a model without running it.

    Args:
        inferred: What onnx's shape inference found.
        model: The model with its large weights.

    Returns:
        What is known.
    """
    found = _with_weights(inferred, model)
    return trace(inferred.model, _overridable(model), found) if inferred.open else found


def _with_weights(inferred: Inferred, model: onnx.ModelProto) -> Found:
    shapes, types = dict(inferred.shapes), dict(inferred.types)
    for initializer in model.graph.initializer:
        shapes[initializer.name] = tuple(initializer.dims)
        types[initializer.name] = initializer.data_type
    return Found(shapes, types)


def _derive_from(
    witness: Witness, lacking: list[str], inferred: Inferred, model: onnx.ModelProto
) -> Found:
    """Goes on from what was seen; no shape stays that a run contradicts."""
    declared = _with_weights(inferred, model)
    shapes, types = dict(declared.shapes), dict(declared.types)
    for name in lacking:
        shape = witness.shape(name)
        if shape is not None:
            shapes[name], types[name] = shape, witness.types[name]
    found = trace(inferred.model, _overridable(model), Found(shapes, types))
    agreed = {
        name: shape for name, shape in found.shapes.items() if not witness.contradicts(name, shape)
    }
    return Found(agreed, found.types, found.values)


def _lacking(slim: onnx.ModelProto, found: Found) -> list[str]:
    """Tensors that somebody reads and whose shape nothing tells."""
    read = {name for node in slim.graph.node for name in node.input}
    read |= {value.name for value in slim.graph.output}
    for value in (*slim.graph.value_info, *slim.graph.output):
        if value.HasField("type") and not value.type.HasField("tensor_type"):
            read.discard(value.name)  # Sequences and the like have no shape.
    return [name for name in _made(slim) if name in read and name not in found.shapes]


def _overridable(model: onnx.ModelProto) -> frozenset[str]:
    if model.ir_version < 4:
        return frozenset()
    return frozenset(value.name for value in model.graph.input)


def _made(model: onnx.ModelProto, operator: str = "") -> Iterator[str]:
    """What the nodes of a model make, or those of one operator."""
    for node in model.graph.node:
        if not operator or node.op_type == operator:
            yield from (name for name in node.output if name)
