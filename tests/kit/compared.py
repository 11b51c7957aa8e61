"""Small models to compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
