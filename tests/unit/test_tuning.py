"""--tune: what is measured, on what, and what follows from it. Nobody looks at a clock here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnxruntime import get_available_providers as available_providers

import onnx_upscale
from build import Net, assert_close, named_outputs, run
from masked import masked
from onnx_upscale.errors import UsageError
from onnx_upscale.optimizer.analyze import analyze
from onnx_upscale.optimizer.apply import apply
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.load.witness import shapes_at
from onnx_upscale.optimizer.plan import Plan, keep_all, plan
from onnx_upscale.optimizer.plan.cost import Costs
from onnx_upscale.prices import load_prices
from onnx_upscale.running import Session, input_sizes, random_inputs
from onnx_upscale.tuning import choosing, racing, runtime, tuned_plan
from onnx_upscale.tuning.budget import Budget
from onnx_upscale.tuning.cuttings import cutting, form_of
from onnx_upscale.tuning.runtime import Runtime
from onnx_upscale.tuning.sites import Site, find_sites
from planting import WAYS, generated
from targets import TARGETS

WIDTH, SIDE = 48, 8
Clock = Callable[[onnx.ModelProto], float]
"""What a model takes, as far as a test is concerned."""


def blocks(count: int = 2, pooled: bool = False) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Blocks in each of which two layers read different channels.

    They are alike but for their weights, unless there is a pooling between them.
    """
    net = Net(17, x=(1, 3, SIDE, SIDE))
    data, channels, masks = "x", 3, {}
    for block in range(count):
        made = net("Relu", net("Conv", data, net.random(WIDTH, channels, 1, 1)))
        ends = []
        for name, start in (("a", 0), ("b", 8)):
            weight = net.constant(net.random(WIDTH, WIDTH, 3, 3), f"{name}{block}")
            ends.append(net("Conv", made, weight, pads=[1, 1, 1, 1]))
            gone = np.roll(np.arange(WIDTH), start)[::2] if name == "a" else np.arange(16, 40)
            masks[f"{name}{block}"] = {"input": sorted(gone.tolist())}
        data, channels = net("Add", *ends), WIDTH
        if pooled:
            data = net("MaxPool", data, kernel_shape=[2, 2], strides=[2, 2])
    return net.model(net("Conv", data, net.random(4, WIDTH, 1, 1))), {"version": 1, "masks": masks}


def planned(
    model: onnx.ModelProto, masks: Any, target: str = "as built in"
) -> tuple[Plan, Costs, list[Site]]:
    analysis = analyze(load(model, masks).graph)
    costs = Costs(analysis.structure, load_prices(TARGETS[target]))
    made = plan(analysis, "auto", costs)
    return made, costs, find_sites(made, costs)


def here(model: onnx.ModelProto, seconds: float) -> Runtime:
    return Runtime(["CPUExecutionProvider"], input_sizes(model), Budget(seconds))


def copies(model: onnx.ModelProto) -> int:
    return sum(node.op_type in ("Gather", "Slice", "Pad") for node in model.graph.node)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Clock], list[int]]:
    """Has models take what a function says, and tells how many were timed side by side."""

    def wind(seconds: Clock) -> list[int]:
        timed: list[int] = []

        def interleave(tasks: Sequence[Any], rounds: int, **_: Any) -> Any:
            timed.append(len(tasks))
            return np.tile([task() for task in tasks], (rounds, 1))

        class Timed(Session):
            def __init__(self, model: onnx.ModelProto, **how: Any) -> None:
                super().__init__(model, **how)
                self._model = model

            def task(self, inputs: Any) -> Callable[[], object]:
                super().task(inputs)  # It runs.
                return lambda: seconds(self._model)

        for module in (choosing, racing):
            monkeypatch.setattr(module, "interleave", interleave)
        monkeypatch.setattr(runtime, "Session", Timed)
        return timed

    return wind


def tuned(model: onnx.ModelProto, masks: Any, target: str, seconds: float = math.inf) -> Plan:
    analysis = analyze(load(model, masks).graph)
    prices = load_prices(TARGETS[target])
    return tuned_plan(analysis, prices, input_sizes(model), min(seconds, 1e6))


class TestTheChoice:
    @pytest.mark.parametrize("target", ["as built in", "copies free, blocks of 1"])
    def test_where_copies_take_long_there_are_none(self, clock: Any, target: str) -> None:
        clock(lambda model: 1 + copies(model))
        assert copies(apply(tuned(*blocks(), target)).model) == 0

    def test_where_they_take_nothing_every_reader_has_its_own(self, clock: Any) -> None:
        clock(lambda model: sum(len(t.raw_data) for t in model.graph.initializer))
        model, masks = blocks()
        found = tuned(model, masks, "multiply-adds free")
        assert copies(apply(found).model) == 4
        assert_close(
            [*named_outputs(apply(found).model).values()],
            [*named_outputs(apply(plan(found.analysis, "gather", found.prices)).model).values()],
        )

    def test_sites_choose_each_for_itself(self, clock: Any) -> None:
        """In the first block copies are dear, in the second they are not."""
        model, masks = blocks(pooled=True)

        def seconds(part: onnx.ModelProto) -> float:
            size = sum(len(tensor.raw_data) for tensor in part.graph.initializer)
            names = {tensor.name for tensor in part.graph.initializer}
            return size + 1e9 * copies(part) * bool(names & {"a0", "b0"})

        clock(seconds)
        made, costs, sites = planned(model, masks)
        preferred = choosing.choose(made, costs, here(model, 1e6))
        taken = plan(made.analysis, "auto", costs, preferred)
        names = {
            taken.analysis.graph.nodes[index].inputs[1]: each.name
            for index, each in taken.readers.items()
        }
        assert {names[name] for name in ("a0", "b0")} == {"zero-fill"}
        assert {names[name] for name in ("a1", "b1")} <= {"gather", "slice"}
        assert len(sites) == 4

    def test_nothing_leaves_where_that_is_fastest(self, clock: Any) -> None:
        clock(lambda model: 1 / sum(len(t.raw_data) for t in model.graph.initializer))
        model, masks = blocks()
        found = onnx_upscale.optimize(model, masks, tune=True)
        sizes = {t.name: list(t.dims) for t in found.model.graph.initializer}
        assert sizes["a0"] == [WIDTH, WIDTH, 3, 3]
        assert found.report["verify"]["ok"]

    @pytest.mark.parametrize(("gain", "wanted"), [(1e-4, 4), (1e-2, 0)])
    def test_what_is_hardly_faster_is_no_reason(self, clock: Any, gain: float, wanted: int) -> None:
        """By its prices `auto` takes four copies here."""
        clock(lambda model: 1 + gain * copies(model))
        assert copies(apply(tuned(*blocks(), "as built in")).model) == wanted

    def test_what_is_alike_is_timed_once(self, clock: Any) -> None:
        timed = clock(lambda model: 1.0)
        model, masks = blocks(4)
        made, costs, sites = planned(model, masks)
        choosing.choose(made, costs, here(model, 1e6))
        # The first block reads three channels, the others 48; a and b differ in what they take.
        assert len(sites) == 8
        assert 2 <= len(timed) <= 4

    def test_it_stops_when_time_is_up(self, clock: Any) -> None:
        timed = clock(lambda model: 1.0)
        model, masks = blocks()
        made, costs, _ = planned(model, masks)
        choosing.choose(made, costs, here(model, 1e-9))
        assert not timed

    def test_progress_is_told_to_the_end(self, clock: Any) -> None:
        clock(lambda model: 1.0)
        model, masks = blocks()
        told: list[tuple[int, int]] = []
        analysis = analyze(load(model, masks).graph)
        prices = load_prices("cpu-avx2")
        tuned_plan(analysis, prices, input_sizes(model), 30.0, lambda *how: told.append(how))
        assert told[-1] == (30, 30)
        assert told == sorted(told)


class TestCuttings:
    @pytest.mark.slow
    def test_they_compute_what_the_model_does_there(self) -> None:
        count = 0
        for case in generated(12):
            made, _, sites = planned(case.model, case.document, "copies free, blocks of 1")
            model = apply(made).model
            names = {name for node in model.graph.node for name in node.output}
            wanted = sorted({name for s in sites for name in (*s.begins, s.ends)} & names)
            sizes = input_sizes(case.model)
            shapes = {**shapes_at(model, wanted, sizes), **sizes}
            seen = _values(model, wanted, random_inputs(model, sizes, 0))
            for site in sites:
                part = cutting(model, site, made.analysis.graph, shapes, lambda _: False)
                if part is None or site.ends not in seen:
                    continue
                given = {value.name: seen[value.name] for value in part.graph.input}
                assert_close([seen[site.ends]], run(part, given), site.ends, share=1e-3)
                count += 1
        assert count > 30

    def test_convolutions_stand_for_those_around_it(self) -> None:
        model, masks = blocks(1)
        made, _, sites = planned(model, masks)
        emitted = apply(made).model
        wanted = [name for site in sites for name in (*site.begins, site.ends)]
        shapes = {**shapes_at(emitted, wanted, input_sizes(model)), **input_sizes(model)}
        for site in sites:
            part = cutting(emitted, site, made.analysis.graph, shapes, lambda _: True)
            assert part is not None
            (value,) = part.graph.input
            dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            assert dims == [1, 1, SIDE, SIDE]
            assert part.graph.node[0].op_type == "Conv"
            Session(part).run(random_inputs(part, input_sizes(part), 0))

    def test_what_takes_as_long_has_one_form(self) -> None:
        model, masks = blocks(3)
        made, _, sites = planned(model, masks)
        emitted = apply(made).model
        wanted = [name for site in sites for name in (*site.begins, site.ends)]
        shapes = {**shapes_at(emitted, wanted, input_sizes(model)), **input_sizes(model)}
        forms = {
            made.analysis.graph.nodes[site.index].inputs[1]: form_of(part)
            for site in sites
            if (part := cutting(emitted, site, made.analysis.graph, shapes, lambda _: True))
        }
        assert forms["a1"] == forms["a2"]
        larger = {name: (1, *dims[1:-1], 2 * dims[-1]) for name, dims in shapes.items()}
        site = next(s for s in sites if made.analysis.graph.nodes[s.index].inputs[1] == "a1")
        part = cutting(emitted, site, made.analysis.graph, larger, lambda _: True)
        assert part is not None
        assert form_of(part) != forms["a1"]


def _values(model: onnx.ModelProto, wanted: Sequence[str], given: Any) -> dict[str, Any]:
    """Some tensors of a model on given inputs, these among them."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    known = {value.name for value in probe.graph.output}
    added = [name for name in wanted if name not in known]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in added)
    names = [value.name for value in probe.graph.output]
    return {**dict(zip(names, run(probe, given), strict=True)), **given}


@pytest.mark.slow
def test_whatever_is_preferred_is_right() -> None:
    """Ways that prices would not take are emitted as well, all readers their last, say."""
    for number, case in enumerate(generated(8)):
        wanted = named_outputs(masked(case))
        target = WAYS[number % len(WAYS)][1]
        made, costs, sites = planned(case.model, case.document, target)
        for site in sites:
            for way in site.ways[1:]:
                other = plan(made.analysis, "auto", costs, site.preferring(way))
                got = named_outputs(apply(other).model)
                assert_close([*wanted.values()], [*got.values()], f"{site} {way}", share=1e-3)


@pytest.mark.slow
def test_keeping_all_is_right() -> None:
    for case in generated(12):
        analysis = analyze(load(case.model, case.document).graph)
        found = keep_all(analysis, load_prices("cpu-avx2"))
        assert all(len(each.chosen) == each.read.layer.inputs for each in found.readers.values())
        wanted, got = named_outputs(masked(case)), named_outputs(apply(found).model)
        assert_close([*wanted.values()], [*got.values()], share=1e-3)


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_no_time_is_refused(seconds: float) -> None:
    model, masks = blocks(1)
    with pytest.raises(UsageError, match=r"`tune_seconds` .*: must be more than 0"):
        onnx_upscale.optimize(model, masks, tune=True, tune_seconds=seconds)


def test_it_measures_where_the_target_is(clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, masks = blocks(1)
    asked: list[str] = []
    clock(lambda model: 1.0)

    def providers(name: str) -> tuple[str, ...]:
        asked.append(name)
        return ("CPUExecutionProvider",)

    monkeypatch.setattr("onnx_upscale.tuning.execution_providers", providers)
    for target in ("cpu-avx2", "cuda"):
        onnx_upscale.optimize(model, masks, tune=True, target=target, verify=False)
    assert asked == ["cpu", "cuda"]


@pytest.mark.skipif("CUDAExecutionProvider" in available_providers(), reason="there is one")
def test_a_gpu_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="`tune` measures where the target is: cuda: "):
        onnx_upscale.optimize(*blocks(1), tune=True, target="cuda")


def test_a_budget_is_what_is_left() -> None:
    now = [0.0]
    told: list[tuple[int, int]] = []
    budget = Budget(10, lambda *how: told.append(how), clock=lambda: now[0])
    assert (budget.left(), budget.left(0.5)) == (10, 5)
    now[0] = 7
    assert (budget.left(), budget.left(0.5)) == (3, 0)
    budget.tell()
    now[0] = 70
    budget.tell()
    budget.tell(done=True)
    assert told == [(7, 10), (9, 10), (10, 10)]
