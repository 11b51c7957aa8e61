"""Layers that are left alone by default."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

import onnx_upscale
from build import Net
from onnx_upscale import UsageError
from onnx_upscale.criteria.left_alone import before_outputs, is_arithmetic
from onnx_upscale.optimizer.analyze import find_structure
from onnx_upscale.optimizer.load import load
from onnx_upscale.pruning.families import find_families
from pruning import pruned, square


def titles(model: onnx.ModelProto) -> set[str]:
    structure = find_structure(load(model).graph)
    return {structure.graph.nodes[index].title for index in before_outputs(structure)}


def test_arithmetic() -> None:
    assert is_arithmetic(np.arange(16.0).reshape(1, 16, 1, 1))
    assert is_arithmetic(np.full((2, 3), 0.25))
    assert is_arithmetic(np.arange(100.0, dtype=np.float16))
    assert not is_arithmetic(np.array([1.0, 2.0]))
    assert not is_arithmetic(np.array([1.0, 2.0, 4.0]))
    assert not is_arithmetic(np.array([*range(99), 0.0]))
    assert not is_arithmetic(np.array([np.inf, np.inf, np.nan, 1.0]))


def decoding() -> Net:
    """A head that decodes boxes as YOLO does: bins, a Softmax, and their expectation."""
    net = Net(17, x=["batch", 3, 4, 4])
    hidden = net("Relu", square(net.random(8, 3), net, "x", "stem"))
    wide = net("Relu", square(net.random(6, 8), net, hidden, "wide"))
    bins = net("Softmax", square(net.random(5, 6), net, wide, "bins"), axis=1)
    square(np.arange(5.0)[np.newaxis], net, bins, "decode")
    square(net.random(4, 8), net, hidden, "classes")
    return net


def test_arithmetic_and_heads_are_left_alone() -> None:
    model = decoding().model("decode.0", "classes.0")
    assert titles(model) == {"bins", "decode", "classes"}
    made = onnx_upscale.mask(model, "l1", 0.5)
    assert set(pruned(made)) == {"wide.weight"}
    assert made.left == {
        "at a model input": ("stem.weight",),
        "right before an output": ("bins.weight", "classes.weight"),
        "arithmetic": ("decode.weight",),
    }
    assert made == {"version": 1, "masks": made["masks"]}
    # A pattern brings back the heads, an exact name the arithmetic as well.
    every = onnx_upscale.mask(model, "l1", 0.5, layers=["*"])
    assert set(pruned(every)) == {"wide.weight", "bins.weight", "classes.weight"}
    named = onnx_upscale.mask(model, "l1", 0.5, layers=["decode"])
    assert set(pruned(named)) == {"decode.weight"}
    # What was chosen or skipped by name is nothing to tell of.
    skipped = onnx_upscale.mask(model, "l1", 0.5, skip=["bins", "decode*"])
    assert skipped.left["right before an output"] == ("classes.weight",)
    assert "arithmetic" not in skipped.left


def test_constrained_masks_leave_the_same_alone() -> None:
    model = decoding().model("decode.0", "classes.0")
    with pytest.raises(UsageError, match="no channel is left to prune"):
        onnx_upscale.mask(model, "l1", 0.5, constrained=True)  # `classes` reads what `wide` does.
    agreed = onnx_upscale.mask(model, "l1", 0.5, constrained=True, layers=["*"])
    assert pruned(agreed)["wide.weight"] == pruned(agreed)["classes.weight"] != []
    assert "decode.weight" not in pruned(agreed)


def test_prune_leaves_arithmetic_alone() -> None:
    families = find_families(find_structure(load(decoding().model("decode.0", "classes.0")).graph))
    read = {party.layer.node.title for family in families for party in family.readers}
    assert read == {"wide", "classes", "bins"}


def test_what_others_read_is_not_right_before_an_output() -> None:
    net = Net(17, x=["batch", 3, 4, 4])
    first = net("Relu", square(net.random(4, 3), net, "x", "first"))
    second = square(net.random(4, 4), net, first, "second")
    joined = net("Add", first, second, name="joined")
    third = square(net.random(4, 4), net, net("Relu", joined), "third")
    net("Add", joined, third, name="end")
    assert titles(net.model("end.0")) == {"third"}
    assert titles(net.model("joined.0", "end.0")) == {"third"}
    assert titles(net.model("second.0", "end.0")) == {"third"}


def test_a_shape_is_no_value() -> None:
    net = Net(17, x=["batch", 3, 4, 4])
    hidden = square(net.random(4, 3), net, "x", "hidden")
    head = square(net.random(4, 4), net, net("Relu", hidden), "head")
    other = net("Reshape", net("Relu", net("Neg", "x")), net("Shape", "x"))
    other = net("Expand", square(net.random(4, 3), net, other, "other"), net("Shape", head))
    last = square(net.random(2, 4), net, other, "last")
    assert titles(net.model(head, last)) == {"head", "last"}


def test_recurrent_layers_are_learned() -> None:
    net = Net(17, x=["steps", "batch", 3])
    wide = net("MatMul", "x", net.constant(net.random(3, 4), "w"), name="wide")
    net("Relu", wide, name="act")
    weights = [net.constant(net.random(*shape)) for shape in ((1, 8, 4), (1, 8, 2))]
    net.nodes.append(
        helper.make_node("LSTM", ["act.0", *weights], ["y"], name="lstm", hidden_size=2)
    )
    assert titles(net.model("y")) == {"lstm"}
    net.nodes[-1].input[1] = "given"  # Then it is no layer of its own.
    net.inputs.append(helper.make_tensor_value_info("given", 1, [1, 8, 4]))
    assert titles(net.model("y")) == set()


def test_a_model_of_heads_says_so() -> None:
    net = Net(17, x=["batch", 3, 4, 4])
    hidden = net("Relu", square(net.random(4, 3), net, "x", "stem"))
    model = net.model(square(net.random(2, 4), net, hidden, "head"))
    with pytest.raises(UsageError, match=r"of 2 layers 1 at a model input, 1 right before an out"):
        onnx_upscale.mask(model, "l1", 0.5)
    assert set(pruned(onnx_upscale.mask(model, "l1", 0.5, layers=["h*"]))) == {"head.weight"}
