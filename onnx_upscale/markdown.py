"""Text for people as Markdown, for where it is shown so: comments on a change, logs of a build."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from onnx_upscale.text import Line, Table

_INLINE = re.compile(r"[\\`*_\[\]<>|~&$]")
"""What means something wherever it stands."""
_FIRST = re.compile(r"^(\d*)([-+#=.)])")
"""What would make a line an item of a list, a heading or a rule."""


def markdown(lines: Iterable[Line]) -> Iterator[str]:
    """Lines and tables as GitHub's Markdown.

    Names come from models and mask files: they show as they are, whatever is in them.

    Args:
        lines: What a command prints; empty lines only part what is parted anyway.

    Yields:
        Lines: every line a paragraph, every table one of Markdown.
    """
    first = True
    for line in lines:
        if line == "":
            continue
        if not first:
            yield ""
        first = False
        yield from _table(line) if isinstance(line, Table) else [_paragraph(line)]


def escaped(text: str) -> str:
    """A text that shows as itself in the middle of a line."""
    return _INLINE.sub(r"\\\g<0>", text)


def _paragraph(line: str) -> str:
    return _FIRST.sub(r"\1\\\2", escaped(line.lstrip()))


def _table(table: Table) -> Iterator[str]:
    width = len(table.rows[0])
    head, *rows = table.rows if table.headed else [[""] * width, *table.rows]
    yield _row(map(escaped, head))
    yield _row(["---"] * width)
    for row in rows:
        yield _row(map(escaped, row))


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
