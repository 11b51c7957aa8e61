"""Masks as tests write them, channels by `NAME.side`, and as a mask file has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Masks: TypeAlias = Mapping[str, Sequence[int]]


def document(masks: Masks) -> dict[str, Any]:
    """Masks in the form of a mask file."""
    found: dict[str, dict[str, list[int]]] = {}
    for key, channels in masks.items():
        name, _, side = key.rpartition(".")
        found.setdefault(name, {})[side] = [int(channel) for channel in channels]
    return {"version": 1, "masks": found}
