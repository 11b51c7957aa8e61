"""How many channels go, which, and of which layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onnx_upscale
from build import Array, Net
from onnx_upscale import UsageError
from onnx_upscale.optimizer.load import load
from pruning import WITHOUT_DATA, chain, make_masks, net_of_layers, pruned, square

WIDTHS = {
    "conv0.weight": 8,
    "conv1.weight": 12,
    "conv2.weight": 5,
    "conv3.weight": 16,
    "fc.weight": 3,
}


@given(
    criterion=st.sampled_from([*WITHOUT_DATA, "hrank"]),
    amount=st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.3, 0.5, 0.99, 1.0])),
    scope=st.sampled_from(["local", "global"]),
    seed=st.integers(0, 3),
)
@settings(max_examples=80, deadline=None)
def test_counts_are_exact_and_results_repeat(
    criterion: str, amount: float, scope: str, seed: int
) -> None:
    model = net_of_layers()
    data = np.random.default_rng(0).standard_normal((2, 2, 3, 3)).astype(np.float32)
    masks = make_masks(model, criterion, amount, scope=scope, seed=seed, data=data)
    assert masks == make_masks(model, criterion, amount, scope=scope, seed=seed, data=data)
    chosen = pruned(masks)
    assert {key: len(set(channels)) for key, channels in chosen.items()} == {
        key: len(channels) for key, channels in chosen.items()
    }
    if scope == "local":
        assert {key: len(channels) for key, channels in chosen.items()} == {
            key: int(amount * width) for key, width in WIDTHS.items()
        }
    else:
        total = sum(WIDTHS.values())
        most = total if amount == 1 else total - len(WIDTHS)
        assert sum(map(len, chosen.values())) == min(int(amount * total), most)
        if amount < 1:
            assert all(len(chosen[key]) < width for key, width in WIDTHS.items())
    load(model, masks)


def test_the_seed_decides_what_random_prunes() -> None:
    model = net_of_layers()
    assert make_masks(model, "random", 0.5, seed=1) != make_masks(model, "random", 0.5, seed=2)
    assert make_masks(model, "l1", 0.5, seed=1) == make_masks(model, "l1", 0.5, seed=2)


def test_global_scope_compares_scores_by_the_mean_of_their_layer() -> None:
    one = np.diag([1.0, 2.0, 3.0, 6.0])  # By the mean: 1/3, 2/3, 1, 2.
    other = np.diag([900.0, 1000.0, 1050.0, 1050.0])  # 0.9, 1, 1.05, 1.05.
    model = chain(one, other)
    for criterion in ("l1", "l2"):
        masks = make_masks(model, criterion, 0.375, scope="global", skip=["fc"])
        assert pruned(masks) == {"conv0.weight": [0, 1], "conv1.weight": [0]}


def test_lamp_compares_layers_as_it_is() -> None:
    one, other = np.diag(np.sqrt([1.0, 1.0, 1.0, 1.0])), np.diag(np.sqrt([1.0, 2.0, 3.0, 4.0]))
    # All of the first have 1/4; of the second 1/10, 2/9, 3/7 and 1.
    masks = make_masks(chain(one, other), "lamp", 0.25, scope="global", skip=["fc"])
    assert pruned(masks) == {"conv0.weight": [], "conv1.weight": [0, 1]}


def test_the_best_channel_of_a_layer_stays_unless_all_go() -> None:
    model = chain(np.diag([1.0, 1.0, 1.0]), np.diag([1.0, 1.0, 1.0]))
    for amount, kept in ((0.99, {2}), (1.0, set())):
        chosen = pruned(make_masks(model, "l1", amount, scope="global", skip=["fc"]))
        assert {3 - len(channels) for channels in chosen.values()} == {len(kept)} or not kept
        if amount == 1.0:
            assert chosen == {"conv0.weight": [0, 1, 2], "conv1.weight": [0, 1, 2]}


def test_of_equal_scores_the_first_go() -> None:
    same = np.where(np.eye(4), -1.0, 1.0)
    assert pruned(make_masks(chain(same), "l2", 0.5))["conv0.weight"] == [0, 1]


def test_pixels_classes_and_groups_are_left_alone() -> None:
    net = Net(17, x=["batch", 4, 6, 6])
    scaled = net("Div", net("Sub", "x", net.random(1, 4, 1, 1)), net.random(1, 4, 1, 1))
    first = net("Conv", scaled, net.constant(net.random(8, 4, 3, 3), "first"), name="a")
    depthwise = net(
        "Conv", net("Relu", first), net.constant(net.random(8, 1, 3, 3), "dw"), name="b", group=8
    )
    flat = net("Flatten", net("GlobalAveragePool", depthwise))
    hidden = net("MatMul", flat, net.constant(net.random(8, 5), "hidden"), name="c")
    last = net("Gemm", net("Relu", hidden), net.constant(net.random(5, 3), "last"), name="d")
    model = net.model(net("Softmax", net("Add", last, net.random(3))))
    found = onnx_upscale.mask(model, "l1", 0.5)
    assert set(pruned(found)) == {"hidden"}
    assert found.left == {
        "at a model input": ("first",),
        "grouped": ("dw",),
        "right before an output": ("last",),
    }
    made = onnx_upscale.mask(model, "l1", 0.5, side="output")
    assert set(pruned(made, "output")) == {"first", "hidden"}
    assert made.left == {"grouped": ("dw",), "at a model output": ("last",)}
    named = make_masks(model, "l1", 0.5, layers=["first", "c", "d.0"])
    assert set(pruned(named)) == {"first", "hidden", "last"}
    # A pattern chooses among those that are pruned by default, and those right before an output.
    assert set(pruned(make_masks(model, "l1", 0.5, layers=["*"]))) == {"hidden", "last"}
    assert set(pruned(make_masks(model, "l1", 0.5, skip=["hid*"]))) == {"last"}
    assert pruned(onnx_upscale.mask(model, "l1", 0.5, layers=["first"])).keys() == {"first"}
    with pytest.raises(UsageError, match="no layer is left"):
        make_masks(model, "l1", 0.5, layers=["dw"])


def test_a_pattern_that_matches_nothing_lists_close_names() -> None:
    for option in ("layers", "skip"):
        patterns: dict[str, Any] = {option: ["conv0.wieght"]}
        with pytest.raises(UsageError, match=rf"`{option}` conv0.wieght: .*closest: conv0.weight"):
            make_masks(net_of_layers(), "l1", 0.5, **patterns)


def test_a_shared_weight_is_called_by_its_nodes() -> None:
    net = Net(17, x=["batch", 2, 4, 4])
    shared = net.constant(net.random(2, 2, 1, 1), "shared")
    first = net("Conv", "x", shared, name="first")
    second = net("Conv", net("Relu", first), shared, name="second")
    hidden = net("Conv", net("Relu", second), shared, name="")
    own = net("Transpose", net.constant(net.random(3, 2), "own"), perm=[1, 0])
    flat = net("Flatten", net("GlobalMaxPool", hidden))
    model = net.model(net("MatMul", flat, own, name="linear"))
    assert set(pruned(make_masks(model, "l1", 0.5))) == {
        "second",
        hidden.split(".")[0],
        "own",
    }
    for node in model.graph.node:
        if node.name == hidden.split(".")[0]:
            node.name = ""
    assert set(pruned(make_masks(model, "l1", 0.5))) == {"second", hidden, "own"}


@pytest.mark.parametrize("side", ["input", "output"])
def test_every_kind_of_layer_by_its_channels(side: str) -> None:
    scale = np.array([3, 1, 2, 4], np.float32)  # Of either side: channels 1 and 2 go.
    matrix = np.outer(scale, scale)
    kinds: dict[str, Array] = {"Conv": matrix[..., None, None], "MatMul": matrix, "Gemm": matrix}
    for op, weight in {**kinds, "ConvTranspose": matrix[..., None, None]}.items():
        net = Net(17, x=["batch", 2, 3, 3])
        tensor = net("Relu", square(net.random(4, 2), net, "x", "stem"))
        if op in ("MatMul", "Gemm"):
            tensor = net("Flatten", net("GlobalAveragePool", tensor))
        slanted = weight * np.arange(1, 5).reshape(-1, 1, *[1] * (weight.ndim - 2))
        made = net(op, tensor, net.constant(slanted.astype(np.float32), "weight"), name="it")
        shape = (4, 4) if op in ("MatMul", "Gemm") else (4, 4, 1, 1)
        after = "MatMul" if len(shape) == 2 else "Conv"
        model = net.model(net(after, net("Relu", made), net.constant(net.random(*shape)), name="z"))
        # Rows: 3, 2, 6, 16 of everything; columns in the order of `scale`.
        rows_are_inputs = op != "Conv"
        expected = [0, 1] if rows_are_inputs == (side == "input") else [1, 2]
        masks = make_masks(model, "l1", 0.5, side=side, layers=["it"])
        assert pruned(masks, side) == {"weight": expected}, op
