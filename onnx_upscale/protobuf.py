"""Protobuf messages, copied in part."""

from __future__ import annotations

from collections.abc import Collection

from google.protobuf.message import Message


def copy_fields(source: Message, target: Message, leave: Collection[str]) -> None:
    """Adds what one message holds to another of its kind.

    Args:
        source: The message.
        target: What it is added to.
        leave: Names of fields that are left out.
    """
    for descriptor, value in source.ListFields():
        if descriptor.name in leave:
            continue
        if hasattr(value, "MergeFrom"):  # A repeated field or a message.
            getattr(target, descriptor.name).MergeFrom(value)
        else:
            setattr(target, descriptor.name, value)
