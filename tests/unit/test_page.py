"""Pages: what they show of what is known, and what they leave out."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import re
from collections.abc import Mapping
from typing import Any

import pytest

import onnx_upscale
from build import Net
from html_page import Element, headings, read_page, table
from onnx_upscale import page, tables
from onnx_upscale.benchmark.statistics import Estimate
from onnx_upscale.figures import in_milliseconds
from onnx_upscale.page.parts import Page
from onnx_upscale.report import Copies, VerifyReport
from onnx_upscale.reporting import Planned
from onnx_upscale.words import printable
from pages import HOSTILE, MODELS, SWEEP, comparison, digits, large, outcomes, pruned, renamed


@functools.cache
def plans() -> Mapping[str, Planned]:
    found = onnx_upscale.analyze(MODELS / "digits.onnx", MODELS / "digits.masks.json")
    return tables.plans_of(found, "cpu-avx512")


def analyzed(name: str | None = None) -> Page:
    return page.analyzed_page(name or "digits.onnx", plans(), [name] if name else [])


def all_pages(name: str) -> list[Page]:
    """A page of each kind, on which everything is called so."""
    one = page.Outcome(name, renamed(pruned(), name), name)
    several = [renamed(each, name) for each in outcomes(SWEEP)]
    return [
        page.optimized_page(renamed(digits(), name)),
        analyzed(name),
        page.benched_page(renamed(comparison(), name)),
        page.pruned_page(name, [one]),
        page.pruned_page(name, several),
    ]


def shown(made: Page) -> Element:
    return read_page(page.render(made))


def cards(root: Element) -> dict[str, list[str]]:
    found = [[part.text for part in card.children] for card in root.all("div", of="card")]
    return {label: [text for text in texts if text] for label, *texts in found}


class TestOptimized:
    def test_it_shows_what_was_done(self) -> None:
        root = shown(page.optimized_page(digits()))
        assert root.all("h1")[0].text == "digits.onnx"
        assert headings(root) == [
            *("The network", "Where the time goes", "Copies", "Why channels stay"),
            *("What is coupled", "Layer by layer"),
        ]
        assert "Equal to the masked model on 1 random input; largest difference" in root.text
        assert "Masks of 19 layers prune 495 input channels and 66 output channels" in root.text
        found = cards(root)
        assert found["size"] == ["800.00 kB", "-43.4% from 1.41 MB"]
        assert found["copies"] == ["413.70 kB", "per inference, by 7 nodes added"]
        assert list(found) == ["size", "weights", "multiply-adds", "copies", "latency"]
        times = digits().predicted
        before, after = (sum(each.values()) for each in (times.before, times.after))
        text, *said = found["latency"]
        assert text == in_milliseconds(after)
        assert said[0] == f"{after / before - 1:+.1%} from {in_milliseconds(before)}"

    def test_every_layer_and_segment_has_a_row(self) -> None:
        report = digits()
        root = shown(page.optimized_page(report))
        head, *rows = table(root, "Layer by layer")
        assert head[3:8] == ["inputs", "kept", "read", "outputs", "made"]
        for row, layer in zip(rows, report.layers, strict=True):
            numbers = (layer.inputs, layer.kept, layer.read, layer.outputs, layer.made)
            assert row[1:8] == [layer.node, layer.operator, *map(str, numbers)]
        _, *rows = table(root, "What is coupled")
        for row, segment in zip(rows, report.segments, strict=True):
            assert row[:4] == [
                *map(str, (segment.id, segment.channels, segment.needed, segment.kept)),
            ]
            assert all(writer.node in row[4] for writer in segment.writers)
            assert all(f"{reader.node} ({reader.read})" in row[5] for reader in segment.readers)

    def test_copies_and_reasons(self) -> None:
        report = digits()
        root = shown(page.optimized_page(report))
        _, *rows = table(root, "Copies")
        readers = [reader for segment in report.segments for reader in segment.readers]
        copied = {reader.node: reader.realization for reader in readers if reader.bytes_copied}
        assert {row[0]: row[1] for row in rows} == copied
        takes = {r.node: in_milliseconds(r.seconds_copying) for r in readers if r.bytes_copied}
        assert {row[0]: row[5] for row in rows} == takes
        assert all(float(each.split()[0]) > 0 for each in takes.values())
        assert len(rows) == report.copies.count
        _, *rows = table(root, "Why channels stay")
        assert ["graph output", "all, in their order", "11", "1", "10"] in rows
        more = sum(segment.kept - segment.needed for segment in report.segments)
        assert rows[0][-1] == str(more) > "0"

    def test_zeros_that_are_added(self) -> None:
        report = digits()
        segment = report.segments[1]
        padding = dataclasses.replace(segment.writers[0], realization="pad", channels=40)
        segment = dataclasses.replace(segment, writers=(padding,), readers=())
        root = shown(page.optimized_page(dataclasses.replace(report, segments=(segment,))))
        assert table(root, "Copies")[1:] == [[padding.node, "pad", "1", "-", "40", "-", "-"]]

    def test_the_picture(self) -> None:
        report = digits()
        root = shown(page.optimized_page(report))
        (picture,) = root.all("svg", of="network")
        said = [hit.attributes["data-t"] for hit in picture.all("rect", of="hit")]
        for text, layer in zip(said, report.layers, strict=True):
            assert text is not None
            assert text.startswith(f"{layer.node} ({layer.operator}) reads {layer.read} of ")
            assert f"makes {layer.made} of {layer.outputs}" in text
        marks = picture.all("path", of="mark")[0].attributes["d"] or ""
        assert marks.count("M") == report.copies.count
        # Every bar of what there was, and one more where a tensor still holds what is not read.
        paths = [picture.all("path", of=name)[0].attributes["d"] or "" for name in ("were", "used")]
        assert [path.count("M") for path in paths] == [2 * len(report.layers)] * 2
        makes = [layer.makes for layer in report.layers]
        coupled = {str(each) for each in makes if makes.count(each) > 1}
        assert {arc.attributes["data-s"] for arc in picture.all("path", of="arc")} == coupled

    @pytest.mark.parametrize(
        ("without", "gone"),
        [
            ({"copies": Copies(0, 0), "segments": ()}, {"Copies", "What is coupled"}),
            ({"layers": ()}, {"The network", "Layer by layer"}),
        ],
    )
    def test_what_is_not_known_is_left_out(self, without: dict[str, Any], gone: set[str]) -> None:
        whole = headings(shown(page.optimized_page(digits())))
        less = dataclasses.replace(digits(), **without)
        root = shown(page.optimized_page(less))
        assert ("copies" in cards(root)) == bool(less.copies.count)
        assert set(whole) - set(headings(root)) >= gone
        assert not [section for section in root.all("section") if not section.text]

    def test_a_model_without_layers(self) -> None:
        net = Net(17, x=[1, 4])
        report = onnx_upscale.optimize(net.model(net("Relu", "x")), verify=False).report
        root = shown(page.optimized_page(report))
        assert root.all("h1")[0].text == "a model in memory"
        assert headings(root) == ["Where the time goes"]
        assert list(cards(root)) == ["size", "latency"]
        assert "qual to" not in root.text

    def test_verification_that_failed(self) -> None:
        wrong = VerifyReport(True, 2, 0.5, None, False, ("a doubt",))
        root = shown(page.optimized_page(dataclasses.replace(digits(), verify=wrong)))
        assert (
            "Verification failed: it differs from the masked model on 2 random inputs" in root.text
        )
        assert "Equal to" not in root.text
        assert root.all("li")[-1].text == "a doubt"

    def test_what_repair_gains(self) -> None:
        recovered = pruned().report.recovered.to_json()
        recovered["outputs"][0].update(agreement_after=0.75, agreement_before=0.5)
        root = shown(page.optimized_page(dataclasses.replace(digits(), recovered=recovered)))
        assert cards(root)["same top-1"][:2] == ["75.00%", "from 50.00% without repair"]
        assert "Equal to the repaired masked model" in root.text


def test_analyzed() -> None:
    root = shown(analyzed())
    assert headings(root) == [
        *("Strategies", "The network", "Why channels stay", "What is coupled", "Layer by layer"),
    ]
    _, *rows = table(root, "Strategies")
    assert [row[0] for row in rows] == ["auto", "upscale", "gather", "constrained"]
    assert rows[-1][2:] == ["0 B", "0"]
    assert rows[0][3] == "7"


class TestBenched:
    def test_two_models(self) -> None:
        found = comparison()
        root = shown(page.benched_page(found))
        assert root.all("h1")[0].text == "one and two"
        assert headings(root) == [
            *("Latency", "Where the time goes", "Models", "Operators", "To keep in mind"),
        ]
        one, two = found.models
        low, median = (in_milliseconds(each) for each in (two.latency.low, two.latency.median))
        assert cards(root)["latency"][0] == median
        assert f"{median} ({low.removesuffix(' ms')} to " in root.text
        assert one.operators is not None
        _, *rows = table(root, "Operators")
        assert {row[0] for row in rows} >= set(one.operators.seconds)
        pieces = root.all("rect", of="p0 hit")
        compute = in_milliseconds(one.operators.categories["compute"])
        assert pieces[0].attributes["data-t"] == f"one: compute {compute}"

    def test_without_a_profile_and_with_one_model(self) -> None:
        (one, _), whole = comparison().models, comparison()
        alone = dataclasses.replace(one, operators=None)
        root = shown(page.benched_page(dataclasses.replace(whole, models=(alone,), warnings=())))
        assert headings(root) == ["Latency", "Models"]
        assert cards(root) == {}

    @pytest.mark.parametrize(("ratio", "filled"), [(0.25, 25.0), (1.0, 100.0), (4.98, 100.0)])
    def test_a_slower_model_fills_its_bar_and_no_more(self, ratio: float, filled: float) -> None:
        whole = comparison()
        one, two = whole.models
        slower = dataclasses.replace(two, ratio=Estimate(ratio, ratio, ratio))
        root = shown(page.benched_page(dataclasses.replace(whole, models=(one, slower))))
        assert root.all("rect", of="used")[0].attributes["width"] == f"{filled}%"
        assert cards(root)["latency"][1].startswith(f"{ratio - 1:+.1%}")

    def test_memory_is_shown_where_it_is_known(self) -> None:
        models = [dataclasses.replace(each, peak_memory=5_000_000) for each in comparison().models]
        root = shown(page.benched_page(dataclasses.replace(comparison(), models=tuple(models))))
        assert cards(root)["peak memory"] == ["5.00 MB", "+0.0% from 5.00 MB"]
        assert table(root, "Models")[0][-1] == "memory"


class TestPruned:
    def test_one_model(self) -> None:
        made = pruned()
        root = shown(page.pruned_page("in.onnx", [page.Outcome("out.onnx", made, "the command")]))
        assert (
            headings(root)
            == [
                *("The network", "What the repair did", "Why channels stay", "What is coupled"),
                *("Layer by layer", "Make it again", "To keep in mind"),
            ][: 7 if made.warnings else 6]
        )
        assert "Goal macs 0.7: written to out.onnx" in root.text
        assert list(cards(root)) == [
            *("latency", "same top-1", "error of the outputs", "size", "weights", "multiply-adds"),
        ]
        ratio = made.report.latency[1].ratio
        assert f"ratio {ratio.median:.3f}, 95% interval {ratio.low:.3f}" in root.text
        assert root.all("pre")[0].text == "the command"

    def test_a_sweep_shows_its_front(self) -> None:
        root = shown(page.pruned_page("in.onnx", outcomes(SWEEP)))
        assert headings(root)[:2] == ["Fidelity against latency", "Models"]
        (plot,) = root.all("svg", of="front")
        names = [text.text for text in plot.all("text", of="name")]
        assert names == ["0.5", "0.6", "0.7", "0.9", "original"]
        assert len(plot.all("line", of="step")) == 3  # Through all but the one that is beaten.
        (beaten,) = plot.all("circle", of="hit beaten")
        assert (beaten.attributes["data-t"] or "").startswith("out/0.7.onnx")
        # Every point leads to the command that makes its model.
        for link in plot.all("a"):
            anchor = (link.attributes["href"] or "").removeprefix("#")
            (group,) = root.all("section", id=anchor)
            goal = group.all("h2")[0].text.removeprefix("out/").removesuffix(".onnx")
            assert group.all("pre")[0].text.endswith(f"'my samples.npz' --latency {goal}")
        head, *rows = table(root, "Models")
        assert head == [
            *("model", "latency", "predicted", "multiply-adds", "weights", "same top-1", "error"),
        ]
        assert [row[1] for row in rows] == [f"{ratio:.3f}" for ratio, _ in SWEEP.values()]


class TestAnyPage:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_names_are_never_markup(self, name: str) -> None:
        for plain, strange in zip(all_pages("plain"), all_pages(name), strict=True):
            root = shown(strange)
            assert root.shape == shown(plain).shape
            assert printable(name) in root.text

    @pytest.mark.parametrize("number", range(5))
    def test_it_needs_nothing_else(self, number: int) -> None:
        content = page.render(all_pages("plain")[number])
        root = read_page(content)
        for element in [
            each for tag in ("script", "link", "img", "iframe") for each in root.all(tag)
        ]:
            assert element.tag == "script" and not element.attributes
        assert all((a.attributes["href"] or "").startswith("#") for a in root.all("a"))
        assert not re.search(r"url\(|@import|https?:", content.decode())
        (script,) = root.all("script")
        policy = root.all("meta")[1].attributes["content"] or ""
        digest = base64.b64encode(hashlib.sha256(script.own.encode()).digest()).decode()
        assert policy.startswith("default-src 'none'; ")
        assert policy.endswith(f"script-src 'sha256-{digest}'")
        anchors = [each.attributes["id"] for each in root.all("section") if "id" in each.attributes]
        assert len(set(anchors)) == len(anchors)

    def test_the_same_page_is_the_same_file(self) -> None:
        one, other = (page.render(page.optimized_page(digits())) for _ in range(2))
        assert one == other

    def test_a_thousand_layers_are_a_small_page(self) -> None:
        content = page.render(page.optimized_page(large()))
        assert len(content) < 1_500_000
        root = read_page(content)
        assert len(table(root, "Layer by layer")) == 1001
        assert len(root.all("svg", of="network")) == 1
        folded = [each.all("summary")[0].text for each in root.all("details")]
        assert {"Layer by layer", "What is coupled"} <= set(folded)
