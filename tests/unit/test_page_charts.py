"""Where charts and pictures of a page put what they show."""

from __future__ import annotations

import itertools
import random
import re

import pytest

from onnx_upscale.page.charts import bars, on_front, ticks, whiskers
from onnx_upscale.page.network import network
from onnx_upscale.report import LayerReport, ReaderReport, SegmentReport


def test_the_front_is_what_no_other_beats() -> None:
    draw = random.Random(0)
    for _ in range(100):
        points = [(draw.randint(0, 5) / 5, draw.randint(0, 5) / 5) for _ in range(7)]
        for (x, y), best in zip(points, on_front(points), strict=True):
            beaten = [p for p in points if (p[0] < x and p[1] >= y) or (p[0] <= x and p[1] > y)]
            assert best == (not beaten)


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0.35, 1.0, ["0.2", "0.4", "0.6", "0.8", "1"]),
        (0.991, 1.0, ["0.99", "0.992", "0.994", "0.996", "0.998", "1"]),
        (0.99999, 1.0, ["0.99", "0.992", "0.994", "0.996", "0.998", "1"]),
        (1.0, 1.0, ["0.99", "0.992", "0.994", "0.996", "0.998", "1"]),
        (-3.0, 250.0, ["-100", "0", "100", "200", "300"]),
        (0.0, 0.0, None),
    ],
)
def test_ticks_are_round_and_hold_the_range(
    low: float, high: float, wanted: list[str] | None
) -> None:
    first, last, marks = ticks(low, high)
    assert first <= low + 1e-9 and high <= last + 1e-9 and first < last
    assert wanted is None or [mark.text for mark in marks] == wanted
    assert [marks[0].place, marks[-1].place] == [0, 100]
    places = [mark.place for mark in marks]
    steps = [b - a for a, b in itertools.pairwise(places)]
    assert max(steps) - min(steps) < 0.1
    assert len({mark.text for mark in marks}) == len(marks) <= 7


def test_whiskers_are_on_one_scale_from_zero() -> None:
    made = whiskers("", [("a", "", 2.0, 1.0, 4.0), ("b", "", 1.0, 1.0, 1.0)])
    first, second = made.rows
    assert first.low < first.median < first.high <= 100
    assert first.median == pytest.approx(2 * second.median, abs=0.02)
    assert first.high == pytest.approx(4 * second.high, abs=0.04)


def test_pieces_of_bars_lie_side_by_side() -> None:
    made = bars("", ["x", "y"], [("a", "", [(3, "3"), (1, "1")]), ("b", "", [(1, "1"), (1, "1")])])
    first, second = made.rows
    assert [(piece.start, piece.width) for piece in first.pieces] == [(0, 75), (75, 25)]
    assert [(piece.start, piece.width) for piece in second.pieces] == [(0, 25), (25, 25)]
    assert bars("", ["x"], [("a", "", [(0.0, "0")])]).rows[0].pieces[0].width == 0


def layer(
    node: str, channels: tuple[int, int, int, int, int], reads: int | None, makes: int
) -> LayerReport:
    return LayerReport(node, "Conv", *channels, reads, makes)


def heights(path: str) -> dict[int, list[float]]:
    """The bars of a path by the place of their layer, those that grow upwards as negative."""
    found: dict[int, list[float]] = {}
    for x, size in re.findall(r"M(\d+) \d+v(-?[\d.]+)h", path):
        found.setdefault(int(x) // 10, []).append(float(size))
    return found


def test_the_picture_of_a_network() -> None:
    layers = [
        layer("a", (3, 3, 3, 64, 48), None, 0),
        layer("b", (64, 48, 12, 16, 16), 0, 1),
        layer("c", (16, 16, 16, 64, 0), 1, 0),
    ]
    reading = ReaderReport("b", 12, 12, "gather", 4000, 2e-5)
    segments = [SegmentReport(0, 64, 48, 48, (), (reading,), (), ())]
    made = network(layers, segments)
    assert made is not None
    assert (made.count, made.width, made.widest) == (3, 30, 64)
    assert heights(made.were) == {0: [-80, 17.3], 1: [-40, 80], 2: [-80, 40]}
    assert heights(made.kept) == {0: [17.3], 1: [69.3], 2: [40]}
    assert heights(made.used) == {0: [-69.3, 17.3], 1: [-40, 34.6], 2: [40]}
    assert re.findall(r"M(\d+)", made.copies) == ["11"]
    (arc,) = made.arcs
    assert arc.segment == 0
    assert re.fullmatch(r"M5 56C5 (-?\d+) 25 \1 25 56", arc.path)
    assert [place.segments for place in made.places] == ["0", "0 1", "0 1"]
    assert made.places[1].text == (
        "b (Conv) reads 12 of 64 (48 are there); makes 16 of 16; gather copies 4.00 kB"
    )
    assert made.places[2].text == "c (Conv) reads 16 of 16; makes 0 of 64"


def test_no_layers_no_picture() -> None:
    assert network([], []) is None
