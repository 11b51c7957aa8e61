"""Reading a model of one file without its large weights, which stay where they lie in it."""

from __future__ import annotations

import mmap
from math import prod
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from onnx_upscale.mapped import LEAST, Place, stamp_of
from onnx_upscale.protobuf import OF_LENGTH, Field, OddError, fields, head

_GRAPH = onnx.ModelProto.GRAPH_FIELD_NUMBER
_INITIALIZER = onnx.GraphProto.INITIALIZER_FIELD_NUMBER
_RAW_DATA = TensorProto.RAW_DATA_FIELD_NUMBER


def read_in_place(path: Path) -> tuple[onnx.ModelProto, dict[str, Place]] | None:
    """Reads a model, but for the content of large initializers of its main graph.

    Args:
        path: A file.

    Returns:
        The model, with initializers that are empty, and where their contents lie, by name; None
        where there are none, and for what is no file, as a pipe, or none of a model: whoever reads
        all of it says what is wrong.
    """
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            stamp = stamp_of(file.fileno())
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _read(content, str(path.absolute()), stamp)
    except (OSError, OddError, ValueError):
        return None


def _read(
    content: mmap.mmap, path: str, stamp: str
) -> tuple[onnx.ModelProto, dict[str, Place]] | None:
    graphs = [f for f in fields(content, 0, len(content)) if f.number == _GRAPH]
    if len(graphs) != 1:
        return None
    (graph,) = graphs
    tensors = [
        field
        for field in fields(content, graph.content, graph.end)
        if field.number == _INITIALIZER and field.end - field.content >= LEAST
    ]
    lighter, places = bytearray(), dict[str, Place]()
    at = graph.content
    for field in tensors:
        found = _without_content(content, field, path, stamp)
        if found is None or found[0].name in places:
            continue
        tensor, place = found
        lighter += content[at : field.start]
        content_of_tensor = tensor.SerializeToString()
        lighter += head(_INITIALIZER, len(content_of_tensor)) + content_of_tensor
        places[tensor.name] = place
        at = field.end
    if not places:
        return None
    lighter += content[at : graph.end]
    before, behind = content[: graph.start], content[graph.end :]
    whole = b"".join((before, head(_GRAPH, len(lighter)), lighter, behind))
    return onnx.ModelProto.FromString(whole), places


def _without_content(
    content: mmap.mmap, field: Field, path: str, stamp: str
) -> tuple[TensorProto, Place] | None:
    """A tensor without its data, and where these are; None where they are not as they should be."""
    own = list(fields(content, field.content, field.end))
    raw = [each for each in own if each.number == _RAW_DATA and each.kind == OF_LENGTH]
    if len(raw) != 1 or raw[0].end - raw[0].content < LEAST:
        return None
    rest = b"".join(content[each.start : each.end] for each in own if each is not raw[0])
    tensor = TensorProto.FromString(rest)
    place = Place(path, raw[0].content, raw[0].end - raw[0].content, stamp)
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError:
        return None
    fits = dtype.isbuiltin == 1 and prod(tensor.dims) * dtype.itemsize == place.length
    return (tensor, place) if fits and tensor.name and not tensor.external_data else None
