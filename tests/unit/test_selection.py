"""Pruning some layers only."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import Array, Net
from onnx_upscale import Pruned, UsageError
from onnx_upscale.optimizer.analyze import find_structure
from onnx_upscale.optimizer.load import load
from onnx_upscale.pruning.selection import select
from pruning import square
from targets import TARGETS

CHEAP = TARGETS["copies free, blocks of 8"]
SCOPES = "['', 'encoder', 'encoder.mlp', 'encoder.mlp.0', 'linear_2']"


def residual() -> onnx.ModelProto:
    """Two blocks on one stream, which three layers read; the second has a module's name."""
    net = Net(17, x=["batch", 3, 6, 6])
    stream = net("Relu", square(net.random(16, 3), net, "x", "stem"))
    for block in ("one", "two"):
        inner = net("Relu", square(net.random(32, 16), net, stream, f"{block}.a"))
        stream = net("Add", stream, square(net.random(16, 32), net, inner, f"{block}.b"))
    square(net.random(4, 16), net, net("Relu", stream), "head")
    model = net.model("head.0")
    for node in model.graph.node:
        if node.name == "two.b":
            node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=SCOPES)
    return model


def samples() -> Array:
    return np.random.default_rng(0).standard_normal((24, 3, 6, 6)).astype(np.float32)


def pruned(*layers: str, **options: Any) -> Pruned:
    options = {"macs": 0.95, "target": CHEAP, "runs": 2, **options}
    return onnx_upscale.prune(residual(), samples(), layers=layers, **options)


def gone(made: Pruned) -> dict[str, int]:
    return {key: len(sides["input"]) for key, sides in made.masks["masks"].items()}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("two.b", {"two.b.weight"}),  # A node,
        ("*.b.weight", {"one.b.weight", "two.b.weight"}),  # weights,
        ("*mlp*", {"two.b.weight"}),  # a module.
    ],
)
def test_only_these_lose_channels(pattern: str, names: set[str]) -> None:
    made = pruned(pattern)
    assert set(gone(made)) == set(made.report["kept"]) == names
    assert any(gone(made).values())
    assert made.report["macs"]["after"] <= 0.95 * made.report["macs"]["before"]
    assert made.report["verify"]["ok"]


def test_one_of_several_readers_gives_channels_up_by_itself() -> None:
    made = pruned("one.a", "head", macs=0.9)
    assert made.report["macs"]["after"] <= 0.9 * made.report["macs"]["before"]
    assert set(gone(made)) == {"one.a.weight", "head.weight"}
    assert gone(made)["one.a.weight"] > 0
    # The stream itself stays as wide as it was.
    widths = {t.name: t.dims[0] for t in made.model.graph.initializer if len(t.dims) == 4}
    assert widths["stem.weight"] == widths["two.b.weight"] == 16
    assert widths["one.a.weight"] == 32


def test_what_others_read_is_not_counted_on() -> None:
    # Together with the head, the stream itself could go, and less would be left.
    assert pruned("*.a", "head", macs=0.75).report["verify"]["ok"]
    with pytest.raises(UsageError, match=r"`macs` 0\.75: cannot be reached: .* 0\.763 of"):
        pruned("*.a", macs=0.75)


def test_all_readers_by_name_may_agree() -> None:
    made = pruned("*.a", "head", mode="agreement", macs=0.8)
    assert len({tuple(sides["input"]) for sides in made.masks["masks"].values()}) == 1
    assert gone(made)["head.weight"] > 0


def test_what_must_be_given_up_together_others_keep() -> None:
    for layers in (["one.a"], ["one.a", "two.a"]):
        with pytest.raises(UsageError, match="no channel is left to prune: each is needed whole"):
            pruned(*layers, mode="agreement")
    assert set(gone(pruned("*.a", "one.b", mode="agreement"))) == {"one.b.weight"}


@pytest.mark.parametrize(
    ("layers", "saying"),
    [
        (["two.c"], r"`layers` two\.c: matches no layer; closest: two\.[ab]"),
        (["one.b", "*mpl*"], r"`layers` \*mpl\*: matches no layer; closest: encoder\.mlp"),
        (["ste?"], "no layer is left to prune on the input side: of 6 layers 1 at a model input"),
    ],
)
def test_names_that_cannot_be_meant(layers: list[str], saying: str) -> None:
    # As `mask` says it.
    with pytest.raises(UsageError, match=saying):
        onnx_upscale.mask(residual(), "l1", 0.5, layers=layers)
    with pytest.raises(UsageError, match=saying):
        pruned(*layers)


def test_mask_chooses_for_a_budget_as_prune_does() -> None:
    options: dict[str, Any] = {"layers": ["*.a"], "target": CHEAP}
    made = onnx_upscale.mask(residual(), "reconstruction", budget=0.95, data=samples(), **options)
    assert set(made["masks"]) == {"one.a.weight", "two.a.weight"}
    assert any(sides["input"] for sides in made["masks"].values())


def decoding() -> onnx.ModelProto:
    net = Net(17, x=["batch", 3, 6, 6])
    hidden = net("Relu", square(net.random(16, 3), net, "x", "stem"))
    square(net.random(8, 16), net, hidden, "head")
    bins = net("Softplus", square(net.random(16, 16), net, hidden, "bins"))
    square(np.arange(16.0)[np.newaxis], net, bins, "decode")
    return net.model("head.0", "decode.0")


def test_arithmetic_is_left_alone_and_told() -> None:
    structure = find_structure(load(decoding()).graph)
    read = {
        patterns: {
            party.layer.node.title
            for family in select(structure, patterns, False).families
            for party in family.readers
        }
        for patterns in ((), ("*",))
    }
    assert read == {(): {"head", "bins"}, ("*",): {"head", "bins"}}
    assert select(structure, (), False).arithmetic == ("decode",)
    assert select(structure, ("*",), False).arithmetic == ("decode",)
    assert select(structure, ("head",), False).arithmetic == ()


def test_arithmetic_goes_where_it_is_named() -> None:
    options: dict[str, Any] = {"layers": ["decode"], "target": CHEAP}
    made = onnx_upscale.prune(decoding(), samples(), macs=0.9, runs=2, **options)
    assert gone(made)["decode.weight"] > 0
    assert not any("left alone" in warning for warning in made.warnings)
    masks = onnx_upscale.mask(decoding(), "reconstruction", 0.5, data=samples(), **options)
    assert len(masks["masks"]["decode.weight"]["input"]) == 8


def test_layers_before_outputs_go_last() -> None:
    structure = find_structure(load(residual()).graph)
    gentle, whole = select(structure, (), False).scopes
    assert select(structure, (), False).last == {"head.weight": "head"}
    assert whole.layers is None
    names = {structure.layers[index].node.title for index in gentle.layers or ()}
    assert names == {"one.a", "one.b", "two.a", "two.b"}
    assert len(gentle.families) == len(whole.families)  # Others read the head's channels as well.
    gentle, whole = select(structure, (), True).scopes
    assert len(gentle.families) < len(whole.families)  # And must agree with it.
    (named,) = select(structure, ("*",), False).scopes
    assert "head" in {structure.layers[index].node.title for index in named.layers or ()}


def test_only_layers_before_outputs() -> None:
    net = Net(17, x=["batch", 3, 6, 6])
    square(net.random(4, 16), net, net("Relu", square(net.random(16, 3), net, "x", "stem")), "head")
    (scope,) = select(find_structure(load(net.model("head.0")).graph), (), False).scopes
    assert [party.layer.node.title for f in scope.families for party in f.readers] == ["head"]


def test_layers_before_outputs_keep_what_they_read_as_long_as_the_goal_lets_them() -> None:
    near, far, named = pruned(macs=0.25), pruned(macs=0.2), pruned("*", macs=0.25)
    assert not gone(near).get("head.weight")
    assert gone(far)["head.weight"] > 0
    assert gone(named)["head.weight"] > 0
    said = "left alone, as right before an output unless `layers` names it: head"
    assert said in near.warnings
    said = "pruned right before an output, as the goal is out of reach without: head"
    assert said in far.warnings
    assert not any("before an output" in warning for warning in named.warnings)


def test_what_no_scope_reaches_is_an_error() -> None:
    with pytest.raises(UsageError, match="cannot be reached: with all channels gone"):
        pruned(macs=0.01)
