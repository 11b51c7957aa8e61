"""What a page is made of: each kind of part is plain values, and a template that shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a page, such as a table.

    Attributes:
        title: Its heading.
        note: What to know to read it.
        folded: Whether it is opened by the reader first.
        anchor: What links lead to, if any do.
    """

    template: ClassVar[str]

    title: str = ""
    note: str = ""
    folded: bool = False
    anchor: str = ""


@dataclass(frozen=True)
class Card:
    """One figure, before and after.

    Attributes:
        label: What it is.
        after: How much it is now.
        before: What it was, if that is known: `from 1.41 MB`.
        change: By which share it changed.
        share: What is left of it, where a bar shall show that; 1 is all.
        detail: What else there is to say.
    """

    label: str
    after: str
    before: str = ""
    change: str = ""
    share: float | None = None
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Cards(Part):
    """Figures side by side."""

    template = "cards.html"

    cards: tuple[Card, ...]


@dataclass(frozen=True)
class Column:
    """The head of a column of a table.

    Attributes:
        title: Its title.
        number: Whether it holds numbers.
    """

    title: str
    number: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What it shows.
        value: What it is sorted by, for numbers.
        share: How much of a bar behind it is filled.
        names: Names of the model that it lists; many are folded.
    """

    text: str = ""
    value: float | None = None
    share: float | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Table(Part):
    """Rows under heads that sort them.

    Attributes:
        columns: Its heads.
        rows: As many cells each.
    """

    template = "table.html"

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Notes(Part):
    """Sentences, one below the other."""

    template = "notes.html"

    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Command(Part):
    """A line for a shell, which can be copied."""

    template = "command.html"

    line: str


@dataclass(frozen=True, kw_only=True)
class Group(Part):
    """Parts that belong to one thing."""

    template = "group.html"

    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        kind: What made it.
        title: What it is about.
        lines: What was done, in a few words each.
        parts: Its parts; None for what there is nothing to say of.
    """

    kind: str
    title: str
    lines: tuple[str, ...]
    parts: tuple[Part | None, ...]

    @property
    def shown(self) -> tuple[Part, ...]:
        """The parts that there are."""
        return tuple(part for part in self.parts if part is not None)


def number(value: float, share: float | None = None) -> Cell:
    """A cell of a whole number."""
    return Cell(f"{value:,}", value, share)


NOTHING = Cell("-")
"""A cell that has nothing to show."""
