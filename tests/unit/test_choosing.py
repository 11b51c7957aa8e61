"""Which channels are chosen for a goal."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest

from build import Array, Net, input_values
from moments import second_moments
from onnx_upscale import UsageError
from onnx_upscale.choices import MODES
from onnx_upscale.optimizer.analyze import Structure, analyze, find_structure
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.load.graph import build_graph
from onnx_upscale.optimizer.load.masking import LayerMask
from onnx_upscale.optimizer.load.model import read_model
from onnx_upscale.optimizer.plan import grow_masks, plan
from onnx_upscale.prices import AnalyticPrices, Prices, load_prices
from onnx_upscale.pruning.curves import Curves, find_curves
from onnx_upscale.pruning.families import Family, find_families
from onnx_upscale.pruning.moves import levels_of
from onnx_upscale.pruning.search import Choice, search
from onnx_upscale.pruning.sensitivity import sensitivities
from onnx_upscale.pruning.state import Depth, Stock
from pruning import square
from targets import TARGETS


def without_nodes(target: str) -> Prices:
    """Prices under which a node by itself costs nothing, as it nearly does in larger models."""
    prices = load_prices(TARGETS[target])
    assert isinstance(prices, AnalyticPrices)
    return dataclasses.replace(prices, seconds_per_node=0.0)


_ONES = without_nodes("blocks of 1")
_EIGHTS = without_nodes("blocks of 8")
_PRICES = {
    "blocks of 16": without_nodes("as built in"),
    "blocks of 8": _EIGHTS,
    "blocks of 1": _ONES,
    "copies free, blocks of 8": without_nodes("copies free, blocks of 8"),
}
_EVEN = without_nodes("copies free, align 2")


def residual(width: int = 32, size: int = 8) -> onnx.ModelProto:
    """Two blocks around a sum that three layers read."""
    net = Net(17, x=["batch", 3, size, size])
    joined = net("Relu", square(net.random(width, 3), net, "x", "stem"))
    for number in range(2):
        inner = square(net.random(width, width), net, joined, f"{number}.a")
        inner = net("Relu", inner)
        weight = net.constant(net.random(width, width, 3, 3), f"{number}.b.weight")
        inner = net("Conv", inner, weight, pads=[1, 1, 1, 1], name=f"{number}.b")
        joined = net("Relu", net("Add", joined, inner))
    flat = net("Flatten", net("GlobalAveragePool", joined))
    return net.model(net("Gemm", flat, net.constant(net.random(width, 4), "fc"), name="fc.node"))


def chain(widths: Sequence[int], size: int = 4) -> onnx.ModelProto:
    net = Net(17, x=["batch", 3, size, size])
    tensor, before = "x", 3
    for number, width in enumerate(widths):
        made = square(net.random(width, before), net, tensor, f"conv{number}")
        tensor, before = net("Relu", made), width
    flat = net("Flatten", net("GlobalAveragePool", tensor))
    return net.model(net("Gemm", flat, net.constant(net.random(before, 3), "fc"), name="fc.node"))


class Subject:
    """A model with all that a search takes."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = read_model(model)
        self.structure: Structure = find_structure(build_graph(self.model))
        self.families: tuple[Family, ...] = find_families(self.structure)
        samples = [input_values(model, seed, batch=4) for seed in range(4)]
        layers = {
            party.layer.node.index: party.layer
            for family in self.families
            for party in family.readers
        }
        graph = self.structure.graph
        self.sensitivity = sensitivities(graph, list(layers.values()), samples[:1])
        moments = second_moments(self.model, samples)
        self.curves: dict[int, Curves] = find_curves(
            self.structure, self.families, moments, self.sensitivity
        )

    def search(
        self, *goals: float, prices: Prices = _EIGHTS, measure: str = "latency", mode: str = "joint"
    ) -> list[Choice]:
        return list(
            search(self.structure, self.families, self.curves, prices, goals, measure, mode)
        )

    def seconds(self, masks: object, prices: Prices) -> float:
        loaded = load(self.model, masks)  # type: ignore[arg-type]
        return plan(analyze(loaded.graph), "auto", prices).seconds


@pytest.fixture(scope="module")
def blocks() -> Subject:
    return Subject(residual())


@pytest.mark.parametrize("target", list(_PRICES))
@pytest.mark.parametrize("mode", ["joint", "agreement", "freedom"])
def test_the_masks_meet_the_goal_as_nearly_as_steps_allow(
    blocks: Subject, target: str, mode: str
) -> None:
    (choice,) = blocks.search(0.8, prices=_PRICES[target], mode=mode)
    none, after = (blocks.seconds(each, _PRICES[target]) for each in (None, choice.masks))
    assert choice.before == pytest.approx(none)
    assert choice.after == pytest.approx(after)
    assert after <= 0.8 * none
    if target == "blocks of 1":
        assert after >= 0.78 * none


@pytest.mark.parametrize("measure", ["macs", "params"])
def test_shares_of_multiply_adds_and_weights(blocks: Subject, measure: str) -> None:
    (choice,) = blocks.search(0.6, prices=_ONES, measure=measure)
    assert 0.58 <= choice.share <= 0.6
    places = 64 if measure == "macs" else 1
    assert choice.before == places * (3 * 32 + 2 * 32 * 32 * (1 + 9)) + 32 * 4


def test_all_readers_agree_where_they_must(blocks: Subject) -> None:
    prices = _PRICES["copies free, blocks of 8"]
    (choice,) = blocks.search(0.6, prices=prices, mode="agreement")
    loaded = load(blocks.model, choice.masks)
    grown = grow_masks(analyze(loaded.graph))
    assert _counts(grown) == _counts(loaded.masks)
    assert all(move.place is None for move in choice.moves)


def test_readers_go_their_own_ways_where_they_may(blocks: Subject) -> None:
    shared = [family for family in blocks.families if len(family.readers) == 3]
    prices = _PRICES["copies free, blocks of 8"]
    (free,) = search(blocks.structure, shared, blocks.curves, prices, [0.97], "macs", "freedom")
    assert free.moves
    assert all(move.place is not None for move in free.moves)
    sets = {tuple(sides["input"]) for sides in free.masks["masks"].values()}
    assert len(sets) > 1
    found = {
        mode: next(search(blocks.structure, shared, blocks.curves, prices, [0.97], "macs", mode))
        for mode in MODES
    }
    assert found["joint"].cost <= min(choice.cost for choice in found.values()) * 1.25


def test_agreement_withstands_what_would_be_free(blocks: Subject) -> None:
    (shared,) = (family for family in blocks.families if len(family.readers) == 3)
    curves = blocks.curves[shared.id]
    own = tuple(dataclasses.replace(each, errors=0 * each.errors) for each in curves.own)
    tempting = {shared.id: Curves(curves.joint, own)}
    prices = _PRICES["copies free, blocks of 8"]
    for mode in ("joint", "agreement"):
        (choice,) = search(blocks.structure, [shared], tempting, prices, [0.97], "macs", mode)
        places = {move.place for move in choice.moves}
        assert (places == {None}) is (mode == "agreement")


def _counts(masks: Sequence[LayerMask]) -> dict[str, int]:
    return {mask.layer.node.title: len(mask.pruned) for mask in masks if len(mask.pruned)}


def test_goals_in_one_go_are_descending_and_cost_more_and_more(blocks: Subject) -> None:
    choices = blocks.search(0.5, 0.9, 0.7)
    assert [choice.goal for choice in choices] == [0.9, 0.7, 0.5]
    assert all(choice.share <= choice.goal for choice in choices)
    costs = [choice.cost for choice in choices]
    assert costs == sorted(costs)


def test_the_last_move_is_the_cheapest_that_reaches_the_goal() -> None:
    """By ratio the first family is next, in one large step; a small one of the second will do."""
    subject = Subject(chain([16, 16, 16]))
    for number, family in enumerate(subject.families):
        steps = np.arange(17.0)
        errors = np.where(steps > 0, 10.0, 0.0) if number == 0 else 4 * steps
        for removal in (subject.curves[family.id].joint, *subject.curves[family.id].own):
            removal.errors[:] = errors
    (choice,) = subject.search(0.97, prices=_ONES, measure="params")
    assert choice.cost == 4
    assert choice.share <= 0.97


def test_the_same_twice(blocks: Subject) -> None:
    one, other = Subject(residual()).search(0.7, 0.5), blocks.search(0.7, 0.5)
    assert [choice.masks for choice in one] == [choice.masks for choice in other]


def test_a_goal_out_of_reach_says_what_can_be_reached(blocks: Subject) -> None:
    with pytest.raises(UsageError, match=r"`latency` 0.01: cannot be reached.* (0\.\d+) of the"):
        blocks.search(0.01)
    with pytest.raises(UsageError, match="`macs` 0: must be above 0"):
        blocks.search(0, measure="macs")
    with pytest.raises(UsageError, match="unknown mode 'none'"):
        blocks.search(0.5, mode="none")
    with pytest.raises(UsageError, match="unknown goal 'watts'"):
        blocks.search(0.5, measure="watts")


def test_a_goal_of_all_prunes_nothing(blocks: Subject) -> None:
    (choice,) = blocks.search(1.0)
    assert not any(sides["input"] for sides in choice.masks["masks"].values())


@pytest.mark.parametrize("goal", [0.8, 0.6, 0.45])
@pytest.mark.parametrize("measure", ["latency", "params"])
def test_greedy_is_near_the_optimum_over_blocks(goal: float, measure: str) -> None:
    subject = Subject(chain([16, 24, 16]))
    stocks = [Stock(family, subject.curves[family.id]) for family in subject.families]
    levels = [(0, *levels_of(stock.family, _EVEN)) for stock in stocks]
    assert [len(each) for each in levels] == [4, 6, 4]
    (choice,) = subject.search(goal, prices=_EVEN, measure=measure)
    best = np.inf
    for counts in itertools.product(*levels):
        masks = {}
        for stock, count in zip(stocks, counts, strict=True):
            (party,) = stock.family.readers
            gone = stock.curves.joint.order[:count]
            masks[party.layer.node.title] = {"input": np.sort(gone).tolist()}
        if _amount(subject, masks, measure) <= goal * choice.before:
            costs = [
                stock.cost(Depth(count, (count,)))
                for stock, count in zip(stocks, counts, strict=True)
            ]
            best = min(best, sum(costs))
    assert best * (1 - 1e-9) <= choice.cost <= 1.25 * best


def _amount(subject: Subject, masks: Mapping[str, object], measure: str) -> float:
    document = {"version": 1, "masks": masks}
    if measure == "latency":
        return subject.seconds(document, _EVEN)
    planned = plan(analyze(load(subject.model, document).graph), "auto", _EVEN)
    kept = [3, *(len(reading.chosen) for _, reading in sorted(planned.readers.items()))]
    return sum(into * out for into, out in zip(kept, [*kept[1:], 3], strict=True))


def test_a_layer_that_does_not_matter_pays_first() -> None:
    subject = Subject(chain([16, 16, 16]))
    for index, family in enumerate(subject.families):
        scale = 1e-6 if index == 1 else 1.0
        curves = subject.curves[family.id]
        for removal in (curves.joint, *curves.own):
            removal.errors[:] = scale * np.arange(removal.errors.shape[1])
    (choice,) = subject.search(0.9, prices=_ONES)
    assert {move.number for move in choice.moves} == {1}


def left_alone() -> onnx.ModelProto:
    """Inputs, outputs, a norm over channels and a layer of numbers 0 to 7: all stay."""
    net = Net(17, x=["batch", 8, 4, 4])
    first = square(net.random(8, 8), net, "x", "first")
    whole = net("Softmax", net("Relu", first), axis=1)
    second = net("Relu", square(net.random(8, 8), net, whole, "second"))
    steps = np.arange(8, dtype=np.float32).reshape(1, 8, 1, 1)
    counted = net("Conv", second, net.constant(steps, "steps"), name="steps.node")
    return net.model(square(net.random(4, 1), net, counted, "last"))


def test_nothing_is_chosen_from_what_must_stay() -> None:
    structure = find_structure(build_graph(read_model(left_alone())))
    assert not find_families(structure)
    with pytest.raises(UsageError, match=r", 1 of the unpruned model is left"):
        list(search(structure, [], {}, load_prices("cpu-avx512"), [0.9]))


def test_layers_can_be_left_alone(blocks: Subject) -> None:
    readers = {
        party.layer.node.title: party.layer.node.index
        for family in blocks.families
        for party in family.readers
    }
    assert set(readers) == {"0.a", "0.b", "1.a", "1.b", "fc.node"}
    others = find_families(blocks.structure, [readers["0.b"], readers["fc.node"]])
    titles = [party.layer.node.title for family in others for party in family.readers]
    assert titles == ["1.b"]


def test_channels_behind_a_flatten_and_a_concat_leave_as_units() -> None:
    net = Net(17, x=["batch", 3, 2, 2])
    one = net("Relu", square(net.random(6, 3), net, "x", "one"))
    two = net("Relu", square(net.random(4, 3), net, "x", "two"))
    flat = net("Flatten", net("Concat", one, two, axis=1))
    side = square(net.random(2, 6), net, one, "side")
    fc = net("Gemm", flat, net.constant(net.random(40, 3), "fc"), name="fc.node")
    subject = Subject(net.model(fc, net("GlobalAveragePool", side)))
    assert [family.units for family in subject.families] == [6, 4]
    assert [[p.times for p in f.readers] for f in subject.families] == [[1, 4], [4]] or [
        [p.times for p in f.readers] for f in subject.families
    ] == [[4, 1], [4]]
    (choice,) = subject.search(0.7, prices=_ONES, measure="params")
    pruned = np.array(choice.masks["masks"]["fc"]["input"])
    assert len(pruned)
    assert (np.bincount(pruned // 4) % 4 == 0).all()


def test_mistaken_estimates_do_not_let_a_goal_be_missed() -> None:
    """Depthwise layers are no part of the estimates; the plan's word counts."""
    net = Net(17, x=["batch", 3, 16, 16])
    tensor = net("Relu", square(net.random(16, 3), net, "x", "stem"))
    for number in range(2):
        wide = net("Relu", square(net.random(48, 16), net, tensor, f"{number}.expand"))
        filters: Array = net.random(48, 1, 3, 3)
        deep = net("Conv", wide, filters, name=f"{number}.dw", group=48, pads=[1, 1, 1, 1])
        tensor = net("Add", tensor, square(net.random(16, 48), net, net("Relu", deep), f"{number}"))
    flat = net("Flatten", net("GlobalAveragePool", tensor))
    model = net.model(net("Gemm", flat, net.constant(net.random(16, 4), "fc"), name="fc.node"))
    subject = Subject(model)
    (choice,) = subject.search(0.6, prices=_ONES)
    share = subject.seconds(choice.masks, _ONES) / subject.seconds(None, _ONES)
    assert 0.58 < share <= 0.6
