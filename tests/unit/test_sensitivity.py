"""How much outputs change with what layers make."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from build import Array, Net
from onnx_upscale import DataError
from onnx_upscale.activations import shelf, up_to
from onnx_upscale.optimizer.load.graph import Graph, build_graph
from onnx_upscale.optimizer.load.layers import layers
from onnx_upscale.pruning import sensitivity
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


def test_the_noise_is_so_little_that_slopes_tell() -> None:
    net = Net(17, x=[64, 4])
    first = net("MatMul", "x", np.eye(4, dtype=np.float32), name="first")
    share = found(net.model(net("Tanh", first)))["first"]
    values = np.concatenate(_inputs())
    slopes = 1 - np.tanh(values) ** 2
    lost = ((slopes * values) ** 2).sum() / (values**2).sum()
    assert share == pytest.approx(4 * lost / (np.tanh(values) ** 2).sum(), rel=0.1)


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


def test_only_the_part_behind_a_layer_runs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it reads besides is kept from one run of the whole: branches, constants, inputs."""
    net = Net(17, x=[64, 4])
    identity = np.eye(4, dtype=np.float32)
    before = net("MatMul", "x", identity, name="before")
    beside = net("Relu", before, name="beside")
    first = net("MatMul", before, identity, name="first")
    shape = net("Shape", beside)
    twice = net("Add", net("MatMul", first, 2 * identity, name="second"), first, name="twice")
    with_rest = net("Add", net("Add", twice, beside), "x")
    model = net.model(net("Reshape", with_rest, shape), first)
    parts: list[set[str]] = []
    cut = up_to

    def recorded(*args: Any) -> onnx.ModelProto:
        part = cut(*args)
        if part.graph.initializer:
            parts.append({node.name for node in part.graph.node})
        return part

    monkeypatch.setattr(sensitivity, "up_to", recorded)
    share = found(model)
    whole, _, behind_first = parts[0], parts[1], parts[2]
    assert {"before", "beside", "first", "second", "twice"} <= whole
    assert {"second", "twice"} <= behind_first
    assert not {"before", "beside", "first"} & behind_first
    # The gains are 1 to the first output, and 3, 1 to the second for `first` and `second`.
    x = [values.astype(np.float32) for values in _inputs()]
    sizes = [
        float(sum((v**2).sum() for v in each))
        for each in ([4 * v + np.maximum(v, 0) for v in x], x)
    ]
    assert share["first"] == pytest.approx(4 * (9 / sizes[0] + 1 / sizes[1]), rel=0.05)
    assert share["second"] == pytest.approx(4 / sizes[0], rel=0.05)


def test_samples_that_do_not_fit_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "MOST_BYTES", 10000)
    monkeypatch.setattr(shelf, "_SHARE", 0.0)
    assert found(linear())["last"] > 0
    monkeypatch.setattr(shelf, "MOST_BYTES", 1000)
    with pytest.raises(DataError, match="room"):
        found(linear())


def test_progress_counts_layers() -> None:
    graph, calls = build_graph(linear()), list[int]()
    samples = [{"x": np.ones((64, 4), np.float32)}]
    sensitivities(graph, list(layers(graph)), samples, progress=calls.append)
    assert calls == [1, 2, 3]
