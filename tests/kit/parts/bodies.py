"""Layers in the bodies of If and Loop, with weights of their own or from outside."""

from __future__ import annotations

import math

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from builder import Builder, image_sizes
from case import Dims, Layer


class _Body:
    """Two pointwise layers with an activation between them, under names of their own."""

    def __init__(self, b: Builder, data: str, ins: int, outs: int, attribute: str) -> None:
        self._b, self._title = b, f"n{len(b.nodes)}"
        self._path = f"{self._title}/{attribute}/"
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        hidden = b.draw(st.integers(2, 8))
        inner = self._layer("first", data, ins, hidden)
        inner = self._node(b.draw(st.sampled_from(["Relu", "Sigmoid"])), [inner], "act")
        self.result = self._layer("second", inner, hidden, outs)

    def _node(self, op: str, inputs: list[str], name: str) -> str:
        out = f"{self._title}.{name}.out"
        self.nodes.append(helper.make_node(op, inputs, [out], f"{self._title}.{name}"))
        return out

    def _weight(self, name: str, *shape: int) -> tuple[str, str]:
        """A weight: its name, and what masks call it."""
        values = self._b.numbers(*shape) / np.float32(math.sqrt(math.prod(shape[1:])))
        tensor = numpy_helper.from_array(values, f"{self._title}.{name}")
        own = self._b.chance(0.5)
        (self.initializers if own else self._b.initializers).append(tensor)
        return tensor.name, f"{self._path}{tensor.name}" if own else tensor.name

    def _layer(self, name: str, data: str, ins: int, outs: int) -> str:
        weight, key = self._weight(f"{name}.weight", outs, ins, 1, 1)
        inputs = [data, weight]
        if self._b.chance(0.5):
            inputs.append(self._weight(f"{name}.bias", outs)[0])
        made = self._node("Conv", inputs, name)
        node = self.nodes[-1].name
        self._b.layers.append(Layer(node, key, (data, -3, ins), (made, -3, outs), 4, self._path))
        return made


def _info(name: str, kind: int, shape: Dims) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def branch(b: Builder) -> None:
    """An If, of which one branch has layers and the other adds up channels."""
    data = b.pick(4)
    if data is None:
        return
    n, ins, h, w = image_sizes(b.shapes[data])
    outs, taken = b.draw(st.integers(1, 6)), b.constant(b.chance(0.8), np.bool_)
    title = f"n{len(b.nodes)}"
    shape: Dims = (n, outs, h, w)
    body = _Body(b, data, ins, outs, "then_branch")
    one, other = _info(body.result, TensorProto.FLOAT, shape), f"{title}.else"
    ones = numpy_helper.from_array(np.ones((outs, ins, 1, 1), np.float32), f"{title}.ones")
    summed = helper.make_node("Conv", [data, ones.name], [other], f"{title}.sum")
    graphs = {
        "then_branch": helper.make_graph(body.nodes, "then", [], [one], body.initializers),
        "else_branch": helper.make_graph(
            [summed], "else", [], [_info(other, TensorProto.FLOAT, shape)], [ones]
        ),
    }
    b.one("If", [taken], shape, **graphs)


def loop(b: Builder) -> None:
    """A Loop that carries a tensor through two layers, once or twice."""
    data = b.pick(4)
    if data is None:
        return
    shape, times = b.shapes[data], b.constant(b.draw(st.integers(1, 2)), np.int64)
    going = b.constant(True, np.bool_)
    title = f"n{len(b.nodes)}"
    ins = image_sizes(shape)[1]
    state, count, given, kept = (f"{title}.{name}" for name in ("state", "count", "go", "on"))
    body = _Body(b, state, ins, ins, "body")
    body.nodes.append(helper.make_node("Identity", [given], [kept], f"{title}.go_on"))
    graph = helper.make_graph(
        body.nodes,
        "body",
        [
            _info(count, TensorProto.INT64, ()),
            _info(given, TensorProto.BOOL, ()),
            _info(state, TensorProto.FLOAT, shape),
        ],
        [_info(kept, TensorProto.BOOL, ()), _info(body.result, TensorProto.FLOAT, shape)],
        body.initializers,
    )
    b.one("Loop", [times, going, data], shape, body=graph)
