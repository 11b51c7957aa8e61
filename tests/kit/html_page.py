"""Reads a page strictly: every element is closed where it must be, and what is where is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"meta", "link", "br", "hr", "img", "input"}
_SHAPES = {"rect", "path", "line", "circle"}


@dataclass
class Element:
    """An element, what it says, and what is in it."""

    tag: str
    attributes: Mapping[str, str | None]
    content: list[Element | str] = field(default_factory=list)

    @property
    def children(self) -> list[Element]:
        """The elements right in it."""
        return [each for each in self.content if isinstance(each, Element)]

    @property
    def own(self) -> str:
        """The text right in it, as it stands there."""
        return "".join(each for each in self.content if isinstance(each, str))

    @property
    def text(self) -> str:
        """All that it says, without the spaces around lines."""
        parts = (each if isinstance(each, str) else each.text for each in self.content)
        return " ".join(filter(None, map(str.strip, parts)))

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """The elements in it with a tag and some attributes; `of` stands for `class`."""
        wanted = {"class" if name == "of" else name: value for name, value in attributes.items()}
        found = [
            child
            for child in self.children
            if child.tag == tag and wanted.items() <= dict(child.attributes).items()
        ]
        return found + [each for child in self.children for each in child.all(tag, **attributes)]

    @property
    def shape(self) -> tuple[object, ...]:
        """Its tag, the names of its attributes, and the same of what is in it."""
        return self.tag, tuple(self.attributes), tuple(child.shape for child in self.children)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice: {attrs}"
        element = Element(tag, dict(attrs))
        self._open[-1].content.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _SHAPES, f"<{tag}/> closes itself"
        self.handle_starttag(tag, attrs)
        self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1].tag == tag, f"</{tag}> closes <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self._open[-1].content.append(data)


def read_page(content: bytes) -> Element:
    """The elements of a page, which must be well-formed."""
    reader = _Reader()
    reader.feed(content.decode())
    reader.close()
    assert reader._open == [reader.root], f"<{reader._open[-1].tag}> is never closed"
    return reader.root


def headings(page: Element) -> list[str]:
    """What its sections are called."""
    return [heading.text for heading in page.all("h2")]


def table(page: Element, title: str) -> list[list[str]]:
    """The rows of a table of a page, the head first."""
    (box,) = page.all("div", of="scroll", **{"aria-label": title})
    return [[cell.text for cell in row.children] for row in box.all("tr")]
