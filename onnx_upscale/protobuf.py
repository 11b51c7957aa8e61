"""Protobuf messages, copied in part, and seen as the bytes that they are on disk.

A message is a row of fields, each with a number and a kind; one of kind 2 says how long it is. That
is all it takes to skip what nobody looks into.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from google.protobuf.message import Message

OF_LENGTH = 2
_VARINT, _EIGHT_BYTES, _FOUR_BYTES = 0, 1, 5


class OddError(Exception):
    """No message that can be read so: for protobuf itself to say what it is."""


@dataclass(frozen=True)
class Field:
    """A field of a message: where it begins, where its content does, and where both end."""

    number: int
    kind: int
    start: int
    content: int
    end: int


def copy_fields(source: Message, target: Message, leave: Collection[str]) -> None:
    """Adds what one message holds to another of its kind.

    Args:
        source: The message.
        target: What it is added to.
        leave: Names of fields that are left out.
    """
    for descriptor in source.DESCRIPTOR.fields:  # `ListFields` would copy what is left out, too.
        name = descriptor.name
        if name in leave:
            continue
        value = getattr(source, name)
        repeated = hasattr(value, "MergeFrom") and not hasattr(value, "ListFields")
        if not repeated and not source.HasField(name):
            continue
        if hasattr(value, "MergeFrom"):
            getattr(target, name).MergeFrom(value)
        else:
            setattr(target, name, value)


def fields(content: bytes | mmap.mmap, at: int, end: int) -> Iterator[Field]:
    """The fields of a message.

    Raises:
        OddError: They do not end where the message does, or are of a kind that ONNX has not.
    """
    while at < end:
        start = at
        tag, at = _number(content, at)
        kind = tag & 7
        if kind == OF_LENGTH:
            length, at = _number(content, at)
        elif kind == _VARINT:
            length = _number(content, at)[1] - at
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            length = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise OddError
        if at + length > end:
            raise OddError
        yield Field(tag >> 3, kind, start, at, at + length)
        at += length


def _number(content: bytes | mmap.mmap, at: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    value = 0
    for place in range(10):
        if at >= len(content):
            raise OddError
        byte = content[at]
        value |= (byte & 0x7F) << 7 * place
        at += 1
        if byte < 0x80:
            return value, at
    raise OddError


def head(number: int, length: int) -> bytes:
    """What stands before the content of a field of kind 2; its number is less than 16."""
    made = bytearray([number << 3 | OF_LENGTH])
    while length >= 0x80:
        made.append(length & 0x7F | 0x80)
        length >>= 7
    made.append(length)
    return bytes(made)
