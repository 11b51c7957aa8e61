"""How tools/sweep.py compares results, and what its reference takes for a constant."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from build import Net, input_values
from case import Masks
from masked import masked
from sweeping.compare import before_choices, outputs
from sweeping.known import constants, folded, named
from sweeping.layers import case, find


def selecting(scale: float, *behind: str) -> onnx.ModelProto:
    """A product with a mask, and what reads it."""
    net = Net(18, x=(1, 4))
    made = net("Mul", "x", net.constant(net.random(4) * scale, "scale.mask"))
    for operator in behind:
        made = net(operator, made)
    return net.model(made)


@pytest.mark.parametrize("scale", [1, 2])
def test_what_selects_is_compared_in_front_of_it(scale: float) -> None:
    one, other = selecting(1, "ArgMax"), selecting(scale, "ArgMax")
    apart = before_choices(one, other, [input_values(one)])
    assert apart is not None
    assert (apart < 1e-6) == (scale == 1)


def test_of_what_does_not_select_nothing_is_said() -> None:
    one, other = selecting(1), selecting(2)
    assert before_choices(one, other, [input_values(one)]) is None


def test_what_no_mask_reaches_shows_nothing() -> None:
    net = Net(18, x=(1, 4))
    chosen = net("ArgMax", net("Neg", "x"))
    model = net.model(net("Mul", "x", net.constant(net.random(4), "a.mask")), chosen)
    assert before_choices(model, model, [input_values(model)]) is None


def masked_product(addend: str) -> tuple[onnx.ModelProto, Masks]:
    """A product of a rank that inference does not know, and a bias that is given or computed."""
    net = Net(18, x=(2, 3, 4), shape=("rank",))
    flat = net("Reshape", "x", net("Cast", "shape", to=onnx.TensorProto.INT64))
    made = net("MatMul", flat, net.random(4, 6), name="layer")
    bias = net.constant(net.random(6), "bias")
    if addend == "computed":
        bias = net("Neg", bias)
    return net.model(net("Relu", net("Add", bias, made))), {made: {"output": [1, 4]}}


@pytest.mark.parametrize("addend", ["given", "computed"])
def test_the_reference_knows_what_is_attached_to_a_product(addend: str) -> None:
    model, masks = masked_product(addend)
    inputs = {"x": input_values(model)["x"], "shape": np.array([2, 3, 4], np.float32)}
    names = folded(named(model))
    layers = list(find(names, inputs))
    assert [layer.layer.rank for layer in layers] == [3]
    ((wanted,),) = outputs(masked(case(names, layers, masks)), [inputs])
    assert not wanted[..., [1, 4]].any()
    assert wanted.any()


def test_folded_models_compute_the_same() -> None:
    model, _ = masked_product("computed")
    inputs = {"x": input_values(model)["x"], "shape": np.array([2, 3, 4], np.float32)}
    ((one,),), ((other,),) = outputs(model, [inputs]), outputs(folded(model), [inputs])
    np.testing.assert_array_equal(one, other)
    made = {name for node in folded(model).graph.node for name in node.output}
    assert not made & constants(folded(model).graph)


def test_what_is_no_tensor_stays_a_node() -> None:
    net = Net(18, x=(2, 3))
    made = net("SequenceInsert", net("SequenceEmpty"), net("Add", "x", net("Neg", net.random(3))))
    model = net.model(net("SequenceAt", made, np.array(0)))
    assert {node.op_type for node in folded(model).graph.node} >= {"SequenceEmpty", "Add"}
    inputs = [input_values(model)]
    np.testing.assert_array_equal(outputs(model, inputs), outputs(folded(model), inputs))
