"""Words that stand for one of a few choices, in files, on the command line and in code; texts."""

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


def printable(text: str) -> str:
    """A text in which what does not show as itself is its code: line breaks, escape sequences.

    Names come from models and mask files that may want to steer who shows them.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
