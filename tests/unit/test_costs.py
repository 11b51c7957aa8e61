"""Costs: what the prices are told of a layer of a graph."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from build import Net
from onnx_upscale.grain import Grain
from onnx_upscale.optimizer.analyze import find_structure
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.plan import Costs
from onnx_upscale.prices import load_prices

LOW, HIGH = np.float32(0), np.float32(6)


@pytest.mark.parametrize(
    ("follows", "alone", "bounded"),
    [
        ("Clip", True, True),
        ("LeakyRelu", True, True),
        ("Relu", True, False),  # Kernels do it as they go.
        ("Clip", False, False),  # It is no part of the convolution if others read that too.
        ("Sigmoid", True, False),  # Another pass whatever the kernel.
    ],
)
def test_convolutions_are_dearer_where_blocks_leave_bounds_to_another_pass(
    follows: str, alone: bool, bounded: bool
) -> None:
    net = Net(17, x=[1, 32, 6, 6])
    made = net("Conv", "x", net.random(16, 32, 1, 1))
    last = net(follows, made, *((LOW, HIGH) if follows == "Clip" else ()))
    structure = find_structure(load(net.model(last, *([] if alone else [net("Relu", made)]))).graph)
    costs = Costs(structure, load_prices("cpu-avx512"))
    free = Costs(find_structure(load(net.model(made)).graph), load_prices("cpu-avx512"))
    in_blocks, any_count = (
        costs.layer(structure.layers[0], inputs, 16) - free.layer(structure.layers[0], inputs, 16)
        for inputs in (32, 30)
    )
    assert (in_blocks > 0) == bounded
    assert any_count == 0


def test_counts_are_those_of_the_prices_whatever_was_asked_before() -> None:
    net = Net(17, x=[1, 4, 6, 6])
    prices = load_prices("cpu-avx512")
    costs = Costs(find_structure(load(net.model(net("Relu", "x"))).graph), prices)
    for _ in range(2):
        assert [costs.counts(9, grain) for grain in Grain] == [
            prices.counts(9, grain) for grain in Grain
        ]


def test_copies_cost_the_same_whatever_was_asked_before() -> None:
    net = Net(17, x=[1, 64, 6, 6])
    structure = find_structure(load(net.model(net("MatMul", "x", net.random(6, 4)))).graph)
    prices = load_prices("cpu-avx512")
    known = Costs(structure, prices)
    asked = [*product(("x",), (1, 3), (64, 60), (20, 32), (True, False), (None, 0, 20))]
    for _ in range(2):
        assert [known.copy(*each) for each in asked] == [
            Costs(structure, prices).copy(*each) for each in asked
        ]
    assert known.copy("x", 1, 64, 20, True, 0) < known.copy("x", 1, 64, 20, True, None)
