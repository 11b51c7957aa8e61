"""Second moments of what readers read, against numpy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from build import Net
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.load.layers import layers
from onnx_upscale.pruning import second
from onnx_upscale.pruning.second import SecondMoments
from onnx_upscale.samples import Batch


@pytest.mark.parametrize("most", [1 << 30, 1])
def test_against_numpy(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large means must not drown what varies; small memory takes a pass per layer."""
    monkeypatch.setattr(second, "_MOST_BYTES", most)
    net = Net(17, x=("n", 3, 2, 2))
    made = net("Conv", "x", net.random(4, 3, 1, 1), name="a")
    graph = load(net.model(net("Conv", made, net.random(2, 4, 1, 1), name="b"))).graph
    both = {layer.node.title: layer for layer in layers(graph)}
    rng = np.random.default_rng(0)
    x = (1000 + 1e-2 * rng.standard_normal((40, 3, 2, 2))).astype(np.float32)
    passes = []

    def samples() -> Iterator[Batch]:
        passes.append(1)
        for start in range(0, 40, 8):
            yield Batch({"x": x[start : start + 8]}, 8)

    moments = SecondMoments(graph, list(both.values()), samples, 0)
    values = x.astype(np.float64).transpose(1, 0, 2, 3).reshape(3, -1)
    np.testing.assert_allclose(moments(both["a"]), np.cov(values, bias=True), rtol=1e-3, atol=1e-8)
    weight = graph.constants[both["a"].node.inputs[1]].reshape(4, 3).astype(np.float64)
    found = moments(both["b"])
    np.testing.assert_allclose(
        np.diag(found), np.diag(np.cov(weight @ values, bias=True)), rtol=0.1
    )
    assert np.linalg.eigvalsh(found).min() > -1e-9
    assert len(passes) == (1 if most > 1 else 2)


def test_very_many_columns_are_taken_as_independent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second, "_MOST_COLUMNS", 2)
    net = Net(17, x=("n", 3))
    graph = load(net.model(net("MatMul", "x", net.random(3, 2)))).graph
    (layer,) = layers(graph)
    x = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    batches = [Batch({"x": x[:12]}, 12), Batch({"x": x[12:]}, 8)]
    found = SecondMoments(graph, [layer], lambda: batches, 0)(layer)
    np.testing.assert_allclose(found, x.var(0), rtol=1e-5)
