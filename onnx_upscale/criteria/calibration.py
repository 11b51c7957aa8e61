"""Calibration data: arrays in memory or in files, or a folder of images, read batch by batch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import onnx
from onnx import helper

from onnx_upscale.criteria.images import Images
from onnx_upscale.errors import DataError
from onnx_upscale.optimizer.load.shapes import Shape, shape_of
from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.running import model_inputs

DataSource: TypeAlias = "str | os.PathLike[str] | Array | Mapping[str, Array] | Images"


class Samples(Protocol):
    """Inputs of a model, one after the other along the first axis."""

    @property
    def count(self) -> int:
        """How many there are."""

    def read(self, start: int, stop: int) -> dict[str, Array]:
        """Some of them, by input name."""


@dataclass(frozen=True)
class ArraySamples:
    """Samples that are arrays, or files mapped into memory."""

    arrays: Mapping[str, Array]
    types: Mapping[str, np.dtype[Any]]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(next(iter(self.arrays.values())))

    def read(self, start: int, stop: int) -> dict[str, Array]:
        """Some of them, by input name."""
        return {
            name: np.ascontiguousarray(array[start:stop], self.types[name])
            for name, array in self.arrays.items()
        }


def open_samples(source: DataSource, model: onnx.ModelProto) -> Samples:
    """Opens calibration data and checks that it fits a model.

    Args:
        source: An .npz file (arrays by input name), an .npy file (the one input), a folder of
            images, arrays, or `Images`.
        model: The model that will read it.

    Returns:
        The samples.

    Raises:
        DataError: It cannot be read or does not fit the inputs of the model.
    """
    if isinstance(source, Images):
        return source.samples(_only_input(model, "a folder of images"))
    if isinstance(source, Mapping):
        return _samples(source, "data", model)
    if isinstance(source, np.ndarray):
        return _samples({_only_input(model, "one array").name: source}, "data", model)
    path = Path(source)
    if path.is_dir():
        return Images(path).samples(_only_input(model, "a folder of images"))
    if path.suffix.lower() not in (".npy", ".npz"):
        found = "is none of these" if path.exists() else "does not exist"
        raise DataError(f"{path}: give an .npz or .npy file or a folder of images; this {found}")
    return _samples(_read_arrays(path, model), str(path), model)


def _read_arrays(path: Path, model: onnx.ModelProto) -> Mapping[str, Array]:
    try:
        if path.suffix.lower() == ".npy":
            name = _only_input(model, "an .npy file").name
            return {name: np.lib.format.open_memmap(path, mode="r")}
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except DataError:
        raise
    except Exception as error:  # Broken files make zipfile, zlib and numpy raise a dozen kinds.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: not a readable {path.suffix} file: {reason}") from None


def _only_input(model: onnx.ModelProto, what: str) -> onnx.ValueInfoProto:
    inputs = model_inputs(model)
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise DataError(
            f"{what} is for models with one input, but this one has {names}: give an .npz file "
            "with an array for each"
        )
    return inputs[0]


def _samples(arrays: Mapping[str, Array], where: str, model: onnx.ModelProto) -> Samples:
    inputs = {value.name: value for value in model_inputs(model)}
    if arrays.keys() != inputs.keys():
        raise DataError(
            f"{where}: expected one array per input ({', '.join(inputs)}), "
            f"found {', '.join(arrays) or 'none'}"
        )
    types = {
        name: _checked(value, arrays[name], f"{where}: input '{name}'")
        for name, value in inputs.items()
    }
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataError(f"{where}: inputs differ in how many samples they have: {listed}")
    if not all(counts.values()) or not counts:
        raise DataError(f"{where}: there are no samples in it")
    return ArraySamples(arrays, types)


def _checked(value: onnx.ValueInfoProto, array: Array, where: str) -> np.dtype[Any]:
    """The type an input wants, if the array has the shape and can take the type."""
    kind = value.type.tensor_type.elem_type
    wanted = np.dtype(helper.tensor_dtype_to_np_dtype(kind)) if kind else np.dtype(object)
    declared = shape_of(value) if value.type.tensor_type.HasField("shape") else None
    rank = array.ndim if declared is None else len(declared)
    fixed = [size if isinstance(size, int) else None for size in declared or (None,) * rank]
    if (
        array.ndim != rank
        or rank == 0
        or any(
            size not in (None, found)
            for size, found in zip(fixed[1:], array.shape[1:], strict=True)
        )
    ):
        found = "x".join(map(str, array.shape)) or "a single number"
        raise DataError(f"{where}: expected shape {spelled(declared)}, found {found}")
    same_kind = array.dtype.kind == wanted.kind or {array.dtype.kind, wanted.kind} <= set("iu")
    if not same_kind or wanted.kind not in "fiub":
        raise DataError(f"{where}: expected {wanted}, found {array.dtype}")
    return wanted


def spelled(shape: Shape | None) -> str:
    """A shape of samples for messages: any number of them, and what is known of the rest."""
    if not shape:
        return "with samples along the first axis"
    return "x".join(["N", *(str(size or "?") for size in shape[1:])])
