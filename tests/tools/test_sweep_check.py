"""How tools/sweep.py compares results."""

from __future__ import annotations

import onnx
import pytest

from build import Net, input_values

pytest.importorskip("torch")

from sweeping.check import before_choices


def model(scale: float, *behind: str) -> onnx.ModelProto:
    net = Net(18, x=(1, 4))
    made = net("Mul", "x", net.constant(net.random(4) * scale, "scale"))
    for operator in behind:
        made = net(operator, made)
    return net.model(made)


@pytest.mark.parametrize("scale", [1, 2])
def test_what_selects_is_compared_in_front_of_it(scale: float) -> None:
    one, other = model(1, "ArgMax"), model(scale, "ArgMax")
    apart = before_choices(one, other, [input_values(one)])
    assert apart is not None
    assert (apart < 1e-6) == (scale == 1)


def test_of_what_does_not_select_nothing_is_said() -> None:
    one, other = model(1), model(2)
    assert before_choices(one, other, [input_values(one)]) is None
