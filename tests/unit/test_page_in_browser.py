"""Pages in a real browser: nothing fails, nothing overflows, and what can be used works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import PROGRAM, Browser
from onnx_upscale import page
from onnx_upscale.figures import in_bytes
from pages import HOSTILE, SWEEP, comparison, digits, large, outcomes, pruned, renamed

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium here")

_LONG = "/backbone/" + "very_long_name_without_a_break" * 6


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as one:
        yield one


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    one = page.Outcome("out.onnx", pruned(), "onnx-upscale prune in.onnx out.onnx --macs 0.7")
    made = {
        "optimized": page.optimized_page(digits()),
        "benched": page.benched_page(comparison()),
        "pruned": page.pruned_page("in.onnx", [one]),
        "sweep": page.pruned_page("in.onnx", outcomes(SWEEP)),
        "large": page.optimized_page(large()),
        "long": page.optimized_page(renamed(digits(), _LONG)),
        "long-benched": page.benched_page(renamed(comparison(), _LONG)),
        "long-sweep": page.pruned_page(_LONG, [renamed(each, _LONG) for each in outcomes(SWEEP)]),
    }
    made |= {
        f"hostile-{n}": page.optimized_page(renamed(digits(), h)) for n, h in enumerate(HOSTILE)
    }
    found = {name: folder / f"{name}.html" for name in made}
    for name, path in found.items():
        path.write_bytes(page.render(made[name]))
    return found


# What sticks out of the window, but for what lies in a box that scrolls by itself.
_STICKS_OUT = """
[...document.querySelectorAll('main *')].filter(e => {
  const box = e.closest('.scroll'), edge = e.getBoundingClientRect();
  return (!box || box === e) && edge.width && (edge.left < -1 || edge.right > innerWidth + 1);
}).map(e => e.outerHTML.slice(0, 100))
"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1600])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_fails_and_nothing_overflows(
    browser: Browser, pages: dict[str, Path], width: int, dark: bool
) -> None:
    for name, path in pages.items():
        browser.open(path, width, dark=dark)
        browser.ask("document.querySelectorAll('details').forEach(e => { e.open = true; })")
        assert browser.ask("document.documentElement.scrollWidth") <= width, name
        assert browser.ask(_STICKS_OUT) == [], name
        assert browser.problems == [], name


def test_dark_is_dark(browser: Browser, pages: dict[str, Path]) -> None:
    colors = []
    for dark in (False, True):
        browser.open(pages["optimized"], dark=dark)
        colors.append(browser.ask("getComputedStyle(document.body).backgroundColor"))
    assert colors[0] != colors[1]


_COLUMN = """
[...document.querySelectorAll('[aria-label="Layer by layer"] tbody tr')]
  .map(row => row.cells[{}].textContent.trim())
"""
_SORTED = """
[...document.querySelectorAll('[aria-label="Layer by layer"] th')].map(e => e.ariaSort)
"""
_HEAD = '[aria-label="Layer by layer"] th:nth-child({}) button'


def test_heads_sort(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["optimized"])
    read = [layer.read for layer in digits().layers]
    assert browser.ask(_COLUMN.format(5)) == [f"{n}" for n in read]
    browser.point(_HEAD.format(6), click=True)
    assert browser.ask(_COLUMN.format(5)) == [f"{n}" for n in sorted(read, reverse=True)]
    assert browser.ask(_SORTED)[4:7] == ["none", "descending", "none"]
    browser.point(_HEAD.format(6), click=True)
    assert browser.ask(_COLUMN.format(5)) == [f"{n}" for n in sorted(read)]
    browser.point(_HEAD.format(3), click=True)
    operators = [layer.operator for layer in digits().layers]
    assert browser.ask(_COLUMN.format(2)) == sorted(operators)
    assert browser.ask(_SORTED)[2:6] == ["ascending", "none", "none", "none"]
    # What is missing comes last, whatever the order.
    readers = [reader for segment in digits().segments for reader in segment.readers]
    copied = sorted(reader.bytes_copied for reader in readers if reader.bytes_copied)
    missing = ["-"] * (len(digits().layers) - len(copied))
    for order in (copied[::-1], copied):
        browser.point(_HEAD.format(10), click=True)
        assert browser.ask(_COLUMN.format(9)) == [*map(in_bytes, order), *missing]
    assert browser.problems == []


def test_the_keyboard_reaches_everything(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["optimized"])
    focused = "document.activeElement"
    browser.press("Tab")
    assert browser.ask(f"{focused}.getAttribute('class')") == "network"
    outline = f"getComputedStyle({focused}).outlineStyle"
    assert browser.ask(outline) == "solid"
    layers = digits().layers
    for key, place in (("ArrowRight", 0), ("ArrowRight", 1), ("ArrowLeft", 0), ("ArrowLeft", 0)):
        browser.press(key)
        assert browser.ask("document.querySelector('.said').textContent").startswith(
            f"{layers[place].node} "
        )
    bars = len(browser.ask("[...document.querySelectorAll('.stack')].map(e => e.tabIndex)"))
    for _ in range(bars + 3):  # The box of the next table, and its heads.
        browser.press("Tab")
    assert browser.ask(f"{focused}.textContent") == "by"
    assert browser.ask(outline) == "solid"
    browser.press("Enter")
    assert browser.ask(f"{focused}.parentElement.ariaSort") == "ascending"


def test_pointing_says_what_is_there(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["optimized"])
    layers = digits().layers
    browser.point(".network .hit:nth-last-child(3)")
    assert browser.ask("document.querySelector('.said').textContent").startswith(
        f"{layers[-3].node} (Conv) reads "
    )
    # The others of its segments are marked, and nothing else.
    mine = {layers[-3].reads, layers[-3].makes}
    marked = browser.ask(
        "[...document.querySelectorAll('.network .hit')].map(e => e.classList.contains('with'))"
    )
    assert marked == [
        layer != layers[-3] and bool({layer.reads, layer.makes} & mine) for layer in layers
    ]
    browser.open(pages["benched"])
    browser.point(".stack rect")
    assert browser.ask("document.querySelector('.said').textContent").startswith("one: compute ")
    assert browser.problems == []


def test_a_point_leads_to_its_command(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["sweep"])
    browser.point(".front a:last-of-type .hit", click=True)
    assert browser.ask("location.hash") == "#model-1"
    assert browser.ask("document.querySelector('.said').textContent").startswith("out/0.9.onnx")
    assert browser.problems == []


@pytest.mark.parametrize("allowed", [True, False])
def test_commands_can_be_copied(browser: Browser, pages: dict[str, Path], allowed: bool) -> None:
    browser.open(pages["sweep"])
    browser.ask(
        "navigator.clipboard.writeText = async (text) => { window.copied = text;"
        f"if (!{str(allowed).lower()}) throw new Error('not allowed'); }}"
    )
    browser.point("#model-1 .copy", click=True)
    command = outcomes(SWEEP)[0].command
    assert browser.ask("window.copied") == command
    # Where a page may not copy, the command is selected, so that its reader can.
    assert browser.ask("getSelection().toString()") == ("" if allowed else command)
    assert browser.problems == []


def test_no_name_runs_as_a_script(browser: Browser, pages: dict[str, Path]) -> None:
    for number in range(len(HOSTILE)):
        browser.open(pages[f"hostile-{number}"])
        assert browser.ask("window.hit") is None
        assert browser.ask("document.scripts.length") == 1
        assert browser.ask("document.images.length") == 0


def test_no_other_script_would_run(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    content = pages["optimized"].read_text()
    (tmp_path / "page.html").write_text(
        content.replace(
            "<main>", "<main><script>window.hit = 1</script><img src=x onerror='hit=1'>"
        )
    )
    browser.open(tmp_path / "page.html")
    assert browser.ask("window.hit") is None
    assert any("Content Security Policy" in problem for problem in browser.problems)


def test_a_large_page_is_there_at_once(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["large"], 360)
    assert browser.ask("document.querySelectorAll('.network .hit').length") == 1000
    assert browser.ask("document.querySelector('details').open") is False
    # The picture scrolls in its box, and the arrow keys take it along.
    box = "document.querySelector('.network').parentElement"
    assert browser.ask(f"{box}.scrollLeft") == 0
    browser.press("Tab")
    browser.press("ArrowLeft")  # To the last.
    assert browser.ask(f"{box}.scrollLeft + {box}.clientWidth >= {box}.scrollWidth - 2")
    assert browser.problems == []
