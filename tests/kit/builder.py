"""A random model under construction: what every part of it needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from build import Array
from case import Dims, Layer, Masks

Part: TypeAlias = "Callable[[Builder], object]"
"""Adds something to a model, where something in it fits."""


# Made once, as they are drawn from thousands of times.
_TWENTIETHS = st.integers(0, 19)
_HOW_MANY = st.sampled_from(["none", "few", "half", "all"])
_FORMS = st.sampled_from(["plain"] * 7 + ["turned", "half", "integers"])


class Builder:
    """A model under construction."""

    def __init__(self, draw: st.DrawFn, opset: int, batch: int | str) -> None:
        self.draw, self.opset, self.batch = draw, opset, batch
        self.rng = np.random.default_rng(draw(st.integers(0, 2**20)))
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.shapes: dict[str, Dims] = {}
        self.layers: list[Layer] = []
        self.recorded: list[str] = []
        self.undeclared = False
        self.given: Masks = {}  # What is masked of a layer's result, where that is no chance.
        self._weights: dict[tuple[int, ...], tuple[str, bool]] = {}

    def chance(self, share: float) -> bool:
        """Yes or no, drawn; no is the simplest."""
        return self.draw(_TWENTIETHS) >= round(20 * (1 - share))

    def some(self, count: int) -> Array:
        """Whether each of so many channels belongs to a drawn set; none is the simplest."""
        how = self.draw(_HOW_MANY)
        if how in ("none", "all"):
            return np.full(count, how == "all")
        bits = self.draw(st.integers(0, 2**count - 1))
        if how == "few":
            bits &= self.draw(st.integers(0, 2**count - 1))
        return np.array([bits >> place & 1 for place in range(count)], bool)

    def pick(self, rank: int, fits: Callable[[Dims], bool] = lambda _: True) -> str | None:
        """A tensor of a rank; the latest is the simplest."""
        found = [name for name, s in self.shapes.items() if len(s) == rank and fits(s)]
        return found[-1 - self.draw(st.integers(0, len(found) - 1))] if found else None

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.initializers) + len(self.nodes)}"
        tensor = numpy_helper.from_array(np.asarray(value, dtype), name)
        if self.chance(0.2):
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.initializers.append(tensor)
        return name

    def node(self, op: str, inputs: Sequence[str], *shapes: Dims, **attributes: Any) -> list[str]:
        names = [f"t{len(self.nodes)}_{index}" for index in range(len(shapes))]
        made = helper.make_node(op, inputs, names, f"n{len(self.nodes)}", **attributes)
        self.nodes.append(made)
        self.shapes.update(zip(names, shapes, strict=True))
        return names

    def one(self, op: str, inputs: Sequence[str], shape: Dims, **attributes: Any) -> str:
        return self.node(op, inputs, shape, **attributes)[0]

    def numbers(self, *shape: int) -> Array:
        return self.rng.standard_normal(shape).astype(np.float32)

    def weight(self, shape: tuple[int, ...], share: bool = True) -> tuple[str, bool]:
        """A weight, with zeros at times, shared at times; and whether it is an initializer."""
        if share and shape in self._weights and self.chance(0.3):
            return self._weights[shape]
        values = self.numbers(*shape) / np.float32(math.sqrt(max(math.prod(shape[1:]), 1)))
        for axis in (0, 1):
            if self.chance(0.25):
                values[(slice(None),) * axis + (self.some(shape[axis]),)] = 0
        name = f"w{len(self.initializers)}"
        form = self.draw(_FORMS)
        if form == "turned":
            order = np.array(self.draw(st.permutations(range(len(shape)))))
            self.initializers.append(numpy_helper.from_array(values.transpose(order), name))
            self.nodes.append(
                helper.make_node("Transpose", [name], [f"{name}t"], perm=np.argsort(order))
            )
            return f"{name}t", False
        if form == "half":
            self.initializers.append(numpy_helper.from_array(values.astype(np.float16), name))
            self.nodes.append(helper.make_node("Cast", [name], [f"{name}f"], to=TensorProto.FLOAT))
            return f"{name}f", False
        if form == "integers":
            ints = np.clip(np.round(values * 40), -100, 100).astype(np.int8)
            per_axis = self.chance(0.5)
            scale = self.rng.uniform(0.01, 0.03, shape[0] if per_axis else ()).astype(np.float32)
            zero = self.rng.integers(-3, 4, scale.shape).astype(np.int8)
            inputs = [name, f"{name}s", f"{name}z"]
            for value, key in zip((ints, scale, zero), inputs, strict=True):
                self.initializers.append(numpy_helper.from_array(np.asarray(value), key))
            given: dict[str, Any] = {"axis": 0} if self.opset >= 13 else {}
            if not given and per_axis:
                self.initializers[-2:] = [
                    numpy_helper.from_array(np.array(0.02, np.float32), inputs[1]),
                    numpy_helper.from_array(np.array(1, np.int8), inputs[2]),
                ]
            self.nodes.append(helper.make_node("DequantizeLinear", inputs, [f"{name}d"], **given))
            return f"{name}d", False
        self.initializers.append(numpy_helper.from_array(values, name))
        if share:
            self._weights[shape] = (name, True)
        return name, True

    def layer(
        self, weight: tuple[str, bool], data: str, axis: int, out: str, at: int, made: int = 0
    ) -> None:
        ins, outs = self.shapes[data][axis], made or self.shapes[out][at]
        assert isinstance(ins, int)
        assert isinstance(outs, int)
        node = self.nodes[-1].name
        name = weight[0] if weight[1] else None
        rank = len(self.shapes[out])
        self.layers.append(Layer(node, name, (data, axis, ins), (out, at, outs), rank))

    def hidden(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """A tensor that no other node is to read."""
        name = self.one(op, inputs, (), **attributes)
        del self.shapes[name]
        return name

    def through(self, data: str, part: Part) -> str:
        """Lets a part work on one tensor; gives what it made last."""
        others, self.shapes = self.shapes, {data: self.shapes[data]}
        part(self)
        made = list(self.shapes)[-1]
        self.shapes = {**others, **self.shapes}
        return made

    def finish(self, given: dict[str, Dims]) -> onnx.ModelProto:
        read = {name for node in self.nodes for name in node.input}
        made = [name for name in self.shapes if name not in given]
        ends = [name for name in made if name not in read] or made[-1:]
        inner = [name for name in made if name in read and self.chance(0.06)]
        ends = [name for name in ends if self.chance(0.9)] or ends[-1:]
        record = self.recorded
        if self.chance(0.4):
            record = [name for name in made if self.chance(0.7) or name in record]
        kept = {*ends, *inner}
        graph = helper.make_graph(
            self.nodes,
            "generated",
            [_info(name, shape) for name, shape in given.items()],
            [_info(name, self.shapes[name]) for name in made if name in kept],
            self.initializers,
            value_info=[_info(name, self.shapes[name]) for name in record if name not in kept],
        )
        imports = [helper.make_opsetid("", self.opset)]
        if any(node.domain for node in self.nodes):
            imports.append(helper.make_opsetid("com.microsoft", 1))
        return helper.make_model(graph, opset_imports=imports, ir_version=10)


def image_sizes(shape: Dims) -> tuple[int, int, int, int]:
    # The batch may be a name; it is only ever passed on.
    n, channels, height, width = shape
    return n, int(channels), int(height), int(width)  # type: ignore[return-value]


def _info(name: str, shape: Dims) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
