"""Samples in memory or in files: arrays, or a folder of images, read batch by batch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import onnx

from onnx_upscale.errors import DataError
from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.running import model_inputs
from onnx_upscale.samples.checks import checked_type, only_input
from onnx_upscale.samples.images import Images

DataSource: TypeAlias = "str | os.PathLike[str] | Array | Mapping[str, Array] | Images"


@runtime_checkable
class Samples(Protocol):
    """Inputs of a model, one after the other along the first axis."""

    @property
    def count(self) -> int:
        """How many there are."""

    @property
    def together(self) -> bool:
        """Whether several can be read at once; if not, their shapes differ."""

    def at(self, indices: Sequence[int]) -> dict[str, Array]:
        """Those at some places, by input name."""

    def read(self, start: int, stop: int) -> dict[str, Array]:
        """Some of them one after the other, by input name."""


@dataclass(frozen=True)
class ArraySamples:
    """Samples that are arrays, or files mapped into memory."""

    arrays: Mapping[str, Array]
    types: Mapping[str, np.dtype[Any]]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(next(iter(self.arrays.values())))

    @property
    def together(self) -> bool:
        """Whether several can be read at once."""
        return True

    def at(self, indices: Sequence[int]) -> dict[str, Array]:
        """Those at some places, by input name."""
        places = np.asarray(indices, np.int64)
        return {
            name: np.ascontiguousarray(array[places], self.types[name])
            for name, array in self.arrays.items()
        }

    def read(self, start: int, stop: int) -> dict[str, Array]:
        """Some of them one after the other, by input name."""
        return self.at(range(self.count)[start:stop])


def open_samples(source: DataSource, model: onnx.ModelProto, any_name: bool = False) -> Samples:
    """Opens calibration data and checks that it fits a model.

    Args:
        source: An .npz file (arrays by input name), an .npy file (the one input), a folder of
            images, arrays, or `Images`.
        model: The model that will read it.
        any_name: Whether the only array of an .npz file may have another name than the only input.

    Returns:
        The samples.

    Raises:
        DataError: It cannot be read or does not fit the inputs of the model.
    """
    if isinstance(source, Images):
        return source.samples(only_input(model, "a folder of images"))
    if isinstance(source, Mapping):
        return _samples(source, "data", model)
    if isinstance(source, np.ndarray):
        return _samples({only_input(model, "one array").name: source}, "data", model)
    path = Path(source)
    if path.is_dir():
        return Images(path).samples(only_input(model, "a folder of images"))
    if path.suffix.lower() not in (".npy", ".npz"):
        found = "is none of these" if path.exists() else "does not exist"
        raise DataError(f"{path}: give an .npz or .npy file or a folder of images; this {found}")
    arrays = _read_arrays(path, model)
    names = [value.name for value in model_inputs(model)]
    if any_name and len(arrays) == len(names) == 1:
        arrays = dict(zip(names, arrays.values(), strict=True))
    return _samples(arrays, str(path), model)


def _read_arrays(path: Path, model: onnx.ModelProto) -> Mapping[str, Array]:
    try:
        if path.suffix.lower() == ".npy":
            name = only_input(model, "an .npy file").name
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


def _samples(arrays: Mapping[str, Array], where: str, model: onnx.ModelProto) -> Samples:
    inputs = {value.name: value for value in model_inputs(model)}
    if arrays.keys() != inputs.keys():
        raise DataError(
            f"{where}: expected one array per input ({', '.join(inputs)}), "
            f"found {', '.join(arrays) or 'none'}"
        )
    arrays = {name: np.asanyarray(array) for name, array in arrays.items()}
    types = {
        name: checked_type(value, arrays[name], f"{where}: input '{name}'")
        for name, value in inputs.items()
    }
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise DataError(f"{where}: inputs differ in how many samples they have: {listed}")
    if not all(counts.values()) or not counts:
        raise DataError(f"{where}: there are no samples in it")
    return ArraySamples(arrays, types)
