"""What runs of a model show of its shapes, where nothing else tells them.

A run is a witness for the sizes it was run at, and not for others. So the model runs twice, with
every size that is open chosen anew, or with other values where none is open. What stays the same
both times is a number; what follows the size of a single input is that size; everything else stays
open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from onnx_upscale.declared import Shape, shape_of
from onnx_upscale.errors import VerifySetupError
from onnx_upscale.optimizer.load.polynomials import polynomial
from onnx_upscale.running import Session, input_sizes, model_inputs, run_on_random

Sizes = Mapping[str, tuple[int, ...]]
"""A shape for each input."""

_MORE_IMAGES, _MORE_PIXELS, _MORE_STEPS = 1, 64, 8
_PIXELS = 32
"""An axis from which on it is taken for a side of an image, of which models want whole patches."""


@dataclass(frozen=True)
class Run:
    """What one run showed.

    Attributes:
        names: The sizes that the names in the shapes of the inputs stood for.
        shapes: The shapes of the tensors that were asked about.
    """

    names: Mapping[str, int]
    shapes: Sizes


@dataclass(frozen=True)
class Witness:
    """Two runs.

    Attributes:
        runs: The runs.
        types: Element types (`TensorProto.DataType`) of the tensors that were asked about.
        complete: Whether every size of the inputs that is open differed between them.
    """

    runs: tuple[Run, Run]
    types: Mapping[str, int]
    complete: bool

    def shape(self, tensor: str) -> Shape | None:
        """What both runs show of the shape of a tensor."""
        one, other = (run.shapes.get(tensor) for run in self.runs)
        if one is None or other is None or len(one) != len(other):
            return None
        return tuple(map(self._size, one, other))

    def _size(self, one: int, other: int) -> int | str | None:
        if one == other:
            return one if self.complete else None
        first, second = (run.names for run in self.runs)
        named = [name for name in first if (first[name], second[name]) == (one, other)]
        return named[0] if len(named) == 1 else None

    def contradicts(self, tensor: str, shape: Shape) -> bool:
        """Whether a shape is not what one of the runs shows."""
        for run in self.runs:
            seen = run.shapes.get(tensor)
            if seen is None:
                continue
            claimed = [None if size is None else polynomial(size).at(run.names) for size in shape]
            if len(seen) != len(shape) or any(
                size not in (None, real) for size, real in zip(claimed, seen, strict=True)
            ):
                return True
        return False


def observe(model: onnx.ModelProto, tensors: Sequence[str], sizes: Sizes | None) -> Witness | None:
    """Runs a model at two sizes.

    Args:
        model: The model.
        tensors: Tensors whose shapes are wanted.
        sizes: Sizes that the user gave for some inputs, at which it runs the first time.

    Returns:
        What was seen, or None where the model does not run on inputs that are made up.
    """
    try:
        base = input_sizes(model, sizes)
        probe = _Probe(model, tensors)
        first = probe.run(base, seed=0)
    except VerifySetupError:
        return None
    for steps in ((_MORE_IMAGES, _MORE_PIXELS, _MORE_STEPS), (_MORE_IMAGES, 0, 0), (0, 0, 0)):
        other, complete = _grown(model, base, steps)
        try:
            return Witness((first, probe.run(other, seed=1)), probe.types, complete)
        except VerifySetupError:  # The model may want the very sizes that it was made for.
            continue
    return None


def shapes_at(model: onnx.ModelProto, tensors: Sequence[str], sizes: Sizes) -> Sizes:
    """Shapes of some tensors in one run on random inputs of given sizes.

    Args:
        model: The model.
        tensors: The tensors.
        sizes: A shape for each input.

    Returns:
        The shapes by name; none where the model does not run so.
    """
    try:
        return _Probe(model, tensors).run(sizes, seed=0).shapes
    except VerifySetupError:
        return {}


class _Probe:
    """A model that gives the shapes of some of its tensors."""

    def __init__(self, model: onnx.ModelProto, tensors: Iterable[str]) -> None:
        self._model = model
        probe = onnx.ModelProto()
        probe.CopyFrom(model)
        outputs = {value.name for value in model.graph.output}
        added = [name for name in dict.fromkeys(tensors) if name not in outputs]
        probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in added)
        self._session = Session(probe, optimized=False)
        kinds = self._session.output_types  # Sequences and the like have no shape.
        self._asked = [name for name in dict.fromkeys(tensors) if name in kinds]
        self.types = {name: helper.np_dtype_to_tensor_dtype(kinds[name]) for name in self._asked}

    def run(self, sizes: Sizes, seed: int) -> Run:
        _, (found,) = run_on_random(
            lambda values: self._session.run(values, self._asked), self._model, sizes, [seed]
        )
        names = {
            dim: size
            for value in model_inputs(self._model)
            for dim, size in zip(shape_of(value), sizes[value.name], strict=False)
            if isinstance(dim, str)
        }
        return Run(names, {name: np.shape(value) for name, value in found.items()})


def _grown(
    model: onnx.ModelProto, base: Sizes, steps: tuple[int, int, int]
) -> tuple[dict[str, tuple[int, ...]], bool]:
    """Other sizes for what is open, and whether all of that differs."""
    images, pixels, others = steps
    named: dict[str, int] = {}
    grown, complete = {}, True
    for value in model_inputs(model):
        sizes = list(base[value.name])
        declared = shape_of(value) or (None,) * len(sizes)
        for axis, dim in enumerate(declared):
            if isinstance(dim, int):
                continue
            step = images if axis == 0 else pixels if sizes[axis] >= _PIXELS else others
            size = named.get(dim or "", sizes[axis] + step)
            complete &= size != sizes[axis]
            if dim:
                named[dim] = size
            sizes[axis] = size
        grown[value.name] = tuple(sizes)
    return grown, complete
