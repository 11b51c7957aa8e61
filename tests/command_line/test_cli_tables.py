"""Tables on terminals, and the same where there is none."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import pty
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import onnx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from command import run, small
from onnx_upscale.cli import progress
from onnx_upscale.cli.terminal import fitted
from onnx_upscale.text import Table, plain
from onnx_upscale.words import printable

STYLE = re.compile(r"\x1b\[[0-9;]*m")
LONG = "/layers/layers.0/blocks/blocks.1/attention/projection/MatMul"


def characters(text: str) -> Counter[str]:
    return Counter("".join(text.split()))


CELL = st.one_of(
    st.text("abcd /._0", max_size=40),
    st.from_regex(r"[0-9]{1,4}( kB)?", fullmatch=True),
    st.sampled_from([LONG, "", "[bold]x[/]", ":smile:", "\u5c42\u540d" * 9, "a\x1b[2Jb\nc"]),
)
TABLES = st.integers(1, 10).flatmap(
    lambda columns: st.lists(
        st.lists(CELL, min_size=columns, max_size=columns), min_size=1, max_size=5
    )
)


@given(TABLES, st.integers(24, 200), st.booleans(), st.booleans())
@example([["id", "name"], ["1", LONG]], 24, False, True)
@example([["a"] * 10, ["1234567890123"] * 10], 30, True, True)
def test_nothing_is_wider_than_the_terminal_and_nothing_is_lost(
    rows: list[list[str]], width: int, styled: bool, headed: bool
) -> None:
    table = Table(rows, headed)
    shown = STYLE.sub("", fitted([table], width, styled))
    for line in shown.split("\n"):
        assert cell_len(line) <= width
        assert line.isprintable()
    wanted = Counter[str]()
    if len(rows) > 1 or not headed:  # A head with nothing below it may not be worth a line.
        wanted = characters("".join(map(printable, itertools.chain(*rows))))
    assert wanted <= characters(shown)


def test_what_fits_is_laid_out_as_it_is_in_a_file() -> None:
    table = Table([["", "before", "after"], ["size", "1.41 MB", "0.87 MB"], ["copies", "0", "7"]])
    assert fitted([table], 80, False).split("\n") == table.lines
    assert fitted(["a line", table], 80, False).split("\n") == list(plain(["a line", table]))


def test_long_cells_are_folded() -> None:
    table = Table([["id", "writers"], ["0", f"{LONG}, {LONG}"]])
    head, first, *others = fitted([table], 40, False).split("\n")
    assert (head, first) == ("id  writers", f"0   {LONG[:36]}")
    assert len(others) == 3
    # Where a word goes on is rich's to say.
    assert "".join(line.removeprefix("    ") for line in (first[4:], *others)) in (
        f"{LONG},{LONG}",
        f"{LONG}, {LONG}",
    )


def test_long_cells_stand_below_where_there_is_no_room() -> None:
    table = Table([["id", "writers", "readers", "copied bytes"], ["0", LONG, LONG, "12.34 kB"]])
    assert fitted([table], 44, False).split("\n") == [
        "    copied",
        "id  bytes",
        "0   12.34 kB",
        "  writers:",
        "  /layers/layers.0/blocks/blocks.1/attention",
        "  /projection/MatMul",
        "  readers:",
        "  /layers/layers.0/blocks/blocks.1/attention",
        "  /projection/MatMul",
    ]


def test_all_cells_stand_below_each_other_where_nothing_fits() -> None:
    table = Table([[f"column{n}" for n in range(8)], [str(n) for n in range(8)]])
    lines = fitted([table], 30, False).split("\n")
    assert lines[:2] == ["column0: 0", "  column1: 1"]
    assert len(lines) == 8


def in_a_terminal(*arguments: str, **environment: str) -> str:
    """What a terminal of 80 columns would get."""
    ours, theirs = pty.openpty()
    names = {"NO_COLOR", "TERM"} - environment.keys()
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    with subprocess.Popen(
        [sys.executable, "-m", "onnx_upscale", *arguments],
        stdout=theirs,
        stderr=subprocess.PIPE,
        env={"TERM": "xterm", **inherited, "COLUMNS": "80", **environment},
    ) as process:
        os.close(theirs)
        text = b""
        while True:
            try:
                part = os.read(ours, 1 << 16)
            except OSError:  # Linux says so at the end.
                break
            if not part:
                break
            text += part
        assert process.stderr is not None
        assert process.stderr.read() == b""
    os.close(ours)
    assert process.returncode == 0
    return text.decode().replace("\r\n", "\n")


@pytest.mark.usefixtures("here")
class TestTerminals:
    @pytest.fixture(autouse=True)
    def long_names(self, here: Path) -> None:
        model = small().model("second.0")
        for node in model.graph.node:
            node.name = f"{LONG}/{node.name}\x1b[2J"
        onnx.save(model, "in.onnx")

    def test_a_terminal(self) -> None:
        text = in_a_terminal("analyze", "in.onnx")
        assert "\x1b[1m" in text
        lines = STYLE.sub("", text).splitlines()
        assert all(line.isprintable() and cell_len(line) <= 80 for line in lines)
        assert len(lines) > len(run("analyze", "in.onnx").stdout.splitlines())

    @pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
    def test_a_terminal_without_colors(self, environment: dict[str, str]) -> None:
        lines = in_a_terminal("analyze", "in.onnx", **environment).splitlines()
        assert all(line.isprintable() and cell_len(line) <= 80 for line in lines)

    def test_no_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = run("analyze", "in.onnx").stdout
        assert max(map(len, expected.splitlines())) > 100
        assert all(line.isprintable() for line in expected.splitlines())
        for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "CLICOLOR_FORCE"):
            monkeypatch.setenv(name, "1")
        command = [sys.executable, "-m", "onnx_upscale", "analyze", "in.onnx"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.stdout, done.stderr) == (expected, "")

    def test_json_on_a_terminal(self) -> None:
        assert in_a_terminal("analyze", "in.onnx", "--json") == (
            run("analyze", "in.onnx", "--json").stdout
        )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestBars:
    @pytest.fixture(autouse=True)
    def eager(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(progress, "_PATIENCE", -1.0)
        monkeypatch.setattr(progress, "_OFTEN", 0.0)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)

    def shown(self) -> str:
        stream = Terminal()
        with contextlib.redirect_stderr(stream), progress.progress_bars() as tell:
            for what in ("First [bold]", "Then\x1b[2J"):
                for done in range(1, 4):
                    tell(what, done, 3)
        return stream.getvalue()

    def test_one_after_the_other(self) -> None:
        text = self.shown()
        assert "First [bold]" in text
        assert "Then\\x1b[2J" in text
        assert "\x1b[2J" not in text
        assert "33%" in text and "100%" in text
        assert "\x1b[3" in text

    def test_without_colors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NO_COLOR", "1")
        assert "\x1b[3" not in self.shown()

    def test_a_terminal_that_can_do_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TERM", "dumb")
        assert "\x1b" not in self.shown()

    def test_results_stay_where_they_go(self) -> None:
        before = sys.stdout, sys.stderr
        self.shown()
        assert (sys.stdout, sys.stderr) == before
