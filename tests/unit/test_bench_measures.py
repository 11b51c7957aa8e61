"""Measures of a benchmark: statistics, turns, providers, the profile and memory."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from benchmarks import bench, small
from build import Net
from onnx_upscale.benchmark import Estimate, interleave, memory, providers
from onnx_upscale.benchmark.measure import orders, shares
from onnx_upscale.benchmark.memory import peak_memory
from onnx_upscale.benchmark.operators import category, read_profile, sum_events
from onnx_upscale.benchmark.providers import execution_providers
from onnx_upscale.benchmark.statistics import (
    disturbed,
    indistinct,
    latencies,
    median_interval,
    paired_ratios,
)
from onnx_upscale.benchmark.text import comparison_rows, profile_rows
from onnx_upscale.errors import UsageError, VerifySetupError
from onnx_upscale.running import Session, session


class TestStatistics:
    # The table of every textbook: the ranks of the values that enclose the median, from 1.
    @pytest.mark.parametrize(
        ("count", "low", "high"),
        [(6, 1, 6), (9, 2, 8), (10, 2, 9), (20, 6, 15), (50, 18, 33), (100, 40, 61)],
    )
    def test_ranks(self, count: int, low: int, high: int) -> None:
        values = np.random.default_rng(0).permutation(count) + 1.0
        assert median_interval(values) == Estimate((count + 1) / 2, low, high)

    def test_few_values_give_their_range(self) -> None:
        assert median_interval([3, 1, 2]) == Estimate(2, 1, 3)
        assert median_interval([7]) == Estimate(7, 7, 7)

    def test_many_values(self) -> None:
        found = median_interval(np.arange(100_001.0))
        assert found.median == 50_000
        # About 1.96 standard deviations of a binomial count on either side.
        assert found.high - found.low == pytest.approx(1.96 * 100_000**0.5, rel=0.01)

    def test_it_covers_the_median_as_often_as_it_says(self) -> None:
        rng = np.random.default_rng(1)
        samples = rng.exponential(size=(2000, 25))
        hits = np.mean([median_interval(sample).contains(np.log(2)) for sample in samples])
        assert 0.945 < hits < 0.975  # By its construction, 0.957.

    def test_outliers_do_not_matter(self) -> None:
        values = [*range(1, 50), 1e9]
        assert median_interval(values).high == 33

    def test_what_disturbs_a_round_cancels(self) -> None:
        noise = np.random.default_rng(2).uniform(1, 10, (9, 6))
        first, found = paired_ratios([np.stack([each, 1.02 * each], axis=1) for each in noise])
        assert first == Estimate(1, 1, 1)
        assert (found.low, found.median, found.high) == pytest.approx((1.02, 1.02, 1.02))

    def test_a_sitting_is_one_value(self) -> None:
        """More rounds of one load do not make up for loads that differ."""
        sittings = [np.full((1000, 1), 1 + number / 100) for number in range(9)]
        assert latencies(sittings) == [Estimate(1.04, 1.01, 1.07)]
        disturbed = np.array([[1.0], [1.0], [50.0]])
        assert latencies([disturbed] * 9) == [Estimate(1, 1, 1)]

    def test_copies_are_told_apart_as_rarely_as_it_says(self) -> None:
        rng = np.random.default_rng(3)
        told = 0
        for _ in range(1000):
            loads = rng.normal(1, 0.01, (9, 1, 2))  # Each load has its own speed.
            sittings = list(loads * rng.normal(1, 0.01, (9, 6, 2)))
            told += not paired_ratios(sittings)[1].contains(1)
        assert told < 60  # By the construction of the interval, 39 of 1000.

    def test_indistinct(self) -> None:
        same = Estimate(1.0, 1.0, 1.0)
        ratios = [same, Estimate(0.99, 0.97, 1.01), Estimate(0.9, 0.8, 0.999), same]
        warnings = indistinct(["a", "b", "c", "d"], ratios)
        assert len(warnings) == 2
        assert "no difference can be told between 'a' and 'b'" in warnings[0]
        assert "0.970 to 1.010" in warnings[0]
        assert "'d'" in warnings[1]
        assert indistinct(["a"], [same]) == ()

    def test_disturbed(self) -> None:
        quiet = [Estimate(1.0, 1.0, 1.0), Estimate(0.7, 0.68, 0.71)]
        assert disturbed(quiet) == ()
        (warning,) = disturbed([*quiet, Estimate(2.8, 1.02, 3.0)])
        assert "anywhere from 1.020 to 3.000" in warning


class Timed:
    """Tasks that take as long as they are told, by a clock of their own."""

    def __init__(self, *seconds: float) -> None:
        self.now = 0.0
        self.seconds = seconds
        self.called: list[int] = []

    def clock(self) -> float:
        return self.now

    def call(self, index: int) -> None:
        self.called.append(index)
        self.now += self.seconds[index] * (100 if len(self.called) <= len(self.seconds) else 1)

    def measure(self, rounds: int, **options: Any) -> np.ndarray[Any, Any]:
        tasks = [lambda index=index: self.call(index) for index in range(len(self.seconds))]
        return interleave(tasks, rounds, clock=self.clock, **options)


class TestInterleave:
    def test_seconds_by_round_and_task(self) -> None:
        found = Timed(1.0, 2.0, 0.5).measure(7)
        # The first calls take a hundred times as long; they belong to the warm-up.
        assert found == pytest.approx(np.tile([1.0, 2.0, 0.5], (7, 1)))

    def test_one_task(self) -> None:
        assert Timed(3.0).measure(4).tolist() == [[3.0]] * 4

    def test_shares(self) -> None:
        assert shares(50, 9) == [6, 6, 6, 6, 6, 5, 5, 5, 5]
        assert shares(3, 9) == [1, 1, 1]

    @pytest.mark.parametrize("count", range(1, 8))
    def test_orders_favour_nobody(self, count: int) -> None:
        rows = orders(count)
        for place in range(count):
            assert set(Counter(row[place] for row in rows).values()) == {len(rows) // count}
        follows = Counter(pair for row in rows for pair in itertools.pairwise(row))
        assert len(follows) == count * (count - 1)
        assert len(set(follows.values())) <= 1

    def test_every_round_has_every_task_in_changing_places(self) -> None:
        timed = Timed(1.0, 1.0)
        timed.measure(4)
        assert timed.called[-8:] == [0, 1, 1, 0, 0, 1, 1, 0]

    def test_the_order_goes_on_in_the_next_sitting(self) -> None:
        timed = Timed(1.0, 1.0)
        timed.measure(1, done_before=5)
        assert timed.called[-2:] == [1, 0]

    def test_short_tasks_are_called_several_times(self) -> None:
        timed = Timed(2**-14, 2**-13)
        assert timed.measure(5) == pytest.approx(np.tile([2**-14, 2**-13], (5, 1)))
        # As often each, so that even the shortest sample takes 200 microseconds.
        calls = [(index, len([*same])) for index, same in itertools.groupby(timed.called[-40:])]
        assert calls == [(0, 4), (1, 8), (0, 8), (1, 8), (0, 8), (1, 4)]

    def test_a_limit_leaves_ten_rounds(self) -> None:
        assert len(Timed(1.0).measure(100, limit=2.0)) == 10
        assert len(Timed(1.0).measure(100, limit=150.0)) < 100
        assert len(Timed(1.0).measure(5, limit=0.0)) == 5


class TestProviders:
    def test_unknown(self) -> None:
        with pytest.raises(UsageError, match=r"`provider` tpu: unknown \(known: cpu, cuda"):
            bench(small(), provider="tpu")

    @pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
    def test_absent(self, provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
        offered = ["AzureExecutionProvider", "CPUExecutionProvider"]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: offered)
        with pytest.raises(UsageError, match=r"it offers cpu\): install the package onnxrun") as e:
            bench(small(), provider=provider)
        assert "Azure" not in str(e.value)
        assert ("TensorRT" in str(e.value)) == (provider == "tensorrt")

    def test_in_order_of_preference(self, monkeypatch: pytest.MonkeyPatch) -> None:
        offered = ["TensorrtExecutionProvider", "CPUExecutionProvider", "CUDAExecutionProvider"]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: offered)
        monkeypatch.setattr(providers, "_started", tuple)
        assert execution_providers("cpu") == ("CPUExecutionProvider",)
        assert execution_providers("cuda") == ("CUDAExecutionProvider", "CPUExecutionProvider")
        assert execution_providers("tensorrt")[0] == "TensorrtExecutionProvider"

    @pytest.mark.parametrize("started", [("CPUExecutionProvider",), ()])
    def test_a_fallback_is_an_error(
        self, started: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        offered = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: offered)
        monkeypatch.setattr(providers, "_started", lambda _: started)
        monkeypatch.setattr(onnxruntime, "cuda_version", "13.0", raising=False)
        with pytest.raises(
            UsageError, match=r"cannot start it on this machine: .*of CUDA 13\.0 and"
        ):
            bench(small(), provider="cuda")

    def test_what_onnxruntime_starts(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def fail() -> None:
            print("no such library")

        monkeypatch.setattr(onnxruntime, "preload_dlls", fail, raising=False)
        assert providers._started(["CPUExecutionProvider"]) == ("CPUExecutionProvider",)

        assert capsys.readouterr().out == ""

        class Broken:
            def __init__(self, *_: Any, **__: Any) -> None:
                raise VerifySetupError("no driver")

        monkeypatch.setattr(providers, "Session", Broken)
        assert providers._started(["CUDAExecutionProvider"]) == ()


class TestSession:
    def test_inputs_are_moved_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The way of the GPU, here with the CPU as the device."""
        monkeypatch.setattr(session, "_DEVICES", {"CPUExecutionProvider": "cpu"})
        made, placed = onnxruntime.OrtValue.ortvalue_from_numpy, []

        def place(value: Any, device: str, number: int) -> Any:
            placed.append((device, number))
            return made(value, device, number)

        monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", place)
        task = Session(small()).task({"x": np.ones((1, 3, 6, 6), np.float32)})
        task()
        task()
        assert placed == [("cpu", 0)]

    def test_what_does_not_run_says_so_before_it_is_timed(self) -> None:
        with pytest.raises(VerifySetupError, match="cannot run it"):
            Session(small()).task({"x": np.ones((1, 2, 6, 6), np.float32)})


def event(op: str, ts: int, dur: int, **more: Any) -> dict[str, Any]:
    return {
        "cat": "Node",
        "name": f"{op}_7_kernel_time",
        "ts": ts,
        "dur": dur,
        "args": {"op_name": op},
        **more,
    }


class TestOperators:
    def test_categories(self) -> None:
        copies = {"Slice", "Gather", "Concat", "QLinearConcat", "Split", "Pad", "Transpose"}
        assert {category(op) for op in copies} == {"copies"}
        assert {category(op) for op in ("ReorderInput", "ReorderOutput")} == {"reorders"}
        assert {category(op) for op in ("Conv", "Relu", "GatherND", "Reshape")} == {"compute"}

    def test_sums(self) -> None:
        run = {"cat": "Session", "name": "model_run", "dur": 50}
        events = [
            {"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 9},
            event("Conv", 101, 90_000),  # The warm-up.
            {**run, "ts": 100},
            event("Conv", 201, 10),
            event("Conv", 205, 20),
            event("Slice", 207, 5),
            event("Conv", 208, 3, name="Conv_7_fence_before"),
            event("If", 209, 1000),
            {**run, "ts": 200},
            event("ReorderInput", 302, 4),
            event("Conv", 301, 34),
            {**run, "ts": 300},
        ]
        found = sum_events(events, runs=2)
        wanted = {"Conv": 32e-6, "Slice": 2.5e-6, "ReorderInput": 2e-6}
        assert found.seconds == pytest.approx(wanted)
        assert list(found.seconds) == ["Conv", "Slice", "ReorderInput"]
        sums = {"compute": 32e-6, "copies": 2.5e-6, "reorders": 2e-6}
        assert found.categories == pytest.approx(sums)
        assert found.over_bound == pytest.approx(36.5 / 32)
        assert sum_events([], runs=1).over_bound == 1

    def test_a_real_profile(self, tmp_path: Path) -> None:
        profiled = Session(small(), profile=str(tmp_path / "profile"))
        for _ in range(3):
            profiled.run({"x": np.ones((1, 3, 6, 6), np.float32)})
        found = read_profile(profiled.end_profile(), runs=2)
        assert found.seconds["Conv"] > 0

    def test_side_by_side(self) -> None:
        net = Net(17, x=["batch", 3, 6, 6])
        halves = net.nodes_of("Split", net("Conv", "x", net.random(4, 3, 1, 1)), outputs=2, axis=1)
        cut = net.model(net("Concat", *reversed(halves), axis=1))
        found = bench(small(), cut, profile=True)
        rows = {row[0]: row[1:] for row in profile_rows(found)}
        assert rows["operator ms"] == ["model 1", "model 2"]
        assert rows["Split"][0] == rows["Concat"][0] == "-"
        assert float(rows["= compute"][0]) >= 0
        assert rows["= copies"][0] == "0.000"
        assert float(rows["all by compute"][1]) > 1
        operators = found.models[1].operators
        assert operators is not None
        assert {"Conv", "Split", "Concat"} <= operators.seconds.keys()
        copied = operators.seconds["Split"] + operators.seconds["Concat"]
        assert operators.categories["copies"] == pytest.approx(copied)


class TestMemory:
    def weights(self, megabytes: int) -> onnx.ModelProto:
        net = Net(17, x=["batch", 1000])
        return net.model(net("MatMul", "x", net.random(1000, megabytes * 250)))

    def test_a_process_of_its_own(self) -> None:
        inputs = {"x": np.ones((1, 1000), np.float32)}
        held = np.ones(150_000_000, np.uint8)  # What the caller holds is not counted.
        peaks = [
            peak_memory(self.weights(size), inputs, threads=1, providers=["CPUExecutionProvider"])
            for size in (1, 60)
        ]
        assert held.all()
        if sys.platform not in ("linux", "darwin"):
            assert peaks == [None, None]
            return
        small, large = (peak or 0 for peak in peaks)
        assert 0 < small < 60e6 < large < 400e6

    @pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="elsewhere it is unknown")
    def test_it_finds_what_the_caller_found(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("onnx.py").write_text("raise ImportError('this is another onnx')")
        inputs = {"x": np.ones((1, 3, 6, 6), np.float32)}
        assert peak_memory(small(), inputs, threads=1, providers=["CPUExecutionProvider"])

    def test_a_process_that_fails(self) -> None:
        broken = small()
        broken.graph.node[0].op_type = "None"
        assert peak_memory(broken, {}, threads=1, providers=["CPUExecutionProvider"]) is None

    def test_a_process_that_fails_at_its_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(memory, "_CHILD", "print('loading 3'); raise SystemExit(1)")
        assert peak_memory(small(), {}, threads=1, providers=["CPUExecutionProvider"]) is None

    def test_it_is_left_out(self) -> None:
        found = bench(small(), memory=False)
        assert found.models[0].peak_memory is None
        assert "memory MB" not in comparison_rows(found)[0]

    @pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="elsewhere it is unknown")
    def test_it_is_in_the_table(self) -> None:
        found = bench(small(), memory=True)
        assert (found.models[0].peak_memory or 0) > 0
        assert comparison_rows(found)[0][-1] == "memory MB"
