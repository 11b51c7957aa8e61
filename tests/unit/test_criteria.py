"""Pruning criteria: published definitions by hand, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import onnx_upscale
from build import Net
from onnx_upscale import ModelError, UsageError
from onnx_upscale.criteria.scales import batch_norm_scales
from onnx_upscale.criteria.scores import fpgm, l1, l2, lamp
from onnx_upscale.criteria.sites import find_sites
from onnx_upscale.optimizer.analyze import find_structure
from onnx_upscale.optimizer.load.graph import build_graph
from pruning import CLOSE, chain, make_masks, net_of_layers, pruned, square

# Three channels of two weights each: norms 5, 13 and 0, the distances between them below.
WEIGHT = np.array([[3.0, 4.0], [-5.0, 12.0], [0.0, 0.0]])


def test_l1_is_the_sum_of_absolute_weights() -> None:
    assert l1(WEIGHT).tolist() == [7.0, 17.0, 0.0]


def test_l2_is_the_euclidean_norm() -> None:
    assert l2(WEIGHT).tolist() == [5.0, 13.0, 0.0]


def test_lamp_is_the_share_among_the_channels_that_are_not_smaller() -> None:
    assert lamp(WEIGHT) == CLOSE([25 / (25 + 169), 169 / 169, 0.0])
    # The two rows of the paper's own implementation, where a norm stands for its square.
    ascending = np.sqrt([[1.0], [2.0], [3.0], [4.0]])
    assert lamp(ascending) == CLOSE([1 / 10, 2 / 9, 3 / 7, 1.0])
    # Equal channels get equal scores.
    assert lamp(np.array([[2.0], [-2.0], [1.0]])) == CLOSE([4 / 8, 4 / 8, 1 / 9])
    assert lamp(np.zeros((3, 2))).tolist() == [0.0, 0.0, 0.0]


def test_fpgm_is_the_sum_of_distances_to_the_others() -> None:
    one, two, apart = 5.0, 13.0, math.hypot(8, -8)  # To the origin, and from each other.
    assert fpgm(WEIGHT) == CLOSE([apart + one, apart + two, one + two])


def test_fpgm_prunes_what_others_can_replace_however_large_it_is() -> None:
    line = np.array([[100.0], [110.0], [90.0], [0.0]])
    assert fpgm(line) == CLOSE([120.0, 140.0, 120.0, 300.0])


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 6),
    seed=st.integers(0, 99),
    copies=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_fpgm_equals_its_definition(rows: int, columns: int, seed: int, copies: bool) -> None:
    weight = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    if copies:
        weight[rows // 2 :] = weight[0]
    exact = weight.astype(np.float64)
    expected = np.sqrt(((exact[:, None] - exact[None]) ** 2).sum(-1)).sum(1)
    assert fpgm(weight) == CLOSE(expected, rel=1e-6, abs=1e-6)


def test_fpgm_by_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = np.random.default_rng(0).standard_normal((7, 3))
    whole = fpgm(weight)
    monkeypatch.setattr("onnx_upscale.criteria.scores._MOST_DISTANCES", 3 * 7)
    assert fpgm(weight) == CLOSE(whole)


def test_the_lowest_scores_go_on_either_side() -> None:
    matrix = np.array([[9, 1, 5, 7], [9, 1, 5, 0.5], [9, 1, 5, 7]])  # Outputs 22, 15.5, 22.
    model = chain(matrix)
    assert pruned(make_masks(model, "l1", 0.5))["conv0.weight"] == [1, 3]
    assert pruned(make_masks(model, "l1", 0.5, side="output"), "output")["conv0.weight"] == [1]


def normalized(net: Net, tensor: str, gamma: list[float], name: str) -> str:
    shape = len(gamma)
    rest = [net.random(shape), net.random(shape), np.abs(net.random(shape))]
    return net(
        "BatchNormalization", tensor, net.constant(np.array(gamma, np.float32)), *rest, name=name
    )


def test_bn_takes_the_scale_next_to_the_layer() -> None:
    net = Net(17, x=["batch", 2, 4, 4])
    one = normalized(net, square(net.random(3, 2), net, "x", "a"), [0.5, -3, 1], "bn1")
    two = normalized(net, square(net.random(3, 3), net, net("Relu", one), "b"), [-2, 1, 3], "bn2")
    active = net("Mul", two, net("Sigmoid", two))
    model = net.model(square(net.random(4, 3), net, active, "c"))
    assert pruned(make_masks(model, "bn", 0.34)) == {"b.weight": [0], "c.weight": [1]}
    masks = make_masks(model, "bn", 0.34, side="output")
    assert pruned(masks, "output") == {"a.weight": [0], "b.weight": [1]}


def test_bn_follows_channels_through_joins() -> None:
    net = Net(17, x=["batch", 2, 4, 4])
    one = normalized(net, square(net.random(2, 2), net, "x", "a"), [1, 2], "bn1")
    two = normalized(net, square(net.random(2, 2), net, "x", "b"), [5, -8], "bn2")
    net("Concat", one, net("Relu", two), axis=1, name="concat")
    net("Add", one, two, name="add")
    flat = net("Flatten", "add.0")
    net("Gemm", flat, net.constant(net.random(32, 2), "flat"), name="d")
    square(net.random(2, 4), net, "concat.0", "c")
    structure = find_structure(build_graph(net.model("c.0", "d.0")))
    sites = find_sites(structure, "input", ["*"]).chosen
    found = dict(
        zip((site.key for site in sites), batch_norm_scales(structure, sites), strict=True)
    )
    assert found["c.weight"].tolist() == [1, 2, 5, 8]
    assert found["flat"].tolist() == [3] * 16 + [5] * 16


@pytest.mark.parametrize("side", ["input", "output"])
def test_bn_says_where_there_is_none(side: str) -> None:
    with pytest.raises(UsageError, match=r"layer 'conv0.weight' has no BatchNorm.*`skip`"):
        make_masks(chain(np.eye(4)), "bn", 0.5, side=side, layers=["conv0"])


def test_what_cannot_be_meant_is_refused() -> None:
    model = net_of_layers()
    for amount in (-0.1, 1.1, math.nan):
        with pytest.raises(UsageError, match="must be from 0 to 1"):
            make_masks(model, "l1", amount)
    with pytest.raises(UsageError, match=r"unknown criterion 'l3' .*l1, l2, lamp"):
        make_masks(model, "l3", 0.5)
    with pytest.raises(UsageError, match="unknown side"):
        make_masks(model, "l1", 0.5, side="both")
    with pytest.raises(UsageError, match="unknown scope"):
        make_masks(model, "l1", 0.5, scope="all")
    with pytest.raises(UsageError, match="`batch_size` 0"):
        make_masks(model, "l1", 0.5, batch_size=0)


def test_weights_must_be_numbers() -> None:
    model = chain(np.array([[1.0, np.nan], [1.0, 2.0]]))
    with pytest.raises(ModelError, match=r"layer 'conv0.weight': .*NaN"):
        make_masks(model, "l1", 0.5)


def test_the_model_stays_as_it_is() -> None:
    model = net_of_layers()
    before = model.SerializeToString(deterministic=True)
    make_masks(model, "hrank", 0.5, data=np.ones((1, 2, 3, 3), np.float32))
    assert model.SerializeToString(deterministic=True) == before


def test_the_name_of_earlier_versions_warns() -> None:
    with pytest.warns(DeprecationWarning, match="called mask now"):
        assert onnx_upscale.make_masks is onnx_upscale.mask
    with pytest.raises(AttributeError, match="no attribute 'make_mask'"):
        _ = onnx_upscale.make_mask


def test_quantized_weights_are_scored_by_their_values() -> None:
    net = Net(17, x=["batch", 2, 3, 3])
    tensor = net("Relu", square(net.random(3, 2), net, "x", "stem"))
    stored = numpy_helper.from_array(np.array([[9, 1, 5]] * 2, np.int8).reshape(2, 3, 1, 1), "q")
    net.initializers.append(stored)
    weight = net("DequantizeLinear", "q", np.float32(0.5), np.int8(1))
    model = net.model(net("Conv", tensor, weight, name="it"))
    assert pruned(make_masks(model, "l1", 0.34)) == {"q": [1]}
