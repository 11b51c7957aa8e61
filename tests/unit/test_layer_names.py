"""The names that people know layers by."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import Net
from onnx_upscale import UsageError
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.load.keys import united
from onnx_upscale.optimizer.load.layers import layers
from onnx_upscale.optimizer.load.masking import LayerMask
from onnx_upscale.optimizer.load.names import names_of
from onnx_upscale.optimizer.load.sides import Side
from pruning import pruned

SCOPES = {
    "pkg.torch.onnx.name_scopes": "['', 'encoder', 'encoder.mlp', 'encoder.mlp.0', 'linear_2']",
    "namespace": ": a.Net/other: b.Other/linear_2: aten.linear.default",
}


def transformer(metadata: dict[str, str], bias: str = "bias") -> onnx.ModelProto:
    """Two matrix products whose weights were renamed, and a head."""
    net = Net(17, x=["batch", 5, 6])
    first = net("MatMul", "x", net.constant(net.random(6, 8), "val_1"), name="node_1")
    second = net("MatMul", net("Relu", first), net.constant(net.random(8, 8), "val_2"), name="n2")
    added = net("Add", second, net.constant(net.random(8), bias), name="added")
    model = net.model(net("MatMul", net("Relu", added), net.random(8, 3), name="head"))
    for node in model.graph.node:
        if node.name == "n2":
            for key, value in metadata.items():
                node.metadata_props.add(key=key, value=value)
    return model


def names(model: onnx.ModelProto) -> tuple[str, ...]:
    graph = load(model).graph
    return next(names_of(graph, each) for each in layers(graph) if each.node.title == "n2")


def test_a_layer_goes_by_its_bias_and_its_module() -> None:
    assert names(transformer({})) == ("val_2", "n2", "n2.0", "bias")
    assert names(transformer({}, "mlp.0.bias")) == (
        *("val_2", "n2", "n2.0", "mlp.0.bias"),
        *("mlp.0", "mlp.0.weight"),
    )
    assert names(transformer(SCOPES))[-1] == "encoder.mlp.0"
    namespace = {"namespace": SCOPES["namespace"]}
    assert names(transformer(namespace))[-1] == "other"


@pytest.mark.parametrize("text", ["", "[", "7", "['only']", "[1, 2]", "(" * 9999, "\0", "['']"])
def test_metadata_can_be_anything(text: str) -> None:
    found = names(transformer({"pkg.torch.onnx.name_scopes": text}))
    assert found[:3] == ("val_2", "n2", "n2.0")


@pytest.mark.parametrize("pattern", ["*mlp*", "encoder.mlp.0", "*.bias", "enc*.0"])
def test_patterns_see_them(pattern: str) -> None:
    made = onnx_upscale.mask(transformer(SCOPES, "own.bias"), "l1", 0.5, layers=[pattern])
    assert set(pruned(made)) == {"val_2"}  # What a mask file may call it.
    assert pruned(made)["val_2"]
    assert "val_2" not in pruned(
        onnx_upscale.mask(transformer(SCOPES, "own.bias"), "l1", 0.5, layers=["*"], skip=[pattern])
    )


def test_what_matches_nothing_lists_near_names() -> None:
    with pytest.raises(UsageError, match=r"`layers` encoder\.mpl\.0: .* closest: encoder\.mlp\.0"):
        onnx_upscale.mask(transformer(SCOPES), "l1", 0.5, layers=["encoder.mpl.0"])
    with pytest.raises(UsageError, match=r"`layers` \*mpl\*: .* closest: .*mlp"):
        onnx_upscale.mask(transformer(SCOPES), "l1", 0.5, layers=["*mpl*"])


def test_a_normalization_is_no_parameter_of_a_layer() -> None:
    net = Net(17, x=["batch", 3, 4, 4])
    made = net("Conv", "x", net.constant(net.random(4, 3, 1, 1), "c.weight"), name="c")
    rest = [net.constant(np.abs(net.random(4)), f"bn.{each}") for each in "wbmv"]
    graph = load(net.model(net("BatchNormalization", made, *rest))).graph
    (layer,) = layers(graph)
    assert not any("bn" in name for name in names_of(graph, layer))


def test_masks_of_one_side_become_one() -> None:
    graph = load(transformer({})).graph
    first, second, _ = layers(graph)
    masks = [
        LayerMask(first, Side.INPUT, np.array([1, 4])),
        LayerMask(second, Side.INPUT, np.array([0])),
        LayerMask(first, Side.OUTPUT, np.array([2])),
        LayerMask(first, Side.INPUT, np.array([0, 4])),
    ]
    assert united(graph, masks) == {
        "version": 1,
        "masks": {"val_1": {"input": [0, 1, 4], "output": [2]}, "val_2": {"input": [0]}},
    }
