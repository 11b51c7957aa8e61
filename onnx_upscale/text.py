"""Text for people: lines, and tables that whoever prints them lays out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Table:
    """Rows of cells.

    Attributes:
        rows: All have as many cells.
        headed: Whether the first is the head.
    """

    rows: Sequence[Sequence[str]]
    headed: bool = True

    @property
    def lines(self) -> list[str]:
        """Aligned columns, as wide as they need be."""
        widths = [max(len(cell) for cell in column) for column in zip(*self.rows, strict=True)]
        return [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in self.rows
        ]


Line: TypeAlias = "str | Table"


def plain(lines: Iterable[Line]) -> Iterator[str]:
    """Lines in which every table is as wide as it needs to be."""
    for line in lines:
        yield from line.lines if isinstance(line, Table) else [line]
