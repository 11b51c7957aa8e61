"""What a reader sees as columns, against what onnxruntime makes of the same input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from build import Net, input_values, run
from onnx_upscale.activations.columns import columns, count_positions, draw, laid_out, matrix
from onnx_upscale.optimizer.load.graph import build_graph
from onnx_upscale.optimizer.load.layers import layers

CONVOLUTIONS: dict[str, tuple[list[int], list[int], dict[str, Any]]] = {
    "plain": ([2, 4, 6, 7], [5, 4, 3, 3], {}),
    "pointwise": ([2, 4, 3, 3], [5, 4, 1, 1], {}),
    "strides": ([2, 4, 8, 7], [5, 4, 3, 2], {"strides": [2, 3]}),
    "dilations": ([2, 4, 9, 8], [5, 4, 3, 2], {"dilations": [2, 3]}),
    "pads": ([2, 4, 5, 6], [5, 4, 3, 3], {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
    "groups": ([2, 6, 5, 5], [4, 3, 3, 3], {"group": 2, "pads": [1, 1, 1, 1]}),
    "depthwise": ([2, 4, 5, 5], [8, 1, 3, 3], {"group": 4}),
    "upper": ([2, 4, 6, 7], [5, 4, 3, 2], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "lower": ([2, 4, 6, 7], [5, 4, 4, 2], {"auto_pad": "SAME_LOWER", "strides": [1, 2]}),
    "valid": ([2, 4, 6, 7], [5, 4, 4, 2], {"auto_pad": "VALID"}),
    "line": ([2, 4, 9], [5, 4, 3], {"pads": [1, 1]}),
    "volume": ([1, 3, 4, 4, 5], [2, 3, 2, 3, 2], {"strides": [1, 1, 2]}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str) -> None:
    shape, weight_shape, attributes = CONVOLUTIONS[name]
    net = Net(17, x=shape)
    weight = net.random(*weight_shape)
    model = net.model(net("Conv", "x", weight, **attributes))
    (layer,) = layers(build_graph(model))
    values = input_values(model)
    (made,) = run(model, values)
    total = count_positions(layer, shape)
    assert total == made.size // made.shape[1]
    seen = columns(layer, values["x"], np.arange(total))
    got = (matrix(layer, weight) @ seen).reshape(made.shape[1], len(made), *made.shape[2:])
    np.testing.assert_allclose(got.swapaxes(0, 1), made, rtol=1e-4, atol=1e-4)
    some = np.array([0, total // 2, total - 1])
    np.testing.assert_array_equal(columns(layer, values["x"], some), seen[..., some])
    np.testing.assert_array_equal(laid_out(layer, matrix(layer, weight), np.float32), weight)


@pytest.mark.parametrize(
    ("op", "shape", "weight", "data_first", "attributes"),
    [
        ("Gemm", [6, 4], [4, 3], True, {}),
        ("Gemm", [4, 6], [3, 4], True, {"transA": 1, "transB": 1}),
        ("MatMul", [2, 5, 4], [4, 3], True, {}),
        ("MatMul", [2, 4, 5], [3, 4], False, {}),
        ("MatMul", [2, 5, 4], [4], True, {}),
        ("MatMul", [2, 5, 4], [1, 4, 3], True, {}),
    ],
)
def test_products(
    op: str, shape: list[int], weight: list[int], data_first: bool, attributes: dict[str, Any]
) -> None:
    net = Net(17, x=shape)
    values = net.random(*weight)
    inputs = ("x", values) if data_first else (values, "x")
    model = net.model(net(op, *inputs, **attributes))
    (layer,) = layers(build_graph(model))
    data = input_values(model)
    (made,) = run(model, data)
    total = count_positions(layer, shape)
    got = (matrix(layer, values) @ columns(layer, data["x"], np.arange(total)))[0]
    axis = made.ndim if layer.output_axis is None else layer.output_axis
    wanted = made[..., np.newaxis] if layer.output_axis is None else np.moveaxis(made, axis, -1)
    np.testing.assert_allclose(got.T, wanted.reshape(total, -1), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(laid_out(layer, matrix(layer, values), np.float32), values)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_spreads_each_position(groups: int) -> None:
    net = Net(17, x=[2, 4, 3, 2])
    weight = net.random(4, 3, 2, 2)
    model = net.model(net("ConvTranspose", "x", weight, strides=[2, 2], group=groups))
    (layer,) = layers(build_graph(model))
    values = input_values(model)
    (made,) = run(model, values)  # Windows do not overlap: each position fills 2x2 results.
    seen = columns(layer, values["x"], np.arange(count_positions(layer, (2, 4, 3, 2))))
    got = (matrix(layer, weight) @ seen).reshape(3 * groups, 2, 2, 2, 3, 2)
    tiles = made.reshape(2, 3 * groups, 3, 2, 2, 2).transpose(1, 3, 5, 0, 2, 4)
    np.testing.assert_allclose(got, tiles, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(laid_out(layer, matrix(layer, weight), np.float32), weight)


def test_positions_are_drawn_evenly_and_the_same_every_time() -> None:
    drawn = draw(1000, 10, np.random.default_rng(1))
    np.testing.assert_array_equal(drawn // 100, np.arange(10))
    np.testing.assert_array_equal(drawn, draw(1000, 10, np.random.default_rng(1)))
    np.testing.assert_array_equal(draw(7, 7, np.random.default_rng(1)), np.arange(7))
    np.testing.assert_array_equal(draw(3, 7, np.random.default_rng(1)), np.arange(3))
