"""What is known of fused activations is what onnxruntime computes."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest

import onnx_upscale
from build import Net, run, weight_shape
from onnx_upscale.optimizer.load import fused
from onnx_upscale.optimizer.load.pointwise import MICROSOFT, activation, evaluate_pointwise

VALUES = np.linspace(-4, 7, 12, dtype=np.float32)
BIAS = np.linspace(1, -1, 12, dtype=np.float32)


@pytest.mark.parametrize(
    ("operator", "bias", "attributes"),
    [
        ("BiasGelu", True, {}),
        ("FastGelu", False, {}),
        ("FastGelu", True, {}),
        ("Gelu", False, {}),
        ("QuickGelu", False, {}),
        ("QuickGelu", False, {"alpha": 0.7}),
    ],
)
def test_operators(operator: str, bias: bool, attributes: dict[str, Any]) -> None:
    net = Net(17, x=(1, 12))
    made = net(operator, "x", *[BIAS] * bias, domain=MICROSOFT, **attributes)
    (wanted,) = run(net.model(net.declare(made, (1, 12))), {"x": VALUES[np.newaxis]})
    found = evaluate_pointwise(operator, [VALUES, BIAS][: 1 + bias], attributes)
    assert found is not None
    np.testing.assert_allclose(found, wanted[0], rtol=1e-5, atol=1e-6)
    assert found.dtype == np.float32


def test_other_operators_are_not_known() -> None:
    assert evaluate_pointwise("SkipLayerNormalization", [VALUES, VALUES], {}) is None
    assert activation("Softmax") is None


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("Relu", []),
        ("Sigmoid", []),
        ("Tanh", []),
        ("LeakyRelu", [0.3]),
        ("Clip", [-1.0, 3.0]),
        ("HardSigmoid", [0.3, 0.4]),
    ],
)
def test_activations(name: str, params: list[float]) -> None:
    net = Net(17, x=(1, 1, 1, 12))
    given: dict[str, Any] = {"activation_params": params} if params else {}
    weight = np.ones((1, 1, 1, 1), np.float32)
    made = net("FusedConv", "x", weight, activation=name, domain=MICROSOFT, **given)
    data = VALUES.reshape(1, 1, 1, 12)
    (wanted,) = run(net.model(net.declare(made, (1, 1, 1, 12))), {"x": data})
    function = activation(name, params)
    assert function is not None
    found = function(VALUES.astype(np.float64))
    np.testing.assert_allclose(found, wanted.ravel(), rtol=1e-5, atol=1e-6)
    assert np.isnan(function(np.array([np.nan]))).all()


def test_a_forgotten_activation_is_found_by_verification() -> None:
    """A channel that is masked holds sigmoid(0) all the same, and its reader absorbs that."""
    net = Net(17, x=(1, 3, 4, 4))
    how = {"activation": "Sigmoid", "domain": MICROSOFT}
    made = net("FusedConv", "x", net.random(8, 3, 1, 1), name="one", **how)
    model = net.model(net("Conv", net.declare(made, (1, 8, 4, 4)), net.random(2, 8, 1, 1)))
    masks = {"version": 1, "masks": {"one": {"output": [1, 4, 5]}}}
    assert weight_shape(onnx_upscale.optimize(model, masks).model, "one") == (5, 3, 1, 1)
    forgotten = mock.patch.object(fused, "activation", lambda name, params: lambda values: values)
    with forgotten, pytest.raises(onnx_upscale.VerifyError):
        onnx_upscale.optimize(model, masks)


def test_a_bias_before_an_activation_is_masked_with_the_layer() -> None:
    """Gelu(0) is 0, so that the channel leaves; its bias would have made it another constant."""
    net = Net(17, x=(2, 5, 6))
    first = net("MatMul", "x", net.random(6, 8), name="first")
    made = net("BiasGelu", first, net.random(8), domain=MICROSOFT, name="active")
    model = net.model(net("MatMul", net.declare(made, (2, 5, 8)), net.random(8, 3), name="last"))
    masks = {"version": 1, "masks": {"first": {"output": [1, 4, 5]}}}
    result = onnx_upscale.optimize(model, masks).model
    assert [weight_shape(result, name) for name in ("first", "active", "last")] == [
        (6, 5),
        (5,),
        (5, 3),
    ]
    assert not any(node.op_type == "Add" for node in result.graph.node)
