"""Which sizes need no finding out: numbers, and what has the name of a size of an input."""

from __future__ import annotations

from collections.abc import Iterable, Set

from onnx_upscale.declared import Shape

NO_NAMES = frozenset({"None", "?", "-1", "unk", "unknown", "dynamic"})
"""What some converters call every size that they do not know, so that two need not be equal."""
_NONE = frozenset[str]()


def is_known(shape: Shape | None, names: Set[str] = _NONE) -> bool:
    """Whether every size of a shape is a number, or has one of some names."""
    return shape is not None and all(isinstance(size, int) or size in names for size in shape)


def names_in(shapes: Iterable[Shape]) -> frozenset[str]:
    """The names of sizes that are the same size wherever they stand."""
    found = {size for shape in shapes for size in shape if isinstance(size, str)}
    return frozenset(found - NO_NAMES)
