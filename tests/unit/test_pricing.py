"""Latencies of whole plans: the kernels that programs run as, tables of them, and `price`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import onnx_upscale
from build import Net
from onnx_upscale.cli import main
from onnx_upscale.errors import OutputError, UsageError
from onnx_upscale.prices import (
    AnalyticPrices,
    CopyWork,
    Kernel,
    LayerWork,
    TablePrices,
    load_prices,
)
from onnx_upscale.prices.kernels import BYTES, Widths, convolution, features
from onnx_upscale.prices.machine import cpu_kind
from onnx_upscale.prices.table import Measured
from onnx_upscale.pricing import Errors, Priced, measure, price
from onnx_upscale.pricing.fit import fit, fit_family
from onnx_upscale.pricing.measure import _MERGING, measure_one_by_one
from onnx_upscale.pricing.probes import probe_model, repeated
from onnx_upscale.pricing.shapes import planned
from onnx_upscale.running import Session, input_sizes, random_inputs

DIGITS = Path(__file__).parents[2] / "models" / "digits"


def analytic(target: str = "cpu-avx2") -> AnalyticPrices:
    prices = load_prices(target)
    assert isinstance(prices, AnalyticPrices)
    return prices


def families(model: onnx.ModelProto, target: str = "cpu-avx2") -> list[str]:
    plan = onnx_upscale.analyze(model).plan("gather", target)
    return [kernel.family for kernel in plan.kernels]


def branch(net: Net, channels: int, data: str = "x", **attributes: Any) -> str:
    inputs = net.shape(data)[1]
    weight = net.random(channels, inputs, 3, 3)
    return net("Conv", data, weight, pads=[1, 1, 1, 1], **attributes)


def test_a_probe_holds_no_two_equal_nodes() -> None:
    """onnxruntime would compute them once, and what the kernel takes would be something else."""
    for kernel in planned(analytic(), 0.3):
        model = probe_model([kernel])
        nodes = [(node.op_type, *node.input) for node in model.graph.node]
        assert len(set(nodes)) == len(nodes), kernel


class TestLowering:
    def test_activations_and_sums_are_part_of_convolutions(self) -> None:
        net = Net(17, x=[1, 3, 12, 12])
        first = net("Relu", branch(net, 16))
        second = branch(net, 16, first)
        assert families(net.model(net("Relu", net("Add", second, first)))) == ["few", "direct"]

    def test_odd_counts_leave_the_blocked_layout(self) -> None:
        net = Net(17, x=[1, 3, 12, 12])
        made = branch(net, 16, net("Relu", branch(net, 15)))
        assert families(net.model(made)) == ["few", "reorder_out", "unrolled"]

    def test_an_activation_that_reads_a_gate(self) -> None:
        net = Net(17, x=[1, 3, 12, 12])
        made = branch(net, 16)
        gated = net("Mul", made, net("Sigmoid", made))
        assert families(net.model(branch(net, 8, gated))) == ["few", "costly", "direct"]

    @pytest.mark.parametrize(("channels", "blocked"), [(16, True), (12, False)])
    def test_whole_blocks_are_pooled_and_joined(self, channels: int, blocked: bool) -> None:
        net = Net(17, x=[1, 3, 12, 12])
        one, other = branch(net, channels), branch(net, channels)
        joined = net("Concat", one, other, axis=1)
        pooled = net("MaxPool", joined, kernel_shape=[2, 2])
        found = Counter(families(net.model(branch(net, 8, pooled))))
        assert found["reorder_out"] == (0 if blocked else 2)
        assert found["pool"] == 1  # 24 channels are whole blocks again

    @pytest.mark.parametrize(
        ("inputs", "outputs", "groups", "family", "counted"),
        [
            (28, 28, 28, "depthwise", (32, 32)),
            (29, 29, 29, "depthwise_plain", (29, 29)),
            (32, 32, 4, "grouped", (32, 32)),
            (24, 24, 4, "grouped_plain", (24, 24)),
            (12, 17, 1, "direct", (16, 24)),
            (13, 16, 1, "unrolled", (13, 16)),
            (3, 16, 1, "few", (3, 16)),
        ],
    )
    def test_kernels_of_convolutions(
        self, inputs: int, outputs: int, groups: int, family: str, counted: tuple[int, int]
    ) -> None:
        kernel = convolution(inputs, outputs, 49, 9, 1, groups, Widths(8))
        assert (kernel.family, (kernel.inputs, kernel.outputs)) == (family, counted)

    @pytest.mark.parametrize(
        ("inputs", "outputs", "family"),
        [(16, 16, "direct"), (12, 16, "unrolled"), (16, 12, "unrolled"), (3, 16, "few")],
    )
    def test_kernels_of_a_gpu_pad_nothing(self, inputs: int, outputs: int, family: str) -> None:
        assert analytic("cuda").convolution(inputs, outputs, 49, 9, 1, 1).family == family

    @pytest.mark.skipif(cpu_kind() == "cpu-arm64", reason="blocks only where compiled in")
    @pytest.mark.parametrize("strategy", ["gather", "auto", "constrained"])
    def test_as_many_reorders_as_onnxruntime_makes(self, strategy: str, tmp_path: Path) -> None:
        model, masks = f"{DIGITS}.onnx", f"{DIGITS}.masks.json"
        plan = onnx_upscale.analyze(model, masks).plan(strategy)
        emitted = onnx_upscale.optimize(model, masks, strategy=strategy, verify=False).model
        session = Session(emitted, profile=str(tmp_path / "profile"))
        session.run(random_inputs(emitted, input_sizes(emitted), seed=0))
        events = json.loads(Path(session.end_profile()).read_text())
        ran = Counter(
            {"ReorderInput": "reorder_in", "ReorderOutput": "reorder_out"}.get(op, "else")
            for op in (event["args"]["op_name"] for event in events if event["cat"] == "Node")
        )
        expected = Counter(kernel.family for kernel in plan.kernels)
        for family in ("reorder_in", "reorder_out"):
            assert abs(ran[family] - expected[family]) <= 1 + 0.1 * ran[family]


class TestSeconds:
    @pytest.mark.parametrize("target", ["cpu-avx512", "cpu-avx2", "cpu-arm64"])
    def test_less_work_is_predicted_to_take_less_time(self, target: str) -> None:
        model, masks = f"{DIGITS}.onnx", f"{DIGITS}.masks.json"
        dense = onnx_upscale.analyze(model).plan("gather", target)
        pruned = onnx_upscale.analyze(model, masks).plan("constrained", target)
        assert 0 < pruned.seconds < dense.seconds

    def test_copies_are_counted(self) -> None:
        analyzed = onnx_upscale.analyze(f"{DIGITS}.onnx", f"{DIGITS}.masks.json")
        kernels = analyzed.plan("gather", "cpu-avx2").kernels
        report = onnx_upscale.optimize(
            f"{DIGITS}.onnx", f"{DIGITS}.masks.json", strategy="gather", verify=False
        ).report
        copies = sum(k.family.startswith(("gather", "slice")) for k in kernels)
        assert copies == report["copies"]["count"]

    def test_a_tensor_without_a_shape(self) -> None:
        """What a function makes has no inferred shape, though its channels are known."""
        net = Net(17, x=[1, 3, 12, 12])
        normal = net("MeanVarianceNormalization", branch(net, 16))
        model = net.model(branch(net, 8, net.declare(normal, [1, 16, 12, 12])))
        del model.graph.value_info[:]
        assert onnx_upscale.analyze(model).plan("gather").seconds > 0

    def test_the_report_has_it(self) -> None:
        report = onnx_upscale.optimize(f"{DIGITS}.onnx", verify=False).report
        assert 1e-6 < report["predicted_seconds"] < 1


def kernels_of(family: str, *sizes: tuple[int, int, int]) -> list[Kernel]:
    return [Kernel(family, *size) for size in sizes]


SIZES = ((16, 16, 49), (64, 32, 196), (32, 128, 784), (256, 64, 49), (8, 8, 3136))


def table(*sizes: tuple[int, int, int]) -> TablePrices:
    """A table of pointwise layers alone, each multiply-add of which takes a nanosecond."""
    kernels = kernels_of("pointwise", *(sizes or SIZES))
    seconds = [k.inputs * k.outputs * k.places * 1e-9 for k in kernels]
    return TablePrices("mine", analytic(), {"pointwise": fit_family(kernels, seconds)})


class TestTables:
    def test_a_sum_of_known_parts_is_found(self) -> None:
        sizes = [(i, o, p) for i in (8, 90) for o in (9, 70) for p in (1, 16, 200)]
        kernels = kernels_of("product", *sizes)
        weights = np.array([3e-6, 2e-11, 0, 1e-10, 0, 0, 0])
        found = fit_family(kernels, (features(kernels) @ weights).tolist())
        assert features(kernels) @ np.array(found.weights) == pytest.approx(
            features(kernels) @ weights, rel=0.02
        )

    def test_nearby_shapes_correct_the_fit(self) -> None:
        near, far = kernels_of("pointwise", (64, 64, 196), (8, 2048, 1))
        skewed = Measured((0, 1e-9, 0, 0, 0, 0, 0), (near,), (2e-9 * 64 * 64 * 196,))
        assert skewed.seconds_of(near) == pytest.approx(2e-9 * 64 * 64 * 196, rel=0.02)
        other = Kernel("pointwise", 64, 96, 196)
        assert 1e-9 < (skewed.seconds_of(other) or 0) / (64 * 96 * 196) < 2e-9
        assert skewed.seconds_of(far) is None

    def test_what_a_table_lacks_is_estimated_and_said(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.json"
        Priced(table(), {}, {}).save(path)
        report = onnx_upscale.optimize(f"{DIGITS}.onnx", target=path, verify=False).report
        (warning,) = report["warnings"]
        assert "profile 'mine' lacks" in warning and "direct" in warning
        assert report["profile"] == "mine"

    def test_a_table_survives_its_file(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.json"
        Priced(table(), {}, {"kind": "any"}).save(path)
        loaded, kernel = load_prices(path), Kernel("pointwise", 50, 50, 400)
        assert loaded.kernel(kernel) == pytest.approx(table().kernel(kernel))

    def test_what_older_profiles_lack_may_be_missing(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.json"
        content = Priced(table(), {}, {}).to_json()
        content["fallback"] = {
            name: value
            for name, value in content["fallback"].items()
            if name not in ("byte_mac", "ragged")
        }
        path.write_text(json.dumps(content))
        assert load_prices(path).kernel(Kernel("bytes", 16, 16, 100)) > 0

    def test_copies_costing_more(self) -> None:
        dear, copy = table().with_copies_costing(3), CopyWork(32, 16, 100, False, False, 4)
        assert dear.copy(copy) == pytest.approx(3 * table().copy(copy))
        layer = LayerWork(False, 32, 32, 100, 1, 4)
        assert dear.layer(layer) == table().layer(layer)

    def test_errors_are_those_of_shapes_held_out(self) -> None:
        kernels = planned(analytic(), 0.3)
        families, errors = fit({k: 1e-6 + 1e-9 * k.inputs * k.places for k in kernels})
        assert set(families) == {k.family for k in kernels}
        assert 0 < errors["all"].shapes < len(kernels)
        assert errors["all"].median < 0.2

    @pytest.mark.parametrize(
        ("change", "saying"),
        [
            ({"families": 1}, "field 'families' cannot be 1"),
            ({"families": {"magic": {}}}, "in family 'magic': unknown family"),
            ({"families": {"direct": {}}}, "in family 'direct': expected 7 'weights'"),
            ({"families": {"direct": {"weights": [1] * 7, "kernels": []}}}, "'kernels' as rows"),
            ({"families": {"direct": {"weights": [-1] * 7, "kernels": [[1] * 7]}}}, "from 0 on"),
            ({"families": {"direct": {"weights": [1] * 7, "kernels": [[0] * 7]}}}, "above 0"),
            ({"fallback": {}}, "in 'fallback': missing field"),
            ({"extra": {}}, "unknown field 'extra'"),
        ],
    )
    def test_broken_tables(self, change: dict[str, Any], saying: str, tmp_path: Path) -> None:
        content = Priced(table(), {}, {}).to_json() | change
        (tmp_path / "bad.json").write_text(json.dumps(content))
        with pytest.raises(UsageError, match="bad") as raised:
            load_prices(tmp_path / "bad.json")
        assert saying in str(raised.value)
        assert "\n" not in str(raised.value)


class TestPrice:
    @pytest.mark.slow
    def test_a_machine_is_measured_and_its_prices_used(self, tmp_path: Path) -> None:
        done: list[tuple[int, int]] = []
        priced = price(share=0.02, progress=lambda *each: done.append(each))
        assert done[-1][0] == done[-1][1]
        assert {"direct", "product", "gather_last", "reorder_out"} <= set(priced.prices.families)
        priced.save(tmp_path / "here.json")
        stored = json.loads((tmp_path / "here.json").read_text())
        assert (stored["version"], stored["kind"]) == (1, "table")
        assert stored["machine"]["kind"] == cpu_kind()
        report = onnx_upscale.optimize(
            f"{DIGITS}.onnx", f"{DIGITS}.masks.json", target=tmp_path / "here.json"
        ).report
        assert report["verify"]["ok"]

    def test_other_providers_are_measured_model_by_model(self) -> None:
        kernels = [Kernel("product", 256, 256, 64), Kernel("product", 8, 8, 1)]
        cpu = ("CPUExecutionProvider",)
        found = measure_one_by_one(kernels, cpu, 1, lambda done, of: None)
        assert found[kernels[0]] > found[kernels[1]] > 0

    def test_kernels_of_many_images_and_half_precision(self) -> None:
        """All that a GPU is asked to run; other providers can run it as well."""
        kernels = {k.family: k for k in planned(analytic("cuda")) if k.inputs * k.places < 3e5}
        assert len(kernels) > 20
        images = set[int]()
        for kernel in kernels.values():
            model = probe_model([kernel], "float16")
            kinds = {value.type.tensor_type.elem_type for value in model.graph.input}
            assert kinds == {onnx.TensorProto.FLOAT16}
            images.update(sizes[0] for sizes in input_sizes(model).values())
            (made, *_) = Session(model, 1).run(random_inputs(model, input_sizes(model), 0)).values()
            assert made.dtype == np.float16
        assert len(images) > 1

    def test_one_image_for_a_cpu(self) -> None:
        for kernel in planned(analytic(), 0.1):
            sizes = input_sizes(probe_model([kernel])).values()
            assert {each[0] for each in sizes} == {1}, kernel

    def test_what_the_profile_takes_is_taken_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        nothing, layer = Kernel("overhead", 8, 8, 1), Kernel("direct", 32, 32, 49, 9)
        small, moved = Kernel("gather", 16, 8, 49), Kernel("reorder_out", 32, 32, 49)
        told = {nothing: 5, layer: 104, small: 9, moved: 3}

        def events(batch: Any, threads: int) -> Any:
            return [({"name": str(k), "dur": took}, k) for k, took in told.items()]

        def alone(kernels: Any, *_: Any) -> Any:
            return {k: 1e-6 if k == nothing else 2e-6 for k in kernels}

        monkeypatch.setattr(measure, "_events", events)
        monkeypatch.setattr(measure, "measure_one_by_one", alone)
        done: list[tuple[int, int]] = []
        found = measure.measure_by_profile([*told], 1, lambda *each: done.append(each))
        # 4 microseconds are the profile's; small ones that can leave alone are measured so; nothing
        # takes less than a node that does nothing.
        wanted = {nothing: 1e-6, layer: 1e-4, small: 2e-6, moved: 1e-6}
        assert found == pytest.approx(wanted)
        assert done[-1][0] == done[-1][1]

    def test_a_kernel_is_repeated_and_what_feeds_it_is_not(self) -> None:
        for kernel in planned(analytic("cuda"), 0.01):
            once = probe_model([kernel])
            more = repeated(once, 3)
            further = Counter(node.op_type for node in more.graph.node)
            further.subtract(node.op_type for node in once.graph.node)
            own = {node.op_type for node in once.graph.node if node.name in ("t0.", "t0.gate")}
            assert +further == dict.fromkeys(own, 3), kernel
            feed = random_inputs(once, input_sizes(once), seed=0)
            *_, first, second, third = Session(more, optimized=False).run(feed).values()
            np.testing.assert_array_equal(first, second)
            np.testing.assert_array_equal(first, third)

    def test_equal_nodes_are_not_merged(self, tmp_path: Path) -> None:
        """A Sigmoid of the same tensor, nine times: onnxruntime would do it once."""
        kernel = next(k for k in planned(analytic("cuda")) if k.family == "costly")
        model = repeated(probe_model([kernel]), 3)
        session = Session(model, 1, profile=str(tmp_path / "profile"), without=_MERGING)
        session.run(random_inputs(model, input_sizes(model), seed=0))
        events = json.loads(Path(session.end_profile()).read_text())
        ran = Counter(event.get("args", {}).get("op_name") for event in events)
        assert ran["Sigmoid"] + ran["QuickGelu"] == 4

    def test_the_plan_of_shapes_is_the_same_everywhere(self) -> None:
        assert planned(analytic()) == planned(analytic())
        elsewhere = {"reorder_in", *BYTES}
        assert {k.family for k in planned(analytic("cuda"))}.isdisjoint(elsewhere)
        assert {k.family for k in planned(analytic())} >= elsewhere

    @pytest.mark.parametrize(
        ("options", "saying"),
        [
            ({"provider": "tpu"}, "`provider` tpu: unknown"),
            ({"threads": -1}, "`threads` -1"),
            ({"share": 0.0}, "`share` 0.0"),
            ({"precision": "bfloat16"}, "`precision` bfloat16: unknown"),
            ({"precision": "float16"}, "`precision` float16: the kernels of CPUs"),
        ],
    )
    def test_bad_options(self, options: dict[str, Any], saying: str) -> None:
        with pytest.raises(UsageError, match=saying):
            price(**options)

    def test_a_file_that_cannot_be_written(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="no directory"):
            Priced(table(), {}, {}).save(tmp_path / "none" / "p.json")

    @pytest.mark.parametrize(
        ("arguments", "saying"),
        [
            (["none/p.json"], "there is no directory"),
            (["p.json", "--provider", "tpu"], "'tpu' is not one of 'cpu', 'cuda'"),
            (["p.json", "--threads", "-1"], "--threads"),
            ([], "Missing argument 'PROFILE.json'"),
        ],
    )
    def test_refused_at_once(
        self, arguments: list[str], saying: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        result = CliRunner().invoke(main, ["price", *arguments])
        assert result.exit_code == 2
        assert saying in result.stderr
        assert result.stderr.count("\n") == 1
        assert not list(tmp_path.iterdir())

    def test_the_errors_are_printed(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        priced = Priced(table(), {"all": Errors(0.05, 0.125, 7)}, {})
        monkeypatch.setattr(onnx_upscale, "price", lambda **options: priced)
        result = CliRunner().invoke(main, ["price", str(tmp_path / "p.json")])
        assert result.exit_code == 0
        assert result.stdout.split()[-4:] == ["all", "7", "5.0%", "12.5%"]
        assert load_prices(tmp_path / "p.json").name == "mine"
