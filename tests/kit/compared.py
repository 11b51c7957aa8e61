"""Small models to compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from build import Net

Shape = Sequence["int | str | None"] | None


def sample() -> onnx.ModelProto:
    net = Net(17, x=[2, 3, 5, 5])
    inner = net("Relu", net("Conv", "x", net.constant(net.random(4, 3, 3, 3), "first")))
    return net.model(net("Conv", inner, net.constant(net.random(5, 4, 1, 1), "second")))


def typed(kind: int, shape: Shape, op: str = "Identity", to: int | None = None) -> onnx.ModelProto:
    """A model of one node, of any type."""
    attributes: Any = {"to": to} if op == "Cast" else {}
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"], **attributes)],
        "typed",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", to or kind, None)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def picky(*, bound: float = 0.0, change: float = 0.0) -> onnx.ModelProto:
    """A model that takes inputs alone of which every number is above a bound.

    Args:
        bound: The bound.
        change: What is added to a weight of its second layer.
    """
    net = Net(17, x=(1, 4, 3, 3))
    above = net("Reshape", net("Greater", "x", np.float32(bound)), np.array([-1]))
    found = net("Reshape", net("Compress", "x", above), np.array([1, 4, 3, 3]))
    hidden = net("Conv", found, net.constant(net.random(6, 4, 1, 1), "first"))
    weight = net.random(2, 6, 1, 1)
    weight[0, 5] += change
    return net.model(net("Conv", hidden, net.constant(weight, "second")))
