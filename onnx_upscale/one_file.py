"""A model as one file, of which the large weights are never in memory all at once."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import TensorProto

from onnx_upscale.mapped import blocks_of, place_of, size_of
from onnx_upscale.protobuf import copy_fields, fields, head

_GRAPH = onnx.ModelProto.GRAPH_FIELD_NUMBER
_INITIALIZER = onnx.GraphProto.INITIALIZER_FIELD_NUMBER
_RAW_DATA = TensorProto.RAW_DATA_FIELD_NUMBER
# Bytes of a weight from which on a place in the list costs less than two copies of its content.
_APART = 1 << 14


class OneFile:
    """The bytes of a model, as protobuf would make them of it with all its weights in it.

    Protobuf writes the fields of a message by their numbers. So the model is written without the
    contents of large weights, and each of them is put where it belongs.

    Args:
        model: The model.

    Raises:
        google.protobuf.message.EncodeError: What is no large weight is too large.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        light = onnx.ModelProto()
        copy_fields(model, light, leave={"graph"})
        copy_fields(model.graph, light.graph, leave={"initializer"})
        large: list[TensorProto | None] = []
        for tensor in model.graph.initializer:
            apart = place_of(tensor) is not None or size_of(tensor) >= _APART
            large.append(tensor if apart else None)
            leave = {"raw_data", "data_location", "external_data"} if apart else set()
            copy_fields(tensor, light.graph.initializer.add(), leave)
        self._pieces = list(_spliced(light.SerializeToString(deterministic=True), large))
        self._length = sum(map(_length, self._pieces))

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, bytes):
                yield piece
            else:
                yield from blocks_of(piece)


def _length(piece: bytes | TensorProto) -> int:
    return len(piece) if isinstance(piece, bytes) else size_of(piece)


def _spliced(light: bytes, large: list[TensorProto | None]) -> Iterator[bytes | TensorProto]:
    """The bytes of a model with contents of weights put in.

    Args:
        light: The bytes without them.
        large: By initializer, the weight whose content goes into it, if any.
    """
    graph = next(each for each in fields(light, 0, len(light)) if each.number == _GRAPH)
    pieces: list[bytes | TensorProto] = []
    at, waiting = graph.content, iter(large)
    for field in fields(light, graph.content, graph.end):
        tensor = next(waiting) if field.number == _INITIALIZER else None
        if tensor is None:
            continue
        own = fields(light, field.content, field.end)
        split = next((each.start for each in own if each.number > _RAW_DATA), field.end)
        raw = head(_RAW_DATA, size_of(tensor))
        length = field.end - field.content + len(raw) + size_of(tensor)
        before = head(_INITIALIZER, length) + light[field.content : split] + raw
        pieces += [light[at : field.start] + before, tensor]
        pieces.append(light[split : field.end])
        at = field.end
    pieces.append(light[at : graph.end])
    yield light[: graph.start] + head(_GRAPH, sum(map(_length, pieces)))
    yield from pieces
    yield light[graph.end :]
