"""The parts of a choice by hand: what is gone at a depth, what it costs and saves, what is next."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest

from build import Net
from onnx_upscale.optimizer.analyze import find_structure
from onnx_upscale.optimizer.load.graph import build_graph
from onnx_upscale.optimizer.load.model import read_model
from onnx_upscale.prices import AnalyticPrices, load_prices
from onnx_upscale.pruning.curves import Curves, find_curves
from onnx_upscale.pruning.families import find_families
from onnx_upscale.pruning.gauge import gauge_of
from onnx_upscale.pruning.moves import best_move, levels_of
from onnx_upscale.pruning.removal import Problem, Removal, remove
from onnx_upscale.pruning.sensitivity import _change
from onnx_upscale.pruning.state import Depth, State, Stock
from pruning import square
from targets import TARGETS


def two_readers(width: int = 6, size: int = 4) -> onnx.ModelProto:
    net = Net(17, x=["batch", 3, size, size])
    shared = net("Relu", square(net.random(width, 3), net, "x", "stem"))
    ends = [
        net("GlobalAveragePool", square(net.random(5, width), net, shared, name))
        for name in ("one", "two")
    ]
    return net.model(*ends)


def stock(model: onnx.ModelProto, *orders: list[int]) -> Stock:
    """A family with given orders: the common one, then each reader's; unit k costs k in its own."""
    structure = find_structure(build_graph(read_model(model)))
    (family,) = find_families(structure)
    common, *own = (np.array(order) for order in orders)
    steps = np.arange(len(common) + 1, dtype=float)
    joint = np.stack([steps * 10] * len(own))
    squares = (steps**2)[np.newaxis]
    return Stock(family, Curves(Removal(common, joint), tuple(Removal(o, squares) for o in own)))


ORDERS = ([0, 1, 2, 3, 4, 5], [5, 1, 4, 0, 3, 2], [0, 1, 2, 3, 4, 5])


def test_a_reader_has_the_common_units_and_the_next_of_its_own() -> None:
    subject = stock(two_readers(), *ORDERS)
    gone = subject.gone(Depth(2, (4, 2)))
    assert np.flatnonzero(gone[0]).tolist() == [0, 1, 4, 5]
    assert np.flatnonzero(gone[1]).tolist() == [0, 1]


def test_a_reader_pays_for_both_but_not_less_than_its_own_order_says() -> None:
    subject = stock(two_readers(), *ORDERS)
    # The first: 20 for two common units, 1 for unit 5 and 5 for unit 4 of its own; the second: 20.
    assert subject.cost(Depth(2, (4, 2))) == 20 + (1 + 5) + 20
    dear = [Removal(own.order, own.errors * 9) for own in subject.curves.own]
    subject = Stock(subject.family, Curves(subject.curves.joint, tuple(dear)))
    assert subject.cost(Depth(2, (4, 2))) == 9 * 16 + 9 * 4


def test_depths_only_grow() -> None:
    depth = Depth(2, (4, 2))
    assert depth.moved(None, 3) == Depth(3, (4, 3))
    assert depth.moved(1, 5) == Depth(2, (4, 5))


@pytest.mark.parametrize(
    ("units", "target", "first"),
    [(40, "as built in", 8), (12, "as built in", 4), (40, "blocks of 8", 8)],
)
def test_what_stays_is_whole_blocks_or_else_aligned(units: int, target: str, first: int) -> None:
    (family,) = find_families(find_structure(build_graph(read_model(two_readers(units)))))
    levels = levels_of(family, load_prices(TARGETS[target]))
    assert levels[0] == first
    assert levels[-1] < units


def _state(subject: Stock, width: int, measure: str, **changes: float) -> State:
    structure = find_structure(build_graph(read_model(two_readers(width))))
    prices = load_prices(TARGETS["blocks of 1"])
    assert isinstance(prices, AnalyticPrices)
    prices = dataclasses.replace(prices, **changes)  # type: ignore[arg-type]
    return State([subject], gauge_of(measure, structure, prices))


def test_a_dear_step_before_a_cheap_one_is_passed_over() -> None:
    """The first unit costs 10 and the second nothing: both together have the best ratio."""
    subject = stock(two_readers(), *ORDERS)
    errors = np.array([[0.0, 10, 10, 90, 99, 99, 99]] * 2)
    joint = Removal(subject.curves.joint.order, errors)
    own = [Removal(each.order, 0 * each.errors) for each in subject.curves.own]
    state = _state(Stock(subject.family, Curves(joint, tuple(own))), 6, "params")
    move = best_move(state, 0, None, (1, 2, 3, 4, 5))
    assert move is not None
    assert (move.level, move.cost) == (2, 20)
    assert move.gain == 2 * (5 + 5 + 3)  # The readers' rows and columns, and the writer's.


def test_savings_by_measure() -> None:
    subject = stock(two_readers(), *ORDERS)
    weights, macs = (_state(subject, 6, each) for each in ("params", "macs"))
    after = Depth(1, (1, 1))
    start = Depth(0, (0, 0))
    assert weights.price(0, start) - weights.price(0, after) == 13
    assert macs.price(0, start) - macs.price(0, after) == 13 * 16
    free = dict.fromkeys(
        ["seconds_per_node", "seconds_per_source_byte", "seconds_per_copied_byte"], 0.0
    )
    alone = Depth(0, (3, 0))
    free_copies, dear_copies = (
        _state(subject, 6, "latency", **{key: value + dear for key, value in free.items()})
        for dear in (0.0, 1.0)
    )
    assert free_copies.price(0, alone) < free_copies.price(0, start)
    assert dear_copies.price(0, alone) == dear_copies.price(0, start)


def test_families_of_one_reader_have_the_errors_of_their_own_units() -> None:
    net = Net(17, x=["batch", 3, 2, 2])
    one = net("Relu", square(net.random(6, 3), net, "x", "one"))
    two = net("Relu", square(net.random(4, 3), net, "x", "two"))
    pooled = net("GlobalAveragePool", square(net.random(2, 6), net, one, "side"))
    joined = square(net.random(5, 10), net, net("Concat", two, one, axis=1), "joined")
    structure = find_structure(build_graph(read_model(net.model(joined, pooled))))
    families = find_families(structure)
    rng = np.random.default_rng(0)
    seconds = {
        count: (lambda half: half @ half.T)(rng.standard_normal((count, 20))) for count in (6, 10)
    }
    layers = {layer.node.title: layer for layer in structure.layers.values()}
    sensitivity = {layer.node.index: 2.0 for layer in layers.values()}
    curves = find_curves(structure, families, lambda layer: seconds[layer.inputs], sensitivity)
    (family,) = (family for family in families if family.units == 4)
    layer = layers["joined"]
    weight = structure.graph.value(layer.node, 1)
    assert weight is not None
    problem = Problem.of(weight.reshape(5, 10, 1).astype(np.float64), seconds[10])
    wanted = remove(problem.of_units(np.arange(4)))
    found = curves[family.id].joint
    assert found.order.tolist() == wanted.order.tolist()
    np.testing.assert_allclose(found.errors, wanted.errors * 2.0 * 4)  # Four places.


def test_what_the_model_reads_stays() -> None:
    net = Net(17, x=["batch", 4, 2, 2])
    made = net("Relu", square(net.random(6, 4), net, "x", "made"))
    joined = square(net.random(3, 10), net, net("Concat", "x", made, axis=1), "joined")
    structure = find_structure(build_graph(read_model(net.model(joined))))
    assert [family.units for family in find_families(structure)] == [6]


def test_another_count_of_results_is_a_change_of_all() -> None:
    assert _change(np.ones(3), np.ones(4)) == 1.0
    assert _change(np.ones(4), np.full(4, 1.5)) == 0.25
