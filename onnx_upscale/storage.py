"""How a model lies on disk: in one file, or as a small one with a file of weights beside it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias

import onnx
from google.protobuf.message import EncodeError
from onnx import TensorProto, external_data_helper

from onnx_upscale.atomic import Buffer, Content, PathLike, data_path
from onnx_upscale.choices import EXTERNAL_DATA
from onnx_upscale.errors import OutputError, UsageError
from onnx_upscale.in_place import read_in_place
from onnx_upscale.mapped import Place, blocks_of, place_of, refer, size_of
from onnx_upscale.one_file import OneFile
from onnx_upscale.protobuf import copy_fields

ExternalData: TypeAlias = Literal["auto", "always", "never"]

_MOST = 1_800_000_000
"""Bytes of weights in one file; protobuf ends at 2 GiB, and so does onnxruntime."""
_SMALL = 1024
"""Bytes up to which a tensor stays in the model's own file, as those that hold shapes."""
_PAGE, _LARGE = 4096, 1 << 20
"""Large tensors start at a page, so that they can be mapped."""
_LINE = 64
_TOO_LARGE = (
    "{}: what is no weight of the main graph takes more than the 2 GB that one file can hold"
)


def external_files(model: onnx.ModelProto, path: PathLike) -> frozenset[Path]:
    """The files in which weights of a model lie.

    Args:
        model: The model as its own file has it.
        path: This file.
    """
    tensors = external_data_helper._get_all_tensors(model)
    folder = Path(path).parent
    return frozenset(
        folder / external_data_helper.ExternalDataInfo(tensor).location
        for tensor in tensors
        if external_data_helper.uses_external_data(tensor)
    )


def weight_files(path: Path) -> frozenset[Path]:
    """The files beside a model in which its weights lie; none for what is no model."""
    try:
        if not path.is_file():  # A pipe can be read only once, by whoever reads the model.
            return frozenset()
        found = read_in_place(path)
        model = onnx.load(path, load_external_data=False) if found is None else found[0]
        return external_files(model, path)
    except Exception:  # As many as there are forms of broken files; reading the model names it.
        return frozenset()


def model_bytes(path: PathLike) -> int:
    """Size of a model's file and of the files of weights that belong to it."""
    files = external_files(onnx.load(path, load_external_data=False), path)
    return os.path.getsize(path) + sum(map(os.path.getsize, files))


class Data:
    """The content of a file of weights.

    Args:
        tensors: The tensors in it.
    """

    def __init__(self, tensors: Sequence[TensorProto]) -> None:
        self._tensors = tensors
        self.offsets: list[int] = []
        self.lengths = list(map(size_of, tensors))
        end = 0
        for length in self.lengths:
            self.offsets.append(end + -end % (_PAGE if length >= _LARGE else _LINE))
            end = self.offsets[-1] + length
        self._end = end

    def __len__(self) -> int:
        return self._end

    def __iter__(self) -> Iterator[Buffer]:
        end = 0
        for tensor, offset, length in zip(self._tensors, self.offsets, self.lengths, strict=True):
            yield bytes(offset - end)
            yield from blocks_of(tensor)
            end = offset + length

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits that stand for the content."""
        sha256 = hashlib.sha256()
        for block in self:
            sha256.update(block)
        return sha256.hexdigest()[:16]


def size_of_files(files: Mapping[PathLike, Content], path: PathLike) -> tuple[str, int]:
    """How large a model is as it will be written.

    Args:
        files: The files that make it up, by path.
        path: The one that bears its name.

    Returns:
        The sha256 of that, and the bytes of all.
    """
    content, sha256 = files[path], hashlib.sha256()
    for block in [content] if isinstance(content, bytes) else content:
        sha256.update(block)
    return sha256.hexdigest(), sum(map(len, files.values()))


@dataclass(frozen=True)
class Stored:
    """A model in memory of which large weights may lie in files still, and how it is written.

    Attributes:
        model: The model.
        sources: The external files of the model that was read. If there are any, weights go to a
            file of their own as long as nobody says otherwise.
    """

    model: onnx.ModelProto
    sources: frozenset[Path] = frozenset()

    def files(self, path: PathLike, external_data: str = "auto") -> dict[PathLike, Content]:
        """The files that make up the model, the one that bears its name last.

        Args:
            path: Where the model will be.
            external_data: `always`: weights go to a file beside it. `never`: everything is in one
                file. `auto`: as the model was read, but never more than fits into one file.

        Returns:
            Contents by path.

        Raises:
            UsageError: There is no such choice.
            OutputError: It does not fit into one file, or would replace one that was read.
        """
        if os.path.realpath(path) in map(os.path.realpath, self.sources):
            raise OutputError(
                f"{path}: holds weights of the input model, which would be lost: choose another"
            )
        if external_data not in EXTERNAL_DATA:
            known = ", ".join(EXTERNAL_DATA)
            raise UsageError(f"unknown `external_data` '{external_data}' (known: {known})")
        if external_data == "never" and self.is_large:
            raise OutputError(
                f"{path}: would be larger than the 2 GB that one file can hold; "
                "`external_data` 'auto' writes its weights beside it"
            )
        if external_data == "always" or (
            external_data == "auto" and (bool(self.sources) or self.is_large)
        ):
            return self._two_files(path)
        return {path: self._whole(path)}

    def size(self, path: PathLike, external_data: str = "auto") -> tuple[str, int]:
        """What `size_of_files` says of `files`."""
        return size_of_files(self.files(path, external_data), path)

    def _two_files(self, path: PathLike) -> dict[PathLike, Content]:
        target = Path(os.path.realpath(path))
        if not self._outside:
            return {path: self._whole(path)}
        light = onnx.ModelProto()
        copy_fields(self.model, light, leave={"graph"})
        copy_fields(self.model.graph, light.graph, leave={"initializer"})
        data = self._data
        beside = data_path(target, data.digest)
        places = dict(zip(self._outside, zip(data.offsets, data.lengths, strict=True), strict=True))
        for index, tensor in enumerate(self.model.graph.initializer):
            if index not in places:
                light.graph.initializer.append(tensor)
                continue
            offset, length = places[index]
            moved = light.graph.initializer.add()
            copy_fields(tensor, moved, leave={"raw_data", "data_location", "external_data"})
            refer(moved, Place(beside.name, offset, length))
        return {beside: data, path: self._serialized(light, path)}

    @cached_property
    def weight(self) -> int:
        """About how many bytes all its files would have."""
        tensors = self.model.graph.initializer
        if self.is_large:  # What else it holds is little, and can only be counted with the weights.
            return sum(map(size_of, tensors))
        places = map(place_of, tensors)
        mapped = sum(place.length for place in places if place is not None)
        return int(self.model.ByteSize()) + mapped

    def _whole(self, path: PathLike) -> Content:
        if not self._outside:
            return self._serialized(self.model, path)
        try:
            return OneFile(self.model)
        except (EncodeError, ValueError):
            raise OutputError(_TOO_LARGE.format(path)) from None

    @staticmethod
    def _serialized(model: onnx.ModelProto, path: PathLike) -> bytes:
        try:
            content: bytes = model.SerializeToString(deterministic=True)
        except (EncodeError, ValueError):
            raise OutputError(_TOO_LARGE.format(path)) from None
        return content

    @cached_property
    def is_large(self) -> bool:
        """Whether its weights are more than one file should hold."""
        return sum(map(size_of, self.model.graph.initializer)) > _MOST

    @cached_property
    def _outside(self) -> Collection[int]:
        """Which initializers go to the file of weights."""
        return {
            index: None
            for index, tensor in enumerate(self.model.graph.initializer)
            if size_of(tensor) > _SMALL or place_of(tensor) is not None
        }.keys()

    @cached_property
    def _data(self) -> Data:
        return Data([self.model.graph.initializer[index] for index in self._outside])
