"""Decisions that coupled layers share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from build import Net
from case import Case
from onnx_upscale import UsageError
from onnx_upscale.optimizer.analyze import analyze, find_structure
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.load.masking import LayerMask
from onnx_upscale.optimizer.plan import grow_masks
from pruning import WITHOUT_DATA, copies, make_masks, pruned, square
from strategies import cases


def residual() -> onnx.ModelProto:
    net = Net(17, x=["batch", 3, 8, 8])
    stem = net("Relu", square(net.random(8, 3), net, "x", "stem"))
    inner = net("Relu", square(net.random(6, 8), net, stem, "block1.a"))
    joined = net("Relu", net("Add", stem, square(net.random(8, 6), net, inner, "block1.b")))
    inner = net("Relu", square(net.random(6, 8), net, joined, "block2.a"))
    joined = net("Relu", net("Add", joined, square(net.random(8, 6), net, inner, "block2.b")))
    flat = net("Flatten", net("GlobalAveragePool", joined))
    return net.model(net("Gemm", flat, net.constant(net.random(8, 4), "fc"), name="fc.node"))


def dense() -> onnx.ModelProto:
    net = Net(17, x=["batch", 3, 8, 8])
    grown = net("Relu", square(net.random(8, 3), net, "x", "stem"))
    for step in range(3):
        width = 8 + 4 * step
        new = net("Relu", square(net.random(4, width), net, grown, f"step{step}"))
        grown = net("Concat", grown, new, axis=1)
    flat = net("Flatten", net("GlobalAveragePool", grown))
    return net.model(net("Gemm", flat, net.constant(net.random(20, 4), "fc"), name="fc.node"))


def squeeze_and_excite() -> onnx.ModelProto:
    net = Net(17, x=["batch", 3, 8, 8])
    expanded = net("Relu", square(net.random(12, 3), net, "x", "expand"))
    filters = net.constant(net.random(12, 1, 3, 3), "dw")
    depthwise = net("Conv", expanded, filters, name="dw.node", group=12, pads=[1, 1, 1, 1])
    active = net("Relu", depthwise)
    small = net("Relu", square(net.random(4, 12), net, net("GlobalAveragePool", active), "squeeze"))
    gate = net("Sigmoid", square(net.random(12, 4), net, small, "excite"))
    projected = square(net.random(6, 12), net, net("Mul", active, gate), "project")
    flat = net("Flatten", projected)  # Blocks of 64 inputs stand for one channel.
    return net.model(net("Gemm", flat, net.constant(net.random(384, 4), "fc"), name="fc.node"))


MODELS = {"residual": residual, "dense": dense, "squeeze-and-excite": squeeze_and_excite}


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("criterion", ["l2", "lamp", "random"])
@pytest.mark.parametrize("name", MODELS)
def test_constrained_input_masks_agree(name: str, criterion: str, scope: str) -> None:
    model = MODELS[name]()
    masks = make_masks(model, criterion, 0.5, constrained=True, scope=scope)
    loaded = load(model, masks)
    mine = {mask.layer.node.index: mask.pruned.tolist() for mask in loaded.masks}
    grown = {
        mask.layer.node.index: mask.pruned.tolist() for mask in grow_masks(analyze(loaded.graph))
    }
    assert grown == {index: channels for index, channels in mine.items() if channels}
    assert sum(map(len, mine.values())) > 0
    # What each strategy would pay: nothing, for nobody disagrees. Alone they do.
    assert copies(model, masks) == {"auto": 0, "gather": 0, "upscale": 0}
    alone = make_masks(model, "random", 0.5, scope=scope)
    assert copies(model, alone)["gather"] > 0


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("name", MODELS)
def test_constrained_output_masks_agree(name: str, scope: str) -> None:
    model = MODELS[name]()
    masks = make_masks(model, "l2", 0.5, constrained=True, side="output", scope=scope)
    loaded = load(model, masks)
    structure = find_structure(loaded.graph)
    gone: dict[int, bool] = {}
    writes = {facts.node.index: facts.write for facts in structure.facts}
    for mask in loaded.masks:
        write = writes[mask.layer.node.index]
        assert write is not None
        for channel, root in enumerate(structure.roots[write.outputs].tolist()):
            assert gone.setdefault(root, channel in mask.pruned) == (channel in mask.pruned)
    assert any(gone.values())
    if (
        scope == "local"
    ):  # Grouped layers follow: what is coupled through one is pruned all the same.
        assert all(len(mask.pruned) == mask.layer.outputs // 2 for mask in loaded.masks)
    assert copies(model, masks) == {"auto": 0, "gather": 0, "upscale": 0}


@given(
    case=cases(),
    criterion=st.sampled_from(WITHOUT_DATA),
    amount=st.sampled_from([0.3, 0.6, 1.0]),
    scope=st.sampled_from(["local", "global"]),
)
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_constrained_masks_agree_on_random_models(
    case: Case, criterion: str, amount: float, scope: str
) -> None:
    try:
        masks = make_masks(case.model, criterion, amount, scope=scope, constrained=True)
    except UsageError as error:
        assert "is left" in str(error)  # No layer, or no channel.
        return
    loaded = load(case.model, masks)
    zeros = grow_masks(analyze(load(case.model).graph))  # By zeros of the model's own.
    mine = _by_node(loaded.masks)
    known = {node: mine.get(node, set()) | own for node, own in _by_node(zeros).items()}
    # A layer that is left nothing but such zeros makes zeros, which prune more behind it.
    emptied = {
        mask.layer.node.title: {"input": list(range(mask.layer.inputs))}
        for mask in zeros
        if len(known[mask.layer.node.index]) == mask.layer.inputs
    }
    nothing = load(case.model, {"version": 1, "masks": emptied})
    behind = _by_node(grow_masks(analyze(nothing.graph)))
    for node, grown in _by_node(grow_masks(analyze(loaded.graph))).items():
        assert grown <= mine.get(node, set()) | behind.get(node, set())


def _by_node(masks: Sequence[LayerMask]) -> dict[int, set[int]]:
    return {mask.layer.node.index: set(mask.pruned.tolist()) for mask in masks}


def test_coupled_scores_are_the_mean_over_readers() -> None:
    """Of two readers of the same tensor, each by the mean of its own scores."""
    net = Net(17, x=["batch", 2, 4, 4])
    shared = net("Relu", square(net.random(3, 2), net, "x", "stem"))
    one = square(np.array([[1.0, 2.0, 6.0]]), net, shared, "one")  # By the mean: 1/3, 2/3, 2.
    other = square(np.array([[500.0, 100.0, 600.0]]), net, shared, "other")  # 1.25, 0.25, 1.5.
    model = net.model(one, other)
    apart = pruned(make_masks(model, "l1", 0.34))
    assert apart == {"one.weight": [0], "other.weight": [1]}
    together = pruned(make_masks(model, "l1", 0.34, constrained=True))  # 19/24, 11/24, 1.75.
    assert together == {"one.weight": [1], "other.weight": [1]}


def test_coupled_scores_are_the_mean_over_a_block() -> None:
    """Nine inputs of a Gemm behind a Flatten stand for one channel of a Conv."""
    net = Net(17, x=["batch", 2, 3, 3])
    shared = net("Relu", square(net.random(3, 2), net, "x", "stem"))
    one = square(np.array([[1.0, -2.0, 3.0]]), net, shared, "one")  # By the mean: 0.5, 1, 1.5.
    rows = np.repeat([[1.5], [1.0], [0.5]], 9, axis=0).astype(np.float32)
    rows[10, 0] = 0.1  # 1.55, 0.93, 0.52 by the mean: together 1.03, 0.97, 1.01.
    flat = net("Gemm", net("Flatten", shared), net.constant(rows, "flat"), name="flat.node")
    masks = pruned(make_masks(net.model(one, flat), "l1", 0.34, constrained=True))
    assert masks == {"one.weight": [1], "flat": list(range(9, 18))}


def test_global_scope_does_not_favour_what_many_read() -> None:
    net = Net(17, x=["batch", 2, 3, 3])
    shared = net("Relu", square(net.random(2, 2), net, "x", "stem"))
    even, uneven = np.array([[1.0, 1.0], [1.0, 1.0]]), np.array([[1.1, 0.9]])
    one = square(uneven, net, shared, "one")
    two = square(uneven, net, shared, "two")
    alone = square(np.array([[1.02, 0.98]]), net, net("Relu", square(even, net, "x", "b")), "three")
    masks = make_masks(net.model(one, two, alone), "l1", 0.25, constrained=True, scope="global")
    assert pruned(masks) == {"one.weight": [1], "two.weight": [1], "three.weight": []}


def test_constrained_prunes_that_share_of_every_set() -> None:
    masks = pruned(make_masks(dense(), "l1", 0.5, constrained=True))
    # step2 reads the stem's 8 channels, and 4 of each step before; fc reads all.
    assert len(masks["step0.weight"]) == 4
    assert masks["step1.weight"][:4] == masks["step0.weight"]
    assert len(masks["step2.weight"]) == 8
    assert len(masks["fc"]) == 10


def test_constrained_leaves_alone_what_others_keep() -> None:
    model = residual()
    masks = pruned(make_masks(model, "l1", 0.5, constrained=True, skip=["block2.a.weight"]))
    assert masks["block1.a.weight"] == masks["fc"] == []
    assert len(masks["block1.b.weight"]) == len(masks["block2.b.weight"]) == 3
    with pytest.raises(UsageError, match="no channel is left to prune"):
        make_masks(model, "l1", 0.5, constrained=True, layers=["fc"])


def test_constrained_leaves_alone_what_an_operator_needs_whole() -> None:
    net = Net(17, x=["batch", 5, 6])
    hidden = net("Relu", net("MatMul", "x", net.constant(net.random(6, 8), "up"), name="up.node"))
    normed = net("LayerNormalization", hidden, net.random(8))
    wide = net("Relu", net("MatMul", normed, net.constant(net.random(8, 12), "a"), name="a.node"))
    model = net.model(net("MatMul", wide, net.constant(net.random(12, 3), "b"), name="b.node"))
    masks = pruned(make_masks(model, "l1", 0.5, constrained=True))
    assert (len(masks["a"]), len(masks["b"])) == (0, 6)
