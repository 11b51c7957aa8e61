"""Noise in the shape of a layer's errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from build import Array, Net
from onnx_upscale.optimizer.load.graph import build_graph
from onnx_upscale.optimizer.load.layers import layers
from onnx_upscale.pruning.noise import channel_noise

LAYERS: list[tuple[str, list[int], list[int], dict[str, Any]]] = [
    ("Conv", [2, 4, 6, 5], [3, 4, 3, 3], {"pads": [1, 1, 1, 1]}),
    ("Conv", [2, 4, 6, 5], [6, 2, 1, 1], {"group": 2}),
    ("ConvTranspose", [2, 4, 6, 5], [4, 3, 2, 2], {"strides": [2, 2]}),
    ("Gemm", [20, 4], [4, 3], {}),
    ("Gemm", [4, 20], [3, 4], {"transA": 1, "transB": 1}),
    ("MatMul", [2, 7, 4], [4, 3], {}),
    ("MatMul", [2, 7, 4], [4], {}),
]


def noise_of(op: str, shape: list[int], weight: list[int], seen: list[Array], **more: Any) -> Any:
    net = Net(17, x=shape)
    bias = [] if op == "MatMul" else [10 * net.random(3 if op != "Conv" else weight[0])]
    graph = build_graph(net.model(net(op, "x", net.random(*weight), *bias, **more)))
    (layer,) = layers(graph)
    return channel_noise(graph, layer, seen, np.random.default_rng(0)), layer


@pytest.mark.parametrize(("op", "shape", "weight", "more"), LAYERS)
def test_it_is_linear_in_the_input_without_means(
    op: str, shape: list[int], weight: list[int], more: dict[str, Any]
) -> None:
    """Twice the input, and a constant for each channel, change it twofold and not at all."""
    rng = np.random.default_rng(1)
    seen = [rng.standard_normal(shape).astype(np.float32) for _ in range(3)]
    once, layer = noise_of(op, shape, weight, seen, **more)
    assert [noise.shape[:1] for noise in once] == [noise.shape[:1] for noise in once[:1]] * 3
    axes = tuple(a for a in range(once[0].ndim) if a != layer.output_axis)
    np.testing.assert_allclose(np.mean([noise.mean(axes) for noise in once], 0), 0, atol=1e-5)
    twice, _ = noise_of(op, shape, weight, [2 * values for values in seen], **more)
    np.testing.assert_allclose(twice, 2 * np.array(once), rtol=1e-4, atol=1e-4)
    if "pads" not in more and op != "ConvTranspose":  # A constant makes the same everywhere.
        moved = [values + np.float32(3) for values in seen]
        np.testing.assert_allclose(
            noise_of(op, shape, weight, moved, **more)[0], once, rtol=1e-3, atol=1e-3
        )


def test_it_is_what_channels_make_times_a_number_each() -> None:
    net = Net(17, x=[50, 3])
    weight = net.random(3, 4)
    graph = build_graph(net.model(net("MatMul", "x", weight)))
    (layer,) = layers(graph)
    x = np.random.default_rng(1).standard_normal((50, 3)).astype(np.float32)
    (noise,) = channel_noise(graph, layer, [x], np.random.default_rng(5)) or []
    numbers = np.random.default_rng(5).standard_normal(3)
    wanted = sum(numbers[c] * np.outer(x[:, c] - x[:, c].mean(), weight[c]) for c in range(3))
    np.testing.assert_allclose(noise, wanted, rtol=1e-4, atol=1e-5)


def test_one_place_of_one_sample_leaves_nothing() -> None:
    noise, _ = noise_of("Gemm", [1, 4], [4, 3], [np.ones((1, 4), np.float32)])
    assert noise is None
