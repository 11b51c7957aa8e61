"""Comparing models: the inputs that they get, and the results."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

import onnx_upscale
from benchmarks import bench, convolution, small
from build import Net
from onnx_upscale import benchmark
from onnx_upscale.benchmark import Estimate
from onnx_upscale.errors import ModelError, UsageError, VerifySetupError
from onnx_upscale.running import Session


class TestInputs:
    def test_one_input_under_two_names(self) -> None:
        found = bench(small("x"), small("image"), inputs={"image": (2, 3, 6, 6)})
        assert found.inputs == {"x": (2, 3, 6, 6)}
        assert found.batch == 2

    def test_many_inputs_go_by_name(self) -> None:
        shapes: dict[str, list[int | str]] = {"a": ["n", 3, 4, 4], "b": ["n", 3, 1, 1]}
        there, back = convolution(shapes), convolution(dict(reversed(shapes.items())))
        assert bench(there, back).inputs == {"a": (1, 3, 4, 4), "b": (1, 3, 1, 1)}
        shapes["c"] = shapes.pop("b")
        with pytest.raises(UsageError, match="model 2: its inputs are 'a', 'c', but those of mod"):
            bench(there, convolution(shapes))
        with pytest.raises(UsageError, match="model 2: its inputs are 'x', but"):
            bench(there, small())

    def test_all_get_the_same_values(self, monkeypatch: pytest.MonkeyPatch) -> None:
        given: list[Any] = []
        task = Session.task

        def spy(self: Session, inputs: Mapping[str, Any]) -> Callable[[], object]:
            given.append(inputs)
            return task(self, inputs)

        monkeypatch.setattr(Session, "task", spy)
        bench(small("x"), small("y"))
        assert [list(inputs) for inputs in given] == [["x"], ["y"], ["y"], ["x"]]
        np.testing.assert_array_equal(given[0]["x"], given[1]["y"])

    def test_differing_shapes_and_types(self) -> None:
        saying = "model 2: its input 'y' is float32 1x3x6x6, but that of model 1 is float32 1x3x8x8"
        with pytest.raises(UsageError, match=saying):
            bench(small(side=8), small("y", side=6))
        half = small()
        half.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
        half.graph.initializer[0].CopyFrom(
            numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float16), "c0")
        )
        half.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
        with pytest.raises(UsageError, match="model 2: its input 'x' is float16 1x3x6x6, but"):
            bench(small(), half)
        assert bench(half).batch == 1

    def test_batch(self) -> None:
        found = bench(small("x"), small("y", batch="N"), small("z", batch=4), batch=4)
        assert found.batch == 4
        assert found.inputs == {"x": (4, 3, 6, 6)}
        for model in found.models:
            assert model.throughput == pytest.approx(4 / model.latency.median)
        assert bench(small(batch=3)).batch == 3

    def test_a_batch_that_does_not_fit(self) -> None:
        saying = r"model 2: `batch` 4: no input has a first axis of that size \('y' is 1x3x6x6\)"
        with pytest.raises(UsageError, match=saying):
            bench(small(), small("y", batch=1), batch=4)
        with pytest.raises(UsageError, match="`batch` 4: no input has a first axis"):
            bench(small(), batch=4, inputs={"x": (2, 3, 6, 6)})
        # The sides of an image are no batch.
        with pytest.raises(UsageError, match="`batch` 4: no input"):
            bench(small(batch=1, side="side"), batch=4)

    def test_shapes_that_do_not_fit(self) -> None:
        with pytest.raises(UsageError, match=r"`inputs` z: no model has such .*\(they have: x\)"):
            bench(small(), inputs={"z": (1, 3, 6, 6)})
        with pytest.raises(UsageError, match="model 1: `inputs` x=1x3x7x7: does not fit"):
            bench(small(), inputs={"x": (1, 3, 7, 7)})

    def test_no_inputs(self) -> None:
        net = Net(17)
        found = bench(net.model(net("Relu", net.random(2, 3))))
        assert (found.batch, found.inputs) == (1, {})


class TestComparison:
    def faked(
        self, monkeypatch: pytest.MonkeyPatch, *columns: Any, **options: Any
    ) -> onnx_upscale.Comparison:
        rows = iter(np.stack([np.broadcast_to(column, 50) for column in columns], axis=1))

        done: list[Any] = []

        def fake(tasks: Sequence[Any], rounds: int, done_before: int) -> np.ndarray[Any, Any]:
            assert len(tasks) == len(columns)
            assert done_before == len(done)
            done.extend(sitting := list(itertools.islice(rows, rounds)))
            return np.array(sitting)

        monkeypatch.setattr(benchmark, "interleave", fake)
        return bench(*[small()] * len(columns), **{"runs": 50, **options})

    def test_numbers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        first = np.arange(1, 51) / 1024
        found = self.faked(monkeypatch, first, 2 * first, batch=3)
        one, two = found.models
        # The median of the fifth of nine sittings, of the second, of the eighth.
        assert one.latency == Estimate(27.5 / 1024, 9.5 / 1024, 43 / 1024)
        assert one.ratio == Estimate(1.0, 1.0, 1.0)
        assert two.ratio == Estimate(2.0, 2.0, 2.0)
        assert two.throughput == pytest.approx(3 / (55 / 1024))
        assert found.warnings == ()

    @pytest.mark.parametrize(("provider", "loads"), [("cpu", 6), ("tensorrt", 1)])
    def test_loaded_anew(self, provider: str, loads: int, monkeypatch: pytest.MonkeyPatch) -> None:
        loaded: list[int] = []
        task = Session.task

        def spy(self: Session, inputs: Mapping[str, Any]) -> Callable[[], object]:
            loaded.append(len(inputs))
            return task(self, inputs)

        monkeypatch.setattr(Session, "task", spy)
        monkeypatch.setattr(benchmark, "execution_providers", lambda _: ["CPUExecutionProvider"])
        found = bench(small(), small(), runs=6, provider=provider)
        assert len(loaded) == 2 * loads
        assert found.runs == 6

    def test_noise_larger_than_the_difference(self, monkeypatch: pytest.MonkeyPatch) -> None:
        noise = np.random.default_rng(0).normal(1, 0.2, 50)
        found = self.faked(monkeypatch, 1.0, 1.01 * noise, 0.5 * noise, names=["a", "b", "c"])
        told = [line for line in found.warnings if "no difference" in line]
        assert len(told) == 1
        assert "no difference can be told between 'a' and 'b'" in told[0]

    def test_a_busy_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = self.faked(monkeypatch, 1.0, np.linspace(1, 3, 50))
        assert any("the machine was busy" in line for line in found.warnings)

    def test_few_runs(self) -> None:
        assert any(
            "5 runs are too few for a 95%" in line for line in bench(small(), runs=5).warnings
        )
        assert bench(small(), runs=6).warnings == ()
        assert len(bench(small(), runs=1).warnings) == 1

    def test_json(self) -> None:
        content = bench(small(), small(), names=["a", "b"], profile=True, batch=2).to_json()
        assert json.loads(json.dumps(content, allow_nan=False)) == content
        assert content.keys() == {
            "version", "provider", "batch", "threads", "runs", "inputs", "models", "warnings",
        }  # fmt: skip
        assert content["version"] == 1
        assert content["inputs"] == {"x": [2, 3, 6, 6]}
        first, second = content["models"]
        assert first.keys() == {
            "name", "path", "bytes", "latency_ms", "ratio", "throughput_per_s",
            "peak_memory_bytes", "profile_ms",
        }  # fmt: skip
        assert second["name"] == "b"
        assert second["latency_ms"].keys() == {"median", "low", "high"}
        assert first["throughput_per_s"] == pytest.approx(2000 / first["latency_ms"]["median"])
        assert first["profile_ms"].keys() == {
            *("compute", "copies", "reorders", "over_bound", "operators"),
        }

    def test_names(self, tmp_path: Path) -> None:
        paths = [tmp_path / "one.onnx", tmp_path / "two.onnx", tmp_path / "deeper" / "one.onnx"]
        paths[2].parent.mkdir()
        for path in paths:
            onnx.save(small(), path)
        found = bench(paths[0], paths[1], paths[0], small())
        assert [m.name for m in found.models] == ["one.onnx", "two.onnx", "one.onnx", "model 4"]
        found = bench(*paths)
        assert [model.name for model in found.models] == [str(path) for path in paths]
        with pytest.raises(UsageError, match="1 names are given for 2 models"):
            bench(small(), small(), names=["a"])

    def test_size_with_external_weights(self, tmp_path: Path) -> None:
        path = tmp_path / "model.onnx"
        onnx.save(small(), path, save_as_external_data=True, size_threshold=0)
        size = sum(file.stat().st_size for file in tmp_path.iterdir())
        assert len(list(tmp_path.iterdir())) == 2
        assert bench(path).models[0].bytes == size
        assert bench(small()).models[0].bytes == len(small().SerializeToString())

    @pytest.mark.parametrize(
        ("options", "saying"),
        [
            ({"runs": 0}, "`runs` 0: must be at least 1"),
            ({"batch": 0}, "`batch` 0: must be at least 1"),
            ({"threads": -1}, "`threads` -1: must be at least 0"),
        ],
    )
    def test_options(self, options: dict[str, int], saying: str) -> None:
        with pytest.raises(UsageError, match=saying):
            bench(small(), **options)

    def test_models_that_cannot_be_run(self) -> None:
        with pytest.raises(UsageError, match="at least one model"):
            bench()
        broken = small()
        broken.graph.node[0].op_type = "None"
        with pytest.raises(VerifySetupError, match="model 2: onnxruntime cannot load it"):
            bench(small(), broken)
        with pytest.raises(ModelError, match=r"none\.onnx: no such file"):
            bench("none.onnx")


def test_a_model_is_not_changed() -> None:
    model = small()
    before = model.SerializeToString(deterministic=True)
    bench(model, batch=2, profile=True)
    assert model.SerializeToString(deterministic=True) == before
