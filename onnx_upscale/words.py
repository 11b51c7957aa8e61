"""Words that stand for one of a few choices, in files, on the command line and in code; lists."""

from __future__ import annotations

import enum
from collections.abc import Sequence


class Word(str, enum.Enum):
    """A choice that is written as its word, wherever it is written."""

    __str__ = str.__str__


def some(names: Sequence[str], most: int = 2) -> str:
    """The first of some names, and how many more there are."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
