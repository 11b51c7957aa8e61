"""Random inputs for a model, the shapes they take, and those among them that it runs on."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from onnx_upscale.declared import shape_of
from onnx_upscale.errors import UsageError, VerifySetupError

Values: TypeAlias = "dict[str, npt.NDArray[Any]]"
_Found = TypeVar("_Found")

# What a symbolic dimension is given when nobody says: a batch, an image side, a sequence.
_BATCH = 1
_IMAGE_SIDE = 224
_LENGTH = 16


class Draw(Enum):
    """How numbers are made up, the way that shows most first; whole ones are small in any."""

    NORMAL = "normal"
    UNIT = "between 0 and 1"


def model_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs a caller must give: those that no initializer stands for."""
    given = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in given]


def input_sizes(
    model: onnx.ModelProto,
    sizes: Mapping[str, tuple[int, ...]] | None = None,
    batch: int | None = None,
) -> dict[str, tuple[int, ...]]:
    """A shape for every input.

    Args:
        model: The model.
        sizes: Shapes that the caller chose, by input name.
        batch: Size of the first axis of inputs where it is symbolic; None means 1.

    Returns:
        Shapes by input name; dimensions of the same name get the same size.

    Raises:
        UsageError: A chosen shape names no input or does not fit it, or no input takes the batch.
        VerifySetupError: An input has no known rank.
    """
    chosen = {name: _chosen(name, shape) for name, shape in (sizes or {}).items()}
    inputs = model_inputs(model)
    unknown = chosen.keys() - {value.name for value in inputs}
    if unknown:
        names = ", ".join(value.name for value in inputs)
        raise UsageError(f"`inputs` {min(unknown)}: the model has no such input (it has: {names})")
    named: dict[str, int] = {}
    for value in inputs:
        if value.name in chosen:
            _bind(value, chosen[value.name], named)
    shapes = {
        value.name: chosen.get(value.name) or _default(value, named, batch or _BATCH)
        for value in inputs
    }
    if batch is not None and not any(shape[:1] == (batch,) for shape in shapes.values()):
        found = ", ".join(f"'{name}' is {_text(shape)}" for name, shape in shapes.items())
        raise UsageError(
            f"`batch` {batch}: no input has a first axis of that size ({found or 'no inputs'}): "
            "export the model with a symbolic batch, or leave the option out"
        )
    return shapes


def _chosen(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """A shape that a caller chose, whatever kind of numbers it holds."""
    try:
        sizes = tuple(map(operator.index, shape))
    except TypeError:
        raise UsageError(f"`inputs` {name}: expected sizes, found {shape!r}") from None
    if min(sizes, default=0) < 0:
        raise UsageError(f"`inputs` {name}={_text(sizes)}: sizes must be at least 0")
    return sizes


def _bind(value: onnx.ValueInfoProto, sizes: tuple[int, ...], named: dict[str, int]) -> None:
    if not value.type.tensor_type.HasField("shape"):
        return
    declared = shape_of(value)
    fits = len(declared) == len(sizes)
    for dim, size in zip(declared, sizes, strict=False):
        if isinstance(dim, int):
            fits &= dim == size
        elif dim:
            fits &= named.setdefault(dim, size) == size
    if not fits:
        wanted = "x".join("?" if dim is None else str(dim) for dim in declared)
        raise UsageError(f"`inputs` {value.name}={_text(sizes)}: does not fit its shape {wanted}")


def _default(value: onnx.ValueInfoProto, named: dict[str, int], batch: int) -> tuple[int, ...]:
    if not value.type.tensor_type.HasField("shape"):
        raise VerifySetupError(f"input '{value.name}' has no shape: give one with `inputs`")
    shape = shape_of(value)
    sizes = []
    for axis, dim in enumerate(shape):
        size = dim if isinstance(dim, int) else named.get(dim or "")
        if size is None:
            size = batch if axis == 0 else _IMAGE_SIDE if len(shape) == 4 and axis > 1 else _LENGTH
            if dim:
                named[str(dim)] = size
        sizes.append(size)
    return tuple(sizes)


def random_inputs(
    model: onnx.ModelProto,
    sizes: Mapping[str, tuple[int, ...]],
    seed: int,
    draw: Draw = Draw.NORMAL,
) -> Values:
    """Random values for every input.

    Args:
        model: The model.
        sizes: A shape for each input.
        seed: Seed; the same seed gives the same values.
        draw: How numbers are drawn.

    Returns:
        Values by input name: real numbers, small whole numbers, or flags, by type. A single flag
        changes from seed to seed, so that both branches of an If are taken.

    Raises:
        VerifySetupError: An input has a type or a size that cannot be made up.
    """
    rng = np.random.default_rng(seed)
    try:
        return {
            value.name: _random(value, sizes[value.name], rng, seed + at, draw)
            for at, value in enumerate(model_inputs(model))
        }
    except (ValueError, OverflowError, MemoryError):
        raise VerifySetupError(
            "the inputs are too large to be made up: give smaller sizes with `inputs`"
        ) from None


def on_first_draw(attempt: Callable[[Draw], _Found]) -> _Found:
    """Attempts something on one way of drawing inputs after the other.

    A detector may fail where it finds nothing, or too much, and what it finds in noise differs from
    what it finds in numbers like those of an image. A table that indices go to may be short.

    Args:
        attempt: What runs models on inputs that are so drawn.

    Returns:
        What the first attempt gave that did not fail.

    Raises:
        VerifySetupError: All fail, the first for this reason.
    """
    first: VerifySetupError | None = None
    for draw in Draw:
        try:
            return attempt(draw)
        except VerifySetupError as error:
            first = first or error
    assert first is not None
    raise first


def run_on_random(
    run: Callable[[Values], _Found],
    model: onnx.ModelProto,
    sizes: Mapping[str, tuple[int, ...]],
    seeds: Sequence[int],
) -> tuple[list[Values], list[_Found]]:
    """Runs something on random inputs that it takes.

    Args:
        run: What to run.
        model: The model whose inputs it takes.
        sizes: A shape for each input.
        seeds: A seed for each run.

    Returns:
        The inputs, and what was found on them.

    Raises:
        VerifySetupError: It runs on none, or no inputs can be made up.
    """

    def attempt(draw: Draw) -> tuple[list[Values], list[_Found]]:
        inputs = [random_inputs(model, sizes, seed, draw) for seed in seeds]
        return inputs, [run(values) for values in inputs]

    return on_first_draw(attempt)


def _random(
    value: onnx.ValueInfoProto,
    shape: tuple[int, ...],
    rng: np.random.Generator,
    turn: int,
    draw: Draw,
) -> npt.NDArray[Any]:
    kind = value.type.tensor_type.elem_type
    if not kind:
        raise VerifySetupError(f"input '{value.name}' is no tensor, so no values can be made up")
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind))
    if dtype.kind == "b":
        flags = rng.integers(0, 2, shape).astype(bool)
        return flags if flags.size != 1 else np.full(shape, turn % 2 == 1)
    if dtype.kind in "iu":
        return rng.integers(0, 10 if draw is Draw.NORMAL else 2, shape).astype(dtype)
    if kind == onnx.TensorProto.STRING:
        return np.full(shape, "word", dtype=object)
    real = rng.standard_normal(shape) if draw is Draw.NORMAL else rng.random(shape)
    return real.astype(dtype)


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
