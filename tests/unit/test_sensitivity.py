"""How much outputs change with what layers make."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from build import Array, Net
from onnx_upscale.optimizer.load.graph import Graph, build_graph
from onnx_upscale.optimizer.load.layers import layers
from onnx_upscale.pruning.sensitivity import sensitivities


def found(model: onnx.ModelProto, seed: int = 0) -> dict[str, float]:
    graph: Graph = build_graph(model)
    rng = np.random.default_rng(1)
    samples = [{"x": rng.standard_normal((64, 4)).astype(np.float32)} for _ in range(4)]
    by_index = sensitivities(graph, list(layers(graph)), samples, seed)
    return {graph.nodes[index].title: value for index, value in by_index.items()}


def linear(outputs: int = 1, scale: float = 1.0) -> onnx.ModelProto:
    """Two products in a row: what the first makes is multiplied by 3, what the last by 1."""
    net = Net(17, x=[64, 4])
    first = net("MatMul", "x", np.eye(4, dtype=np.float32), name="first")
    last = net("MatMul", first, 3 * scale * np.eye(4, dtype=np.float32), name="last")
    dead = net("MatMul", first, np.ones((4, 2), np.float32), name="dead")
    ends = [last, *(net("Mul", last, np.float32(100)) for _ in range(outputs - 1))]
    net("Relu", dead)
    return net.model(*ends)


def test_it_is_the_squared_gain_relative_to_the_output() -> None:
    share = found(linear())
    assert share["first"] == pytest.approx(9 * share["last"], rel=0.03)
    # |change|^2 / |output|^2 / |noise|^2, where the change of `last` is the noise itself.
    power = sum(float(((3 * values) ** 2).sum()) for values in _inputs())
    assert share["last"] == pytest.approx(4 / power, rel=0.1)


def _inputs() -> list[Array]:
    rng = np.random.default_rng(1)
    return [rng.standard_normal((64, 4)) for _ in range(4)]


def test_the_scale_of_an_output_does_not_matter_and_outputs_add_up() -> None:
    one, scaled, two = found(linear()), found(linear(scale=50)), found(linear(2))
    assert scaled["first"] == pytest.approx(one["first"], rel=1e-3)
    assert two["first"] == pytest.approx(2 * one["first"], rel=1e-3)


def test_what_nothing_depends_on_does_not_matter() -> None:
    assert found(linear())["dead"] == 0


def test_the_same_seed_gives_the_same() -> None:
    assert found(linear(), 3) == found(linear(), 3)
    assert found(linear(), 3) != found(linear(), 4)
