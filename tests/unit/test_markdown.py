"""Text as Markdown: what is printed of names shows as it is, and nothing else."""

from __future__ import annotations

import html
import re

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from onnx_upscale.markdown import markdown
from onnx_upscale.text import Line, Table

PRINTED = st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" "), min_size=1)
MEANT = st.text("\\`*_[]<>|~&$-+=#.)!: 1a>", min_size=1)  # What might mean something.
TEXTS = (PRINTED | MEANT).map(str.strip).filter(bool)


def shown(*lines: Line) -> str:
    """What a reader is shown, as HTML."""
    page = "\n".join(markdown(lines))
    return str(MarkdownIt("gfm-like", {"linkify": False, "html": True}).render(page))


@given(TEXTS)
@example("1. first")
@example("12) twelfth")
@example("- item")
@example("---")
@example("# head")
@example("~~~")
@example("<!-- hidden -->")
@example("[text](https://example.org)")
@example("&lt;")
def test_a_line_shows_as_it_is(text: str) -> None:
    found = re.fullmatch("<p>(.*)</p>\n", shown(text))
    assert found, shown(text)
    assert html.unescape(found[1]) == text


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=2, max_size=4))
@example([("a", "b"), ("---", "---")])
@example([("a", "b"), ("|", "\\|")])
def test_cells_show_as_they_are(rows: list[tuple[str, str]]) -> None:
    found = shown(Table(rows))
    cells = re.findall(r"<t[hd]>(.*?)</t[hd]>", found)
    assert [html.unescape(cell) for cell in cells] == [cell for row in rows for cell in row]
    assert found.count("<table>") == 1


def test_lines_are_paragraphs_and_tables_stand_apart() -> None:
    lines: list[Line] = ["head", "", Table([["", "before"], ["size", "2"]]), "one", "two"]
    assert list(markdown(lines)) == [
        *("head", "", "|  | before |", "| --- | --- |", "| size | 2 |"),
        *("", "one", "", "two"),
    ]


def test_a_table_without_a_head_has_an_empty_one() -> None:
    table = Table([["numpy", "2.0"]], headed=False)
    assert list(markdown([table])) == ["|  |  |", "| --- | --- |", "| numpy | 2.0 |"]
