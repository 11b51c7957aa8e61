"""What callers may mean by an argument."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import TypeVar

from onnx_upscale.errors import UsageError

_T = TypeVar("_T")


def several(given: _T | Iterable[_T]) -> tuple[_T, ...]:
    """What takes several values takes one alone: a text is no sequence of letters here."""
    if isinstance(given, str | bytes | os.PathLike) or not isinstance(given, Iterable):
        return (given,)
    return tuple(given)


def check_known(what: str, value: str, known: Collection[str]) -> None:
    """Refuses what is none of some names.

    Raises:
        UsageError: It is not.
    """
    if value not in known:
        raise UsageError(f"unknown {what} '{value}' (known: {', '.join(known)})")


def check_seed(seed: int) -> None:
    """Refuses what numpy takes for no seed.

    Raises:
        UsageError: It is negative.
    """
    if seed < 0:
        raise UsageError(f"`seed` {seed}: must be at least 0")
