"""Tables that fit a terminal."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table as Laid
from rich.text import Text

from onnx_upscale.text import Line, Table
from onnx_upscale.words import printable

_GAP = 2
_END = re.compile(r"(?: |\x1b\[[0-9;]*m)+$")
_SHORT = 14
"""Cells up to this width are not folded: numbers, sizes, shares."""
_READABLE = 16
"""A column that gets less than that is not worth reading."""


def fitted(lines: Iterable[Line], width: int | None = None, styled: bool | None = None) -> str:
    """Lines for a terminal, in which tables are no wider than it is and nothing is left out.

    Args:
        lines: Texts, which stay as they are, and tables.
        width: Of the terminal; None looks.
        styled: Whether heads may stand out; None asks the environment (NO_COLOR, TERM).
    """
    width = shutil.get_terminal_size().columns if width is None else width
    if styled is None:
        styled = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    console = Console(
        file=io.StringIO(),
        width=width + _GAP,  # Behind the last column there is a gap as well.
        force_terminal=styled,
        color_system="standard" if styled else None,
        no_color=True,
        legacy_windows=False,
        markup=False,
        emoji=False,
        highlight=False,
    )
    return "\n".join(
        part
        for line in lines
        for part in (_laid_out(line, console) if isinstance(line, Table) else [printable(line)])
    )


def _laid_out(table: Table, console: Console) -> list[str]:
    rows = [[printable(cell) for cell in row] for row in table.rows]
    if not table.headed:
        rows = [[""] * len(rows[0]), *rows]
    with console.capture() as captured:
        for part in _parts(rows, console.width - _GAP):
            console.print(part)
    return [_END.sub(_unseen, line) for line in captured.get().splitlines()]


def _unseen(end: re.Match[str]) -> str:
    """The end of a line without spaces, which would go over the edge; styles must end."""
    return end[0].replace(" ", "")


def _parts(rows: list[list[str]], room: int) -> Iterator[RenderableType]:
    """A table under its head; where it would be too narrow, its short columns, the long below."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    if sum(widths) + _GAP * (len(widths) - 1) <= room:
        yield _grid(rows, widths)
        return
    short = [
        place
        for place, column in enumerate(columns)
        if max(map(cell_len, column[1:]), default=0) <= _SHORT
    ]
    least = {place: _least(columns[place]) for place in short}
    long = [place for place in range(len(columns)) if place not in least]
    rest = room - sum(least.values()) - _GAP * (len(columns) - 1)
    shares = _shares([widths[place] for place in long], rest)
    if all(have >= min(widths[p], _READABLE) for have, p in zip(shares, long, strict=True)):
        fitting = {**least, **dict(zip(long, shares, strict=True))}
        if sum(fitting.values()) + _GAP * (len(columns) - 1) <= room:
            yield _grid(rows, [fitting[place] for place in range(len(columns))])
            return
    if sum(least.values()) + _GAP * (len(short) - 1) > room:
        short, long = [], list(range(len(columns)))
    yield from _stacked(rows, short, long, [least[place] for place in short])


def _least(column: Sequence[str]) -> int:
    """The width of cells that are not folded, under a head that may be, between words."""
    head, *cells = column
    return max(map(cell_len, [*cells, *head.split(), ""]))


def _shares(widths: Sequence[int], room: int) -> list[int]:
    """Divides room among columns: as much for each as for any other that could use it."""
    given = [0] * len(widths)
    for left, place in zip(
        range(len(widths), 0, -1), sorted(range(len(widths)), key=widths.__getitem__), strict=True
    ):
        given[place] = min(widths[place], max(room, 0) // left)
        room -= given[place]
    return given


def _grid(rows: Sequence[Sequence[str]], widths: Sequence[int]) -> Laid:
    heads, *body = rows
    grid = Laid(box=None, padding=(0, _GAP, 0, 0), show_header=any(heads))
    for head, width in zip(heads, widths, strict=True):
        grid.add_column(Text(head, style="bold"), width=width, overflow="fold")
    for row in body:
        grid.add_row(*map(Text, row))
    return grid


def _stacked(
    rows: Sequence[Sequence[str]], short: Sequence[int], long: Sequence[int], widths: Sequence[int]
) -> Iterator[RenderableType]:
    """Short cells side by side, and the long ones of each row below them."""
    heads = rows[0]
    if short:
        yield _grid([[heads[place] for place in short]], widths)
    for row in rows[1:]:
        if short:
            yield _grid([[""] * len(short), [row[place] for place in short]], widths)
        for number, place in enumerate(long):
            head = f"{heads[place]}: " if heads[place] else ""
            cell = Text.assemble((head, "bold"), row[place], overflow="fold")
            # What stands first says whose the others are.
            yield Padding(cell, (0, _GAP, 0, _GAP if number or short else 0))
