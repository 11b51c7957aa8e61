"""How close outputs are, by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from build import Net
from onnx_upscale.recovery.fidelity import compare_outputs
from onnx_upscale.samples import batches, open_source


def scaled(batch: int | str, *factors: float) -> onnx.ModelProto:
    net = Net(17, x=[batch, 3])
    return net.model(net("Mul", "x", np.array(factors, np.float32)), net("ReduceSum", "x"))


@pytest.mark.parametrize("batch", ["batch", 2])
def test_errors_and_agreement(batch: int | str) -> None:
    dense = scaled(batch, 1, 1, 1)
    data = np.array([[3, 1, 0], [2, 3, 0], [0, 1, 2]], np.float32)
    samples = open_source(data, dense, 3)
    others = [dense, scaled(batch, 1, 0.5, 1)]
    same, other = compare_outputs(dense, others, batches(samples, np.arange(3), dense))
    assert (same["n0.0"].error, same["n0.0"].agreement) == (0, 1)
    # Halved are 1, 3 and 1; what fills up the last batch of two does not count.
    assert other["n0.0"].error == pytest.approx(np.sqrt((1 + 9 + 1) / 4 / (10 + 13 + 5)))
    assert other["n0.0"].agreement == pytest.approx(2 / 3)
    assert other["n1.0"].agreement is None


def test_infinities_in_both_do_not_matter() -> None:
    net = Net(17, x=["batch", 3])
    model = net.model(net("Add", "x", np.array([0, -np.inf, 0], np.float32)))
    samples = open_source(np.ones((2, 3), np.float32), model, 2)
    (found,) = compare_outputs(model, [model], batches(samples, np.arange(2), model))
    assert found["n0.0"].error == 0
