"""Words that stand for one of a few choices, in files, on the command line and in code."""

from __future__ import annotations

import enum


class Word(str, enum.Enum):
    """A choice that is written as its word, wherever it is written."""

    __str__ = str.__str__
