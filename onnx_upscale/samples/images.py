"""A folder of images as the input of a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnx_upscale.declared import shape_of
from onnx_upscale.errors import DataError
from onnx_upscale.optimizer.load.values import Array

_SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))
_MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class Images:
    """A folder of images, sub-folders included, and how they become inputs.

    1. An image is read as RGB (as grey where the input of the model has one channel).
    2. It is resized so that its shorter side is `size`, bilinearly.
    3. The center is cropped to the height and width of the input; a symbolic one is `size`.
    4. Values are scaled to 0..1, then `mean` is subtracted and the result divided by `std`.
    5. The result is laid out as 1 x channels x height x width.

    Attributes:
        folder: The folder; files without the suffix of an image are ignored.
        mean: One number, or one per channel.
        std: One number, or one per channel.
        size: Shorter side after resizing; None for the larger side of the input.
    """

    folder: str | os.PathLike[str]
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    size: int | None = None

    def samples(self, value: onnx.ValueInfoProto) -> ImageSamples:
        """The images as samples of an input of a model.

        Args:
            value: The input.

        Returns:
            The samples; no image is read yet.

        Raises:
            DataError: There are no images, or the input is not one for images.
        """
        folder = Path(self.folder)
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder of images")
        paths = sorted(
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in _SUFFIXES and path.is_file()
        )
        if not paths:
            suffixes = ", ".join(sorted(_SUFFIXES))
            raise DataError(f"{folder}: there are no images in it ({suffixes})")
        channels, height, width, dtype = self._input(value)
        return ImageSamples(
            tuple(paths),
            value.name,
            (height, width),
            self.size or max(height, width),
            _MODES[channels],
            _per_channel("mean", self.mean, channels),
            _per_channel("std", self.std, channels),
            dtype,
        )

    def _input(self, value: onnx.ValueInfoProto) -> tuple[int, int, int, np.dtype[Any]]:
        shape = shape_of(value) if value.type.tensor_type.HasField("shape") else ()
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        if len(shape) != 4 or shape[1] not in _MODES or dtype.kind != "f":
            found = "x".join(str(size or "?") for size in shape)
            raise DataError(
                f"images need an input of floats of shape Nx3xHxW or Nx1xHxW, but '{value.name}' "
                f"is {dtype} of shape {found or 'unknown'}: give an .npz or .npy file"
            )
        if self.size is not None and self.size < 1:
            raise DataError(f"`size` {self.size}: must be at least 1")
        sides = [side if isinstance(side, int) else self.size for side in shape[2:]]
        if None in sides:
            raise DataError(f"the height or width of input '{value.name}' is symbolic: give `size`")
        height, width = (int(side or 0) for side in sides)
        if self.size is not None and self.size < max(height, width):
            raise DataError(f"`size` {self.size}: is less than the input's {height}x{width}")
        channels = shape[1]
        assert isinstance(channels, int)
        return channels, height, width, dtype


@dataclass(frozen=True)
class ImageSamples:
    """Images that are read when they are asked for, so that memory does not grow with them."""

    paths: tuple[Path, ...]
    name: str
    crop: tuple[int, int]
    size: int
    mode: str
    mean: Array
    std: Array
    dtype: np.dtype[Any]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.paths)

    @property
    def together(self) -> bool:
        """Whether several can be read at once."""
        return True

    def at(self, indices: Sequence[int]) -> dict[str, Array]:
        """Those at some places, by input name."""
        pixels = np.stack([self._read(self.paths[index]) for index in indices])
        values = (pixels.transpose(0, 3, 1, 2) / 255.0 - self.mean) / self.std
        return {self.name: np.ascontiguousarray(values, self.dtype)}

    def read(self, start: int, stop: int) -> dict[str, Array]:
        """Some of them one after the other, by input name."""
        return self.at(range(self.count)[start:stop])

    def _read(self, path: Path) -> Array:
        """The pixels of an image, shape (height, width, channels)."""
        try:
            from PIL import Image
        except ImportError:
            raise DataError(
                "reading images needs Pillow: pip install 'onnx-upscale[images]'"
            ) from None
        try:
            with Image.open(path) as image:
                picture = image.convert(self.mode)
        except Exception as error:  # Each format has errors of its own.
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"{path}: not a readable image: {reason}") from None
        width, height = picture.size
        scale = self.size / min(width, height)
        width, height = (max(round(side * scale), self.size) for side in (width, height))
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        top, left = (height - self.crop[0]) // 2, (width - self.crop[1]) // 2
        picture = picture.crop((left, top, left + self.crop[1], top + self.crop[0]))
        return np.asarray(picture).reshape(*self.crop, -1)


def _per_channel(option: str, values: Sequence[float], channels: int) -> Array:
    numbers = np.array(values, np.float64)
    if numbers.shape not in ((1,), (channels,)) or not np.isfinite(numbers).all():
        raise DataError(f"`{option}`: expected 1 or {channels} numbers, found {list(values)}")
    if option == "std" and (numbers <= 0).any():
        raise DataError(f"`std`: must be more than 0, found {list(values)}")
    return numbers.reshape(-1, 1, 1)
