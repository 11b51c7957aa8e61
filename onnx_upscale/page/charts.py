"""Charts whose places are shares of their width: they fit any screen, with one size of text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from onnx_upscale.figures import in_milliseconds
from onnx_upscale.page.parts import Part


@dataclass(frozen=True)
class Whisker:
    """A median and its interval on a common scale.

    Attributes:
        label: Whose.
        text: Both, in words.
        median: Place of the median, in percent of the width.
        low: Place of the lower end.
        high: Place of the upper end.
    """

    label: str
    text: str
    median: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Whiskers(Part):
    """Intervals below each other, from zero."""

    template = "whiskers.html"

    rows: tuple[Whisker, ...]


@dataclass(frozen=True)
class Piece:
    """A piece of a bar.

    Attributes:
        name: What it stands for.
        text: How much that is.
        start: Where it begins, in percent of the width.
        width: Its width, in percent.
    """

    name: str
    text: str
    start: float
    width: float


@dataclass(frozen=True)
class Bar:
    """A bar of pieces: whose it is, how much it is in all, and the pieces."""

    label: str
    text: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, kw_only=True)
class Bars(Part):
    """Bars below each other, on a common scale; every piece has the same place in `names`."""

    template = "bars.html"

    names: tuple[str, ...]
    rows: tuple[Bar, ...]


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: what it says, and where, in percent."""

    text: str
    place: float


@dataclass(frozen=True)
class Point:
    """A point of a plot.

    Attributes:
        label: What it is called.
        text: What is said of it.
        anchor: Where a click on it leads; empty for nowhere.
        x: Its place, in percent from the left.
        y: Its place, in percent from the top.
        low: Where the interval of x begins.
        high: Where it ends.
        on_front: Whether no other is better in both respects.
    """

    label: str
    text: str
    anchor: str
    x: float
    y: float
    low: float
    high: float
    on_front: bool


@dataclass(frozen=True, kw_only=True)
class Front(Part):
    """Points, and a line through those that no other beats in both respects.

    Attributes:
        across: What the x axis is.
        along: What the y axis is.
        x_ticks: Marks of the x axis.
        y_ticks: Marks of the y axis.
        points: The points, from left to right.
    """

    template = "front.html"

    across: str
    along: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    points: tuple[Point, ...]

    @property
    def steps(self) -> tuple[tuple[Point, Point], ...]:
        """The neighbours on the front."""
        best = [point for point in self.points if point.on_front]
        return tuple(itertools.pairwise(best))


def whiskers(
    title: str, rows: Iterable[tuple[str, str, float, float, float]], note: str = ""
) -> Whiskers:
    """Intervals.

    Args:
        title: The heading.
        rows: Of each its label, its text, the median, and the ends of the interval.
        note: What to know.
    """
    read = list(rows)
    scale = 100 / (max(high for *_, high in read) * 1.02 or 1)
    return Whiskers(
        title=title,
        note=note,
        rows=tuple(
            Whisker(label, text, *(round(value * scale, 2) for value in values))
            for label, text, *values in read
        ),
    )


def bars(
    title: str,
    names: Sequence[str],
    rows: Sequence[tuple[str, str, Sequence[tuple[float, str]]]],
    note: str = "",
) -> Bars:
    """Bars of pieces.

    Args:
        title: The heading.
        names: What the pieces are.
        rows: Of each bar its label, its text, and of each piece its size and what that is called.
        note: What to know.
    """
    widest = max(sum(size for size, _ in pieces) for *_, pieces in rows) or 1.0
    made = []
    for label, text, pieces in rows:
        start, placed = 0.0, []
        for name, (size, said) in zip(names, pieces, strict=True):
            width = 100 * size / widest
            placed.append(Piece(name, said, round(start, 2), round(width, 2)))
            start += width
        made.append(Bar(label, text, tuple(placed)))
    return Bars(title=title, note=note, names=tuple(names), rows=tuple(made))


def where_time_goes(rows: Sequence[tuple[str, Mapping[str, float]]], note: str) -> Bars:
    """Bars of seconds.

    Args:
        rows: Of each model its name, and its seconds by what they go to.
        note: Where they come from.
    """
    return bars(
        "Where the time goes",
        tuple(rows[0][1]),
        [
            (
                name,
                in_milliseconds(sum(kinds.values())),
                [(seconds, in_milliseconds(seconds)) for seconds in kinds.values()],
            )
            for name, kinds in rows
        ],
        note,
    )


def ticks(low: float, high: float, text: str = "{:g}") -> tuple[float, float, tuple[Tick, ...]]:
    """An axis that holds a range: where it begins and ends, and round marks on it.

    Args:
        low: The lower end of the range; one that is narrow is widened there, to a hundredth, as
            differences that are nothing should not fill a plot.
        high: Its upper end.
        text: How a mark is written.
    """
    low = min(low, high - (abs(high) / 100 or 1.0))
    span = high - low
    step = 10.0 ** math.floor(math.log10(span / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) < 5 + 1e-6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    marks = tuple(
        Tick(text.format(round(step * n, 10)), round(100 * (n - first) / (last - first), 2))
        for n in range(first, last + 1)
    )
    return first * step, last * step, marks


def on_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points no other beats: one that is no slower and no worse, and better in one respect.

    Args:
        points: Of each its latency and its fidelity.
    """
    return [
        not any(x <= here and y >= there and (x, y) != (here, there) for x, y in points)
        for here, there in points
    ]
