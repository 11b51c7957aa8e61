"""The comparison of tools/: its table, its turns, and how it finds a latency."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import prune_study
from experiment.comparison import rows as results
from experiment.comparison.jobs import METHODS, Job, Wanted, all_jobs
from experiment.comparison.matching import Curve
from experiment.comparison.rows import Row, append, read
from experiment.comparison.tables import report
from experiment.comparison.turns import Turns, claimed

NAN = float("nan")


def row(method: str = "prune", wanted: float = 0.7, lost: float = 1.0, **changes: object) -> Row:
    """A run that gets there exactly and loses some points."""
    made = Row(
        "glyphs", "resnet", 0, method, 512, wanted,
        predicted=0.7, ratio=wanted, accuracy=0.9 - lost / 100, dense=0.9, seconds=2.5,
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def nothing(method: str, wanted: float = 0.7) -> Row:
    return row(method, wanted, ratio=NAN, accuracy=NAN, predicted=NAN, note="too\nslow, at best")


class TestRows:
    def test_round_trip(self, tmp_path: Path) -> None:
        table = tmp_path / "new" / "results.csv"
        append(table, [row()])
        append(table, [nothing("l1"), row("l1+recover")])
        first, second, third = read(table)
        assert (first, third) == (row(), row("l1+recover"))
        assert second.cell == nothing("l1").cell
        assert math.isnan(second.accuracy)
        assert not second.reached
        assert second.note == "too slow, at best"

    def test_nothing_yet(self, tmp_path: Path) -> None:
        assert read(tmp_path / "none.csv") == []

    @pytest.mark.parametrize("cut", [1, 10, 30])
    def test_a_line_that_was_cut_is_written_again(self, tmp_path: Path, cut: int) -> None:
        table = tmp_path / "results.csv"
        append(table, [row(), row(wanted=0.5)])
        whole = table.read_bytes()
        table.write_bytes(whole[:-cut])
        assert read(table) == [row()]
        append(table, [row(wanted=0.5)])
        assert table.read_bytes() == whole

    def test_a_head_that_was_cut_is_written_again(self, tmp_path: Path) -> None:
        table = tmp_path / "results.csv"
        table.write_text("data,netw")
        append(table, [row()])
        assert read(table) == [row()]

    def test_the_last_result_counts(self, tmp_path: Path) -> None:
        table = tmp_path / "results.csv"
        append(table, [row(), row(lost=3)])
        assert read(table) == [row(lost=3)]


class TestJobs:
    def test_masks_of_a_criterion_make_two_rows(self) -> None:
        job = Job("digits", "vit", 1, "l1-constrained", 512, (0.7,))
        methods = [cell.method for cell in job.cells(0.7)]
        assert methods == ["l1-constrained", "l1-constrained+recover"]
        assert job.criterion == "l1"

    def test_no_cell_twice(self) -> None:
        for full in (False, True):
            jobs = all_jobs(Wanted(full=full))
            cells = [cell for job in jobs for wanted in job.wanted for cell in job.cells(wanted)]
            assert len(set(cells)) == len(cells)

    def test_full_is_more(self) -> None:
        some, everything = (all_jobs(Wanted(full=full)) for full in (False, True))
        assert {job.method for job in some} == set(METHODS)
        assert {job.name for job in some} < {job.name for job in everything}

    def test_training_comes_last(self) -> None:
        trained = [job.method == "finetuned" for job in all_jobs(Wanted(seeds=[1, 0]))]
        assert any(trained)
        assert trained == sorted(trained)


class TestCurve:
    SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)

    def curve(self, measured: list[float], predicted: list[float] | None = None) -> Curve:
        self.asked: list[float] = []

        def measure(share: float) -> float:
            self.asked.append(share)
            return measured[self.SHARES.index(share)]

        expected = predicted or measured
        return Curve(self.SHARES, lambda share: expected[self.SHARES.index(share)], measure)

    def test_a_good_prediction_is_measured_once(self) -> None:
        curve = self.curve([0.9, 0.8, 0.7, 0.6, 0.5])
        assert curve.reach(0.7) == 0.3
        assert self.asked == [0.3]

    @pytest.mark.parametrize("predicted", [[0.99] * 5, [0.1] * 5])
    def test_a_bad_prediction_is_corrected(self, predicted: list[float]) -> None:
        curve = self.curve([0.9, 0.8, 0.7, 0.6, 0.5], predicted)
        assert [curve.reach(wanted) for wanted in (0.8, 0.7, 0.5)] == [0.2, 0.3, 0.5]
        assert len(self.asked) == len(set(self.asked))

    def test_a_jump_ends_on_its_fast_side(self) -> None:
        assert self.curve([0.9, 0.9, 0.5, 0.5, 0.4]).reach(0.7) == 0.3

    def test_the_least_share_of_equals(self) -> None:
        assert self.curve([0.9, 0.7, 0.7, 0.7, 0.4]).reach(0.7) == 0.2

    def test_too_slow_at_the_end(self) -> None:
        curve = self.curve([0.9, 0.9, 0.8, 0.8, 0.8])
        assert curve.reach(0.5) is None
        assert curve.measured[0.5] == 0.8


class Waiting:
    """A step that may have to wait, in a thread of its own."""

    def __init__(self, step: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=step, daemon=True)
        self._thread.start()

    def over(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()


@pytest.fixture
def turns(tmp_path: Path) -> Iterator[list[Turns]]:
    made = [Turns(tmp_path) for _ in range(3)]
    yield made
    for each in made:
        each.close()


class TestTurns:
    def test_alone_waits_for_those_who_compute(self, turns: list[Turns]) -> None:
        one, other, _ = turns
        one.share()
        other.share()
        alone = Waiting(other.alone)
        assert not alone.over(0.1)
        one.leave()
        assert alone.over(10)
        back = Waiting(one.share)
        assert not back.over(0.1)
        other.share()
        assert back.over(10)

    def test_who_waits_to_measure_is_next(self, turns: list[Turns], tmp_path: Path) -> None:
        one, other, third = turns
        one.share()
        measuring = Waiting(other.alone)
        assert any(_held(tmp_path / "gate.lock") or measuring.over(0.01) for _ in range(500))
        assert not measuring.over(0)
        late = Waiting(third.share)
        assert not late.over(0.1)
        one.leave()
        assert measuring.over(10)
        assert not late.over(0.1)
        other.leave()
        assert late.over(10)

    def test_a_claim_is_held_once(self, tmp_path: Path) -> None:
        path = tmp_path / "claims" / "job"
        with claimed(path) as mine, claimed(path) as again:
            assert (mine, again) == (True, False)
        with claimed(path) as mine:
            assert mine


def _held(path: Path) -> bool:
    with claimed(path) as mine:
        return not mine


class TestTables:
    def test_points_lost(self) -> None:
        rows = [row(lost=1), row(lost=2, seed=1), row(wanted=0.5, lost=4)]
        assert "| glyphs | prune | 1.50 | 4.00 | 2.5 |" in report(rows)

    def test_only_runs_that_got_there_count(self) -> None:
        text = report([row(), row("l1", lost=30), replace(nothing("l1"), seed=1)])
        assert "| glyphs | l1 | 30.00 (1 of 2) | 2.5 |" in text
        assert "| l1 | 2 | 1 | 100% | +0.0% | +0.0% to +0.0% |" in text

    def test_more_than_prune_in_the_same_runs(self) -> None:
        rows = [row(lost=1), row(lost=9, seed=1), row("onnxsim", lost=3)]
        table = report(rows).partition("## How much more")[2].partition("##")[0]
        assert "| glyphs | onnxsim | +2.00 | 2.5 |" in table
        assert "| glyphs | prune | +0.00 | 2.5 |" in table

    def test_modes_side_by_side(self) -> None:
        rows = [row(), row("prune-agreement", lost=2), row("prune-freedom", lost=3)]
        assert "| glyphs | resnet | 90.00% | 1.00 / 2.00 / 3.00 |" in report(rows)

    def test_what_is_better_is_said(self) -> None:
        rows = [
            row(),
            row("l1+recover", lost=0.2),
            row("onnxsim", lost=1),
            row("finetuned", lost=0),
        ]
        table = report(rows).partition("## Where something")[2].partition("##")[0]
        assert "| glyphs | resnet | 0.7 | l1+recover | 0.20 | 1.00 |" in table
        assert "onnxsim" not in table
        assert "finetuned" not in table
        assert "Nowhere." in report(rows[:1])

    def test_how_near_latencies_are(self) -> None:
        rows = [row(ratio=0.7 * 1.04), row(seed=1, ratio=0.7 * 0.9)]
        assert "| prune | 2 | 0 | 50% | -3.0% | -10.0% to +4.0% |" in report(rows)

    def test_fewer_samples(self) -> None:
        rows = [row(lost=1), row(lost=9, network="vit"), row(lost=3, samples=32)]
        text = report(rows)
        assert "| data | wanted | 32 | 512 |" in text
        assert "| glyphs | 0.7 | 3.00 | 1.00 |" in text
        assert "| glyphs | prune | 5.00 | 2.5 |" in text

    def test_fields(self) -> None:
        rows = [row(), row("l1")]
        assert results.chosen(rows, method="l1") == rows[1:]


class TestPlots:
    def test_files(self, tmp_path: Path) -> None:
        plots = pytest.importorskip("experiment.comparison.plots", reason="needs matplotlib")
        rows = [row(), row("l1", lost=30), nothing("onnxsim"), row(samples=32, lost=2)]
        names = {path.name for path in plots.draw(rows, tmp_path)}
        assert names == {"latency-glyphs.svg", "latency-glyphs.png", "samples.svg", "samples.png"}
        assert "prune" in (tmp_path / "latency-glyphs.svg").read_text()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Laid out like ImageNet's validation images, with some in every hundredth class."""
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    rng = np.random.default_rng(0)
    for label in range(1000):
        (tmp_path / "val" / f"n{label:08}").mkdir(parents=True)
    for label in range(0, 1000, 100):
        pixels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        image.fromarray(pixels).save(tmp_path / "val" / f"n{label:08}" / "1.JPEG")
    return tmp_path / "val"


class TestImageNet:
    def study(self, monkeypatch: pytest.MonkeyPatch, folder: Path, *more: str) -> Path:
        """Tries the tool out; where its results are."""
        cache = folder.parent / "cache"
        given = ["--data", "imagenet", "--images", str(folder), "--random-weights", *more]
        monkeypatch.setattr(sys, "argv", ["prune_study.py", *given, "--cache", str(cache)])
        prune_study.main()
        return cache / "random" / "results.csv"

    def test_random_weights_are_no_results(
        self, monkeypatch: pytest.MonkeyPatch, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        table = self.study(monkeypatch, folder, "--list", "--methods", "prune", "onnxsim")
        assert "imagenet.mobilenet_v2.0.prune.512" in capsys.readouterr().out.split()
        with pytest.raises(SystemExit, match=f"{table}: no results yet"):
            self.study(monkeypatch, folder, "--report")

    @pytest.mark.slow
    def test_a_network_is_pruned_and_judged(
        self, monkeypatch: pytest.MonkeyPatch, folder: Path
    ) -> None:
        torch = pytest.importorskip("torch")
        pytest.importorskip("threadpoolctl")
        pytest.importorskip("matplotlib")
        from experiment.sources import ImageNet

        def model(source: ImageNet, network: str, seed: int) -> object:
            source._transform = lambda image: torch.from_numpy(np.asarray(image, np.float32).T)
            return torch.nn.Sequential(
                torch.nn.Conv2d(3, 64, 3),
                torch.nn.ReLU(),
                torch.nn.Conv2d(64, 64, 3),
                torch.nn.ReLU(),
                torch.nn.AdaptiveAvgPool2d(1),
                torch.nn.Flatten(),
                torch.nn.Linear(64, 1000),
            ).eval()

        monkeypatch.setattr(ImageNet, "model", model)
        options = ["--networks", "mobilenet_v2", "--methods", "prune", "--latencies", "0.8"]
        table = self.study(monkeypatch, folder, *options, "--counts", "--runs", "2")
        (row,) = read(table)
        assert (row.data, row.network, row.wanted) == ("imagenet", "mobilenet_v2", 0.8)
        assert row.reached or "cannot be reached" in row.note
        assert (table.parent / "tables.md").exists()
