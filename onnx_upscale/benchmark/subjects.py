"""The models of a comparison, and the inputs that all of them are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
from onnx import helper

from onnx_upscale.errors import UpscaleError, UsageError
from onnx_upscale.optimizer.load.model import ModelSource, check_lasting, read_files, stored_or_path
from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.running import Draw, input_sizes, model_inputs, random_inputs
from onnx_upscale.storage import Stored, model_bytes

Sizes: TypeAlias = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Subject:
    """A model to be measured.

    Attributes:
        name: What reports call it.
        path: Its file, or None for a model in memory.
        stored: The model.
        bytes: Size of its file, or of what its file would be, external weights included.
        inputs: A value for each of its inputs.
    """

    name: str
    path: str | None
    stored: Stored
    bytes: int
    inputs: Mapping[str, Array]

    @property
    def source(self) -> onnx.ModelProto | str:
        """What onnxruntime loads: the file where there is one, as it is in production."""
        return self.stored.model if self.path is None else self.path


def read_subjects(
    models: Sequence[ModelSource],
    names: Sequence[str] | None,
    sizes: Sizes | None,
    batch: int | None,
    draw: Draw = Draw.NORMAL,
) -> list[Subject]:
    """Reads models and makes up one set of inputs for all.

    Models with one input each take the same value, whatever they call it (exporters disagree
    there); others must agree on the names.

    Args:
        models: Paths or models.
        names: What to call them.
        sizes: Shapes of inputs with symbolic dimensions, by the name that any model has for them.
        batch: Size of the first axis of inputs where it is symbolic.
        draw: How inputs are drawn.

    Returns:
        The models, in the order given.

    Raises:
        UpscaleError: One cannot be read, or their inputs differ.
    """
    held = map(stored_or_path, models)
    paths = [each if isinstance(each, str) else None for each in held]
    for path in filter(None, paths):
        check_lasting(path)
    stored = [read_files(model, mapped=True) for model in models]
    read = [each.model for each in stored]
    names = _names(paths, names)
    aligned = _aligned(names, read)
    known = {name for one in aligned for name in one}
    unknown = sorted((sizes or {}).keys() - known)
    if unknown:
        have = ", ".join(sorted(known)) or "none"
        raise UsageError(f"`inputs` {unknown[0]}: no model has such an input (they have: {have})")
    shapes = []
    for name, model, inputs in zip(names, read, aligned, strict=True):
        try:
            shapes.append(_shapes(model, inputs, aligned, sizes or {}, batch))
        except UpscaleError as error:
            raise type(error)(f"{name}: {error}") from None
    _check_equal(names, read, aligned, shapes)
    made_up = random_inputs(read[0], dict(zip(aligned[0], shapes[0], strict=True)), 0, draw)
    values = [made_up[name] for name in aligned[0]]
    return [
        Subject(name, path, each, _bytes(path, each), dict(zip(inputs, values, strict=True)))
        for name, path, each, inputs in zip(names, paths, stored, aligned, strict=True)
    ]


def _names(paths: Sequence[str | None], names: Sequence[str] | None) -> list[str]:
    if names is None:
        files = {path: Path(path).name for path in paths if path is not None}
        short = files if len(set(files.values())) == len(files) else {}
        return [
            f"model {number}" if path is None else short.get(path, path)
            for number, path in enumerate(paths, 1)
        ]
    if len(names) != len(paths):
        raise UsageError(f"{len(names)} names are given for {len(paths)} models")
    return list(names)


def _aligned(names: Sequence[str], models: Sequence[onnx.ModelProto]) -> list[list[str]]:
    """Per model its inputs' names, so that the same place means the same input."""
    found = [[value.name for value in model_inputs(model)] for model in models]
    if all(len(inputs) == 1 for inputs in found):
        return found
    for name, inputs in zip(names, found, strict=True):
        if set(inputs) != set(found[0]):
            raise UsageError(
                f"{name}: its inputs are {_list(inputs)}, but those of {names[0]} are "
                f"{_list(found[0])}: only models with the same inputs can be compared"
            )
    return [found[0]] * len(found)


def _shapes(
    model: onnx.ModelProto,
    inputs: Sequence[str],
    aligned: Sequence[Sequence[str]],
    sizes: Sizes,
    batch: int | None,
) -> list[tuple[int, ...]]:
    """The shape of each input, in their common order."""
    chosen = {}
    for place, name in enumerate(inputs):
        # The same input may have another name in the model that the caller had in mind.
        aliases = [name, *(other[place] for other in aligned)]
        given = next((alias for alias in aliases if alias in sizes), None)
        if given is not None:
            chosen[name] = sizes[given]
    shapes = input_sizes(model, chosen, batch)
    return [shapes[name] for name in inputs]


def _check_equal(
    names: Sequence[str],
    models: Sequence[onnx.ModelProto],
    aligned: Sequence[Sequence[str]],
    shapes: Sequence[Sequence[tuple[int, ...]]],
) -> None:
    described = []
    for model, inputs, sizes in zip(models, aligned, shapes, strict=True):
        types = {value.name: value.type.tensor_type.elem_type for value in model_inputs(model)}
        described.append(
            [_described(types[name], shape) for name, shape in zip(inputs, sizes, strict=True)]
        )
    for name, inputs, found in zip(names, aligned, described, strict=True):
        for place, (one, first) in enumerate(zip(found, described[0], strict=True)):
            if one != first:
                raise UsageError(
                    f"{name}: its input '{inputs[place]}' is {one}, but that of {names[0]} is "
                    f"{first}: compare models of equal inputs, or give shapes with `inputs` or "
                    "`batch`"
                )


def _described(kind: int, shape: tuple[int, ...]) -> str:
    try:
        dtype = str(np.dtype(helper.tensor_dtype_to_np_dtype(kind)))
    except KeyError:
        dtype = "no tensor"
    return f"{dtype} {'x'.join(map(str, shape))}".rstrip()


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"


def _bytes(path: str | None, stored: Stored) -> int:
    return stored.weight if path is None else model_bytes(path)
