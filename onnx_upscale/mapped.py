"""Weights that stay in their files: mapped where somebody looks at them, and copied as bytes.

A tensor is mapped if its data is external and the location an absolute path, with an offset and a
length. Models have such tensors in memory only; what is written to a file never has.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from onnx_upscale.errors import ModelError
from onnx_upscale.protobuf import copy_fields

LEAST = 1 << 20
"""Bytes from which on a tensor is mapped; smaller ones are read."""
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Place:
    """Where the content of a tensor lies.

    Attributes:
        path: The file.
        offset: Where it begins.
        length: How long it is.
        stamp: What the file was when it was read first (`stamp_of`), if anybody noted that.
    """

    path: str
    offset: int
    length: int
    stamp: str = ""

    def check(self, file: int | str) -> None:
        """Sees to it that the file is what it was.

        Args:
            file: Its path, or its descriptor if it is open.

        Raises:
            ModelError: It is not.
        """
        if self.stamp and stamp_of(file) != self.stamp:
            raise ModelError(f"{self.path}: has changed since it was read; run again")

    def blocks(self) -> Iterator[bytes]:
        """The content, a few megabytes at a time.

        Raises:
            OSError: The file cannot be read any more.
        """
        left = self.length
        with open(self.path, "rb") as file:
            self.check(file.fileno())
            file.seek(self.offset)
            while left:
                block = file.read(min(left, _BLOCK))
                if not block:
                    raise OSError(f"{self.path}: is shorter than it was when it was read first")
                left -= len(block)
                yield block


def stamp_of(file: int | str) -> str:
    """What tells a file from another, and from itself with other content."""
    found = os.stat(file)
    return f"{found.st_size}:{found.st_mtime_ns}:{found.st_ino}"


def load_or_map(model: onnx.ModelProto, folder: Path) -> None:
    """Finds the external weights of a model: maps the large ones, and reads the others.

    Args:
        model: A model as its file has it.
        folder: Where the file is.

    Raises:
        OSError: A file cannot be read.
        ValueError: A location or a size cannot be meant; onnx has more errors for that.
    """
    places = [_place_in(folder, tensor) for tensor in model.graph.initializer]
    mapped = [
        (tensor, place)
        for tensor, place in zip(model.graph.initializer, places, strict=True)
        if place is not None
    ]
    for tensor, _ in mapped:
        tensor.data_location = TensorProto.DEFAULT  # So that onnx leaves it as it is.
    onnx.load_external_data_for_model(model, str(folder))
    for tensor in model.graph.initializer:
        tensor.ClearField("data_location")  # As in a model that never had external data.
    for tensor, place in mapped:
        refer(tensor, place)


def _place_in(folder: Path, tensor: TensorProto) -> Place | None:
    """Where a tensor can be mapped; None where reading it, or saying what is wrong, is left."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return None
    info = external_data_helper.ExternalDataInfo(tensor)
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError:
        return None
    length, offset = prod(tensor.dims) * dtype.itemsize, info.offset or 0
    if dtype.isbuiltin != 1 or length < LEAST:
        return None
    # onnx has a look at the location, which must not lead out of the folder.
    probe = TensorProto(name=tensor.name, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", info.location), ("offset", offset), ("length", 1)):
        probe.external_data.add(key=key, value=str(value))
    external_data_helper.load_external_data_for_tensor(probe, str(folder))
    path = folder.absolute() / info.location
    there = os.path.getsize(path) - offset
    if there < length or (there if info.length is None else info.length) != length:
        return None
    return Place(str(path), offset, length, stamp_of(str(path)))


def refer(tensor: TensorProto, place: Place) -> None:
    """Lets a tensor have its content in a file.

    Args:
        tensor: The tensor.
        place: Where the content is; the path is written as it is.
    """
    tensor.ClearField("raw_data")
    del tensor.external_data[:]
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (
        ("location", place.path),
        ("offset", place.offset),
        ("length", place.length),
        ("checksum", place.stamp),  # The one other key that readers of ONNX let through.
    ):
        if value != "":
            tensor.external_data.add(key=key, value=str(value))


def place_of(tensor: TensorProto) -> Place | None:
    """Where a tensor is mapped from, or None if it is not mapped."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return None
    entries = {entry.key: entry.value for entry in tensor.external_data}
    path = entries.get("location", "")
    if not os.path.isabs(path):
        return None
    offset, length = int(entries["offset"]), int(entries["length"])
    return Place(path, offset, length, entries.get("checksum", ""))


def array_of(tensor: TensorProto) -> npt.NDArray[Any]:
    """The value of a tensor, not to be written to; a mapped one takes memory while it lives."""
    place = place_of(tensor)
    if place is None:
        return numpy_helper.to_array(tensor)
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type).newbyteorder("<")
    place.check(place.path)
    mapped = np.memmap(place.path, dtype, "r", place.offset, tuple(tensor.dims))
    return mapped.view(np.ndarray)


def size_of(tensor: TensorProto) -> int:
    """Bytes of a tensor whose content is raw or mapped; 0 for any other."""
    place = place_of(tensor)
    if place is not None:
        return place.length
    if not tensor.HasField("raw_data"):
        return 0
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    if dtype.isbuiltin != 1:  # Several may share a byte.
        return len(tensor.raw_data)
    return prod(tensor.dims) * dtype.itemsize  # The content itself would be copied to count.


def blocks_of(tensor: TensorProto) -> Iterator[bytes]:
    """The content of such a tensor."""
    place = place_of(tensor)
    if place is None:
        yield tensor.raw_data
    else:
        yield from place.blocks()


def is_mapped(model: onnx.ModelProto) -> bool:
    """Whether any weight of a model is mapped."""
    return any(place_of(tensor) is not None for tensor in model.graph.initializer)


def embedded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with all its weights in it."""
    if not is_mapped(model):
        return model
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    for tensor in whole.graph.initializer:
        if place_of(tensor) is not None:
            content = b"".join(blocks_of(tensor))
            kept = TensorProto()
            copy_fields(tensor, kept, leave={"data_location", "external_data"})
            kept.raw_data = content
            tensor.CopyFrom(kept)
    return whole
