"""The comparison with an earlier package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import against
import onnx_upscale

ROOT = Path(onnx_upscale.__file__).parents[1]
DIGITS = ROOT / "models" / "digits.onnx"
EARLIER = """
import shutil
from types import SimpleNamespace

def optimize(model, masks, strategy, verify):
    copies = SimpleNamespace(count=ord(strategy[0]), bytes=2_000_000)
    return SimpleNamespace(
        save=lambda out: shutil.copy(model, out), report=SimpleNamespace(copies=copies)
    )
"""


@pytest.fixture(autouse=True)
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(against, "TIMES", 1)
    monkeypatch.setattr(against, "TURNS", 2)


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    path = tmp_path / "masks.json"
    path.write_bytes(DIGITS.with_name("digits.masks.json").read_bytes())
    return path


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A package that leaves models as they are and says of copies what the strategy begins with."""
    package = tmp_path / "earlier" / "onnx_upscale"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(EARLIER)
    return package.parent


def test_a_package_against_itself(masks: Path) -> None:
    found = against.compared((ROOT, ROOT), DIGITS, masks, runs=3, commands=1)
    assert list(found.ratios) == ["optimizer", "command"]
    assert found.cells[-1] == "same bytes"
    assert len(found.cells) == 5 + len(against.STRATEGIES)
    assert not [cell for cell in found.cells[4:] if "->" in cell]


def test_each_package_is_asked_for_each_strategy(
    masks: Path, earlier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells of copies beside a package of which they are known; times only where asked."""
    here = [
        onnx_upscale.optimize(DIGITS, masks, strategy=strategy, verify=False).report.copies
        for strategy in against.STRATEGIES
    ]
    ours = [f"{copies.count} ({copies.bytes / 1e6:.2f} MB)" for copies in here]
    theirs = [f"{ord(strategy[0])} (2.00 MB)" for strategy in against.STRATEGIES]
    found = against.compared((earlier, ROOT), DIGITS, masks, runs=0, commands=0)
    assert found.cells[4:] == [*(f"{a} -> {b}" for a, b in zip(theirs, ours, strict=True)), ""]
    timed = list[bool]()

    def bench(paths: Sequence[str], names: Sequence[str], **_: Any) -> SimpleNamespace:
        as_it_was = DIGITS.read_bytes()
        timed.extend(Path(path).read_bytes() == as_it_was for path in paths)
        assert names == ["old", "new"]
        ratios = [SimpleNamespace(ratio=SimpleNamespace(median=median)) for median in (1, 1.25)]
        return SimpleNamespace(models=ratios)

    monkeypatch.setattr(onnx_upscale, "bench", bench)
    found = against.compared((ROOT, earlier), DIGITS, masks, runs=2, commands=0)
    assert found.cells[4:-1] == [f"{a} -> {b}" for a, b in zip(ours, theirs, strict=True)]
    assert (timed, found.ratios["latency"], found.cells[-1]) == ([False, True], 1.25, "1.250")


def test_ratios_are_new_to_old() -> None:
    found = against.Compared()
    found.add("optimizer", 2.0, 1.0)
    assert found.ratios == {"optimizer": 0.5}
    assert found.cells == ["2.000 -> 1.000", "0.50"]
