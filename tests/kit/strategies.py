"""Random models and masks for hypothesis, and the masked model as a user of the contract sees it.

The structure of a model is drawn, so that counterexamples shrink; its numbers come from one drawn
seed. `masked` does not zero weights as the package does: it multiplies activations by 0 or 1 where
the contract says that channels are ignored (before a layer) or zero (before the activation).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

Dims: TypeAlias = "tuple[int | str, ...]"
Array: TypeAlias = "npt.NDArray[Any]"
Masks: TypeAlias = "dict[str, dict[str, list[int]]]"

ACTIVATIONS = ("Relu", "Sigmoid", "HardSigmoid", "Softplus", "Cos", "Elu", "Abs", "Tanh", "Neg")
MOST_ELEMENTS = 4096


@dataclass(frozen=True)
class Layer:
    """A maskable node; axes count from the end, so that masks broadcast."""

    node: str
    weight: str | None
    data: tuple[str, int, int]
    result: tuple[str, int, int]
    rank: int


@dataclass(frozen=True)
class Case:
    """A model, its masks, and its layers."""

    model: onnx.ModelProto
    masks: Masks
    layers: tuple[Layer, ...] = field(repr=False)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """How hypothesis prints a counterexample."""
        printer.text(f"{onnx.printer.to_text(self.model)}\nmasks: {self.masks}")

    @property
    def document(self) -> dict[str, Any]:
        return {"version": 1, "masks": self.masks}


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
        return self.draw(st.integers(0, 19)) >= round(20 * (1 - share))

    def some(self, count: int) -> Array:
        """Whether each of so many channels belongs to a drawn set; none is the simplest."""
        how = self.draw(st.sampled_from(["none", "few", "half", "all"]))
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
        form = self.draw(st.sampled_from(["plain"] * 7 + ["turned", "half", "integers"]))
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

    def layer(self, weight: tuple[str, bool], data: str, axis: int, out: str, at: int) -> None:
        ins, outs = self.shapes[data][axis], self.shapes[out][at]
        assert isinstance(ins, int)
        assert isinstance(outs, int)
        node = self.nodes[-1].name
        name = weight[0] if weight[1] else None
        rank = len(self.shapes[out])
        self.layers.append(Layer(node, name, (data, axis, ins), (out, at, outs), rank))

    # Layers.

    def conv(
        self,
        data: str,
        outs: int,
        kernel: int = 1,
        pad: int = 0,
        group: int = 1,
        weight: tuple[str, bool] | None = None,
    ) -> str:
        n, ins, h, w = _image(self.shapes[data])
        weight = weight or self.weight((outs, ins // group, kernel, kernel), share=group == 1)
        inputs = [data, weight[0]]
        if self.chance(0.6):
            inputs.append(self.constant(self.numbers(outs)))
        grow = 2 * pad - kernel + 1
        shape = (n, outs, h + grow, w + grow)
        attributes: dict[str, Any] = {"pads": [pad] * 4} if pad else {}
        if group > 1:
            attributes["group"] = group
        out = self.one("Conv", inputs, shape, **attributes)
        self.layer(weight, data, -3, out, -3)
        return out

    def twins(self) -> None:
        """Two layers with one weight that read as many channels, but others, without masks."""
        data = self.pick(4)
        if data is None:
            return
        channels, outs = self.draw(st.integers(2, 8)), self.draw(st.integers(2, 8))
        both = [self.conv(data, channels) for _ in range(2)]
        pruned = self.some(channels)
        for turn in (0, 1):
            self.given[both[turn]] = {"output": np.flatnonzero(np.roll(pruned, turn)).tolist()}
        weight = self.weight((outs, channels, 1, 1), share=False)
        for each in both:
            self.conv(self.one("Relu", [each], self.shapes[each]), outs, weight=weight)
            self.given[list(self.shapes)[-1]] = {}

    def some_conv(self) -> None:
        data = self.pick(4)
        if data is None:
            return
        kernel, pad = self.draw(st.sampled_from([(1, 0), (3, 1), (3, 0), (1, 1)]))
        if kernel == 3 and not pad and min(_image(self.shapes[data])[2:]) < 3:
            pad = 1
        self.conv(data, self.draw(st.integers(1, 9)), kernel, pad)

    def grouped_conv(self) -> None:
        data = self.pick(4)
        if data is None:
            return
        ins = _image(self.shapes[data])[1]
        groups = [count for count in range(1, ins + 1) if ins % count == 0]
        group = groups[-1 - self.draw(st.integers(0, len(groups) - 1))]
        self.conv(data, group * self.draw(st.integers(1, 2)), 3, 1, group)

    def conv_transpose(self) -> None:
        data = self.pick(4, lambda s: _image(s)[2] <= 4)
        if data is None:
            return
        n, ins, h, w = _image(self.shapes[data])
        group = 2 if ins % 2 == 0 and self.chance(0.4) else 1
        per_group = self.draw(st.integers(1, 4))
        weight = self.weight((ins, per_group, 2, 2), share=False)
        inputs = [data, weight[0]]
        if self.chance(0.5):
            inputs.append(self.constant(self.numbers(per_group * group)))
        shape = (n, per_group * group, 2 * h, 2 * w)
        out = self.one("ConvTranspose", inputs, shape, strides=[2, 2], group=group)
        self.layer(weight, data, -3, out, -3)

    def gemm(self) -> None:
        data = self.pick(2)
        if data is None:
            return
        n, ins = self.shapes[data]
        assert isinstance(ins, int)
        outs, turned = self.draw(st.integers(1, 9)), self.chance(0.5)
        weight = self.weight((outs, ins) if turned else (ins, outs), share=False)
        inputs = [data, weight[0]]
        if self.chance(0.7):
            shape = self.draw(st.sampled_from([(outs,), (1, outs), ()]))
            inputs.append(self.constant(self.numbers(*shape)))
        scales = {"alpha": 0.5, "beta": 2.0} if self.chance(0.3) else {}
        out = self.one("Gemm", inputs, (n, outs), transB=int(turned), **scales)
        self.layer(weight, data, -1, out, -1)

    def matmul(self, data: str | None = None, outs: int = 0) -> str | None:
        data = data or self.pick(self.draw(st.sampled_from([3, 2, 4])))
        if data is None:
            return None
        *rest, ins = self.shapes[data]
        assert isinstance(ins, int)
        outs = outs or self.draw(st.integers(1, 8))
        weight = self.weight((ins, outs), share=False)
        out = self.one("MatMul", [data, weight[0]], (*rest, outs))
        self.layer(weight, data, -1, out, -1)
        if self.chance(0.5):
            bias = self.constant(self.numbers(outs))
            out = self.one("Add", [out, bias][:: 1 if self.chance(0.5) else -1], (*rest, outs))
        return out

    def products(self) -> None:
        """Products in a row and side by side; the second may absorb constants of the first."""
        if self.pick(3) is None:
            self.sequence()
        data = self.pick(3)
        if data is None:
            return
        width, outs = self.draw(st.integers(2, 8)), self.draw(st.integers(2, 8))
        first = self.matmul(data, width)
        assert first is not None
        known = self.one("Sigmoid", [first], self.shapes[first])
        ends = [self.matmul(known, outs), self.matmul(data, outs)]
        shape = self.shapes[ends[0] or ""]
        total = self.one("Add", [end for end in ends if end], shape)
        self.matmul(self.one("Relu", [total], shape))

    def left_matmul(self) -> None:
        data = self.pick(3)
        if data is None:
            return
        n, ins, width = self.shapes[data]
        assert isinstance(ins, int)
        outs = self.draw(st.integers(1, 6))
        weight = self.weight((outs, ins), share=False)
        out = self.one("MatMul", [weight[0], data], (n, outs, width))
        self.layer(weight, data, -2, out, -2)

    # One tensor in, one of the same shape out.

    def activation(self, data: str | None = None) -> str | None:
        data = data or self.pick(self.draw(st.sampled_from([4, 2, 3])))
        if data is None:
            return None
        shape = self.shapes[data]
        op = self.draw(st.sampled_from([*ACTIVATIONS, "Clip", "Swish", "PRelu", "Dropout", "Pow"]))
        if op == "Clip":
            bounds = [self.constant(0.5), self.constant(2.0)]
            return self.one("Clip", [data, *bounds], shape)
        if op == "Swish":
            return self.one("Mul", [data, self.one("Sigmoid", [data], shape)], shape)
        if op == "PRelu":
            return self.one("PRelu", [data, self.per_channel(shape)], shape)
        if op == "Pow":
            return self.one(
                "Pow", [data, self.constant(float(self.draw(st.integers(0, 2))))], shape
            )
        return self.one(op, [data], shape)

    def per_channel(self, shape: Dims) -> str:
        place = 1 if len(shape) == 4 else len(shape) - 1
        count = shape[place]
        assert isinstance(count, int)
        ones = (1,) * (len(shape) - 1 - place)
        return self.constant(self.numbers(count, *ones))

    def affine(self) -> None:
        data = self.pick(self.draw(st.sampled_from([4, 2, 3])))
        if data is None:
            return
        shape = self.shapes[data]
        other = self.constant(self.numbers()) if self.chance(0.3) else self.per_channel(shape)
        inputs = [data, other] if self.chance(0.7) else [other, data]
        self.one(self.draw(st.sampled_from(["Add", "Mul", "Sub"])), inputs, shape)

    def batch_norm(self, data: str | None = None) -> None:
        data = data or self.pick(self.draw(st.sampled_from([4, 2])))
        if data is None:
            return
        shape = self.shapes[data]
        count = shape[1]
        assert isinstance(count, int)
        params = [self.numbers(count) for _ in range(3)] + [self.rng.uniform(0.5, 2, count)]
        inputs = [data, *(self.constant(value) for value in params)]
        self.one("BatchNormalization", inputs, shape)

    def conv_bn(self) -> None:
        self.some_conv()
        data = self.pick(4)
        self.batch_norm(data)
        if data is not None:
            self.activation(list(self.shapes)[-1])

    def norm(self) -> None:
        op = self.draw(st.sampled_from(["Instance", "Group", "Layer", "Softmax", "Lp", "LRN"]))
        rank = 4 if op in ("Instance", "Group", "LRN") else self.draw(st.sampled_from([3, 2, 4]))
        data = self.pick(rank)
        if data is None:
            return
        shape = self.shapes[data]
        channels, width = shape[1], shape[-1]
        assert isinstance(channels, int)
        assert isinstance(width, int)
        if op == "Instance":
            inputs = [data, *(self.constant(self.numbers(channels)) for _ in range(2))]
            self.one("InstanceNormalization", inputs, shape, epsilon=0.1)
        elif op == "Group" and self.opset >= 21:
            groups = 2 if channels % 2 == 0 else 1
            inputs = [data, *(self.constant(self.numbers(channels)) for _ in range(2))]
            self.one("GroupNormalization", inputs, shape, num_groups=groups, epsilon=0.1)
        elif op == "Layer" and self.opset >= 17:
            inputs = [data, *(self.constant(self.numbers(width)) for _ in range(2))]
            self.one("LayerNormalization", inputs, shape, axis=-1, epsilon=0.1)
        elif op == "LRN":
            self.one("LRN", [data], shape, size=3, alpha=0.3)
        elif op == "Lp":
            shifted = self.one("Add", [data, self.constant(3.0)], shape)
            self.one("LpNormalization", [shifted], shape, axis=1)
        else:
            axis = self.draw(st.sampled_from([1, rank - 1]))
            self.one("Softmax", [data], shape, axis=axis)

    def foreign(self) -> None:
        """An operator that no rule and no shape inference of ONNX's knows."""
        data = self.pick(4)
        if data is not None:
            out = self.one("QuickGelu", [data], self.shapes[data], domain="com.microsoft")
            if self.chance(0.5):
                self.recorded.append(out)
            else:
                self.undeclared = True

    def subgraph(self) -> None:
        data = self.pick(4)
        if data is None:
            return
        shape = self.shapes[data]
        branches = {}
        for key, op in (("then_branch", "Relu"), ("else_branch", "Neg")):
            out = f"{key}{len(self.nodes)}"
            info = helper.make_tensor_value_info(out, TensorProto.FLOAT, shape)
            branches[key] = helper.make_graph(
                [helper.make_node(op, [data], [out])], key, [], [info]
            )
        self.one("If", [self.constant(self.chance(0.5), np.bool_)], shape, **branches)

    def through(self, data: str, part: Callable[[Builder], object]) -> str:
        """Lets a part work on one tensor; gives what it made last."""
        others, self.shapes = self.shapes, {data: self.shapes[data]}
        part(self)
        made = list(self.shapes)[-1]
        self.shapes = {**others, **self.shapes}
        return made

    def chain(self, *parts: Callable[[Builder], object]) -> None:
        """A layer, an activation, something else, and a layer that reads it.

        Channels of known value pass through all of it, if the first layer is masked.
        """
        data = self.pick(4)
        if data is None:
            return
        made = self.conv(data, self.draw(st.integers(2, 8)))
        made = self.activation(made) or made
        drawn = self.draw(st.lists(st.sampled_from(_ONE_TO_ONE), max_size=0 if parts else 2))
        for part in (*parts, *drawn):
            made = self.through(made, part)
        self.through(made, self.reader(made))

    def reader(self, data: str) -> Callable[[Builder], object]:
        """A layer that can read a tensor."""
        readers: dict[int, Callable[[Builder], object]] = {
            4: Builder.some_conv,
            3: Builder.matmul,
            2: Builder.gemm,
        }
        return readers[len(self.shapes[data])]

    # Branches.

    def join(self) -> None:
        data = self.pick(self.draw(st.sampled_from([4, 2, 3])))
        if data is None:
            return
        shape = self.shapes[data]
        other = self.pick(len(shape), lambda s: s == shape) or data
        op = self.draw(st.sampled_from(["Add", "Mul", "Sub", "Max"]))
        if op == "Mul":  # Keeps values small.
            other = self.one("Tanh", [other], shape)
        self.one(op, [data, other], shape)

    def residual(self) -> None:
        data = self.pick(4)
        if data is None:
            return
        inner = self.conv(data, _image(self.shapes[data])[1], 3, 1)
        inner = self.activation(inner) or inner
        out = self.one("Add", [data, inner], self.shapes[data])
        if self.chance(0.5):
            self.one("Relu", [out], self.shapes[data])

    def gate(self) -> None:
        """Squeeze and excite."""
        data = self.pick(4)
        if data is None:
            return
        n, channels, *_ = _image(self.shapes[data])
        pooled = self.one("GlobalAveragePool", [data], (n, channels, 1, 1))
        inner = self.one("Relu", [self.conv(pooled, 3)], (n, 3, 1, 1))
        gate = self.one("Sigmoid", [self.conv(inner, channels)], (n, channels, 1, 1))
        self.one("Mul", [data, gate], self.shapes[data])

    def concat(self) -> None:
        rank = self.draw(st.sampled_from([4, 2]))
        data = self.pick(rank)
        if data is None:
            return
        shape = self.shapes[data]
        count = self.draw(st.integers(1, 2))
        parts = [data]
        for _ in range(count):
            parts.append(self.pick(rank, lambda s: s[2:] == shape[2:]) or data)
        if self.chance(0.3):
            parts.append(self.one("Relu", [data], shape))
        if self.chance(0.1) and self.batch == 1:
            fixed = (1, 2, *(int(size) for size in shape[2:]))
            parts.insert(0, self.constant(self.numbers(*fixed)))
            self.shapes_of_constant(parts[0], fixed)
        total = sum(int(self.shapes[part][1]) for part in parts)
        if total <= 24:
            self.one("Concat", parts, (shape[0], total, *shape[2:]), axis=1)
        self.shapes = {k: v for k, v in self.shapes.items() if not k.startswith("c")}

    def shapes_of_constant(self, name: str, shape: Dims) -> None:
        self.shapes[name] = shape

    def split(self) -> None:
        data = self.pick(self.draw(st.sampled_from([4, 2])), lambda s: int(s[1]) > 1)
        if data is None:
            return
        n, channels, *rest = self.shapes[data]
        first = self.draw(st.integers(1, int(channels) - 1))
        sizes = [first, int(channels) - first]
        shapes = [(n, size, *rest) for size in sizes]
        if self.opset >= 13:
            self.node("Split", [data, self.constant(sizes, np.int64)], *shapes, axis=1)
        else:
            self.node("Split", [data], *shapes, axis=1, split=sizes)

    def slice(self) -> None:
        data = self.pick(4, lambda s: int(s[1]) > 1)
        if data is None:
            return
        n, channels, *rest = self.shapes[data]
        start, step = self.draw(st.integers(0, int(channels) - 1)), self.draw(st.integers(1, 2))
        if self.chance(0.2):
            bounds = [[-1], [-1000], [1], [-step]]
            count = len(range(int(channels))[-1:-1000:-step])
        else:
            bounds = [[start], [int(channels) + 3], [1], [step]]
            count = len(range(start, int(channels), step))
        inputs = [data, *(self.constant(bound, np.int64) for bound in bounds)]
        self.one("Slice", inputs, (n, count, *rest))

    def gather(self) -> None:
        data = self.pick(self.draw(st.sampled_from([4, 2])))
        if data is None:
            return
        n, channels, *rest = self.shapes[data]
        count = self.draw(st.integers(1, 6))
        places = st.integers(-int(channels), int(channels) - 1)
        picks = np.array(self.draw(st.lists(places, min_size=count, max_size=count)))
        if self.chance(0.5):
            picks = np.unique(picks % int(channels))
        indices = self.constant(picks, np.int64)
        self.one("Gather", [data, indices], (n, len(picks), *rest), axis=1)

    # Space and shape.

    def pool(self) -> None:
        data = self.pick(4, lambda s: min(_image(s)[2:]) > 1)
        if data is None:
            return
        n, channels, h, w = _image(self.shapes[data])
        op = self.draw(st.sampled_from(["MaxPool", "AveragePool", "LpPool"]))
        how = {"count_include_pad": int(self.chance(0.5))} if op == "AveragePool" else {}
        shape = (n, channels, h + 1, w + 1)
        self.one(op, [data], shape, kernel_shape=[2, 2], pads=[1] * 4, **how)

    def pad(self) -> None:
        data = self.pick(4, lambda s: max(_image(s)[2:]) < 7)
        if data is None:
            return
        n, channels, h, w = _image(self.shapes[data])
        pads = self.constant([0, 0, 1, 0, 0, 0, 0, 1], np.int64)
        mode = self.draw(st.sampled_from(["constant", "edge"]))
        inputs = [data, pads]
        if mode == "constant":
            inputs.append(self.constant(float(self.chance(0.5))))
        self.one("Pad", inputs, (n, channels, h + 1, w + 1), mode=mode)

    def reduce(self) -> None:
        data = self.pick(4)
        if data is None:
            return
        n, channels, h, w = _image(self.shapes[data])
        op = self.draw(st.sampled_from(["ReduceMean", "ReduceSum", "ReduceL2", "ReduceMax"]))
        axes = self.draw(st.sampled_from([[2, 3], [1]]))
        keep = int(axes == [1] or self.chance(0.5))
        shape: Dims = (
            (n, 1, h, w) if axes == [1] else (n, channels, 1, 1) if keep else (n, channels)
        )
        if self.opset >= 18 or (op == "ReduceSum" and self.opset >= 13):
            inputs = [data, self.constant(axes, np.int64)]
            self.one(op, inputs, shape, keepdims=keep)
        else:
            self.one(op, [data], shape, keepdims=keep, axes=axes)

    def flatten(self) -> None:
        data = self.pick(4, lambda s: math.prod(_image(s)[1:]) <= 160)
        if data is None:
            return
        n, *rest = _image(self.shapes[data])
        count = math.prod(rest)
        how = self.draw(st.sampled_from(["Flatten", "Reshape", "chain"]))
        if how == "Flatten":
            self.one("Flatten", [data], (n, count))
        elif how == "Reshape":
            sizes = self.constant([0, -1] if self.chance(0.5) else [-1, count], np.int64)
            self.one("Reshape", [data, sizes], (n, count))
        else:
            whole = self._hidden("Shape", [data])
            first = self._hidden("Gather", [whole, self.constant([0], np.int64)], axis=0)
            last = self.constant([count] if self.chance(0.5) else [-1], np.int64)
            sizes = self._hidden("Concat", [first, last], axis=0)
            # onnx follows sizes through such chains from this operator set on.
            self.undeclared |= self.opset < 13
            self.one("Reshape", [data, sizes], (n, count))

    def _hidden(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """A tensor that no other node is to read."""
        name = self.one(op, inputs, (), **attributes)
        del self.shapes[name]
        return name

    def sequence(self) -> None:
        """Positions in a row, channels last."""
        data = self.pick(4)
        if data is None:
            return
        n, channels, h, w = _image(self.shapes[data])
        sizes = self.constant([0, channels, -1] if self.chance(0.5) else [0, 0, -1], np.int64)
        flat = self.one("Reshape", [data, sizes], (n, channels, h * w))
        self.one("Transpose", [flat], (n, h * w, channels), perm=[0, 2, 1])

    def image(self) -> None:
        """Channels last for one layer, then back."""
        data = self.pick(4)
        if data is None:
            return
        n, channels, h, w = _image(self.shapes[data])
        turned = self.one("Transpose", [data], (n, h, w, channels), perm=[0, 2, 3, 1])
        outs = self.draw(st.integers(1, 6))
        out = self.matmul(turned, outs)
        assert out is not None
        self.one("Transpose", [out], (n, outs, h, w), perm=[0, 3, 1, 2])

    def shuffle(self) -> None:
        """Channel shuffle."""
        data = self.pick(4, lambda s: int(s[1]) % 2 == 0)
        if data is None:
            return
        n, channels, h, w = _image(self.shapes[data])
        half, shape = channels // 2, self.shapes[data]
        split = self.constant([0, 2, half, h, w], np.int64)
        wide = self.one("Reshape", [data, split], (n, 2, half, h, w))
        turned = self.one("Transpose", [wide], (n, half, 2, h, w), perm=[0, 2, 1, 3, 4])
        self.one("Reshape", [turned, self.constant([0, channels, h, w], np.int64)], shape)

    def pixels(self) -> None:
        data = self.pick(4, lambda s: int(s[1]) % 4 == 0 and _image(s)[2] <= 4)
        if data is None:
            return
        n, channels, h, w = _image(self.shapes[data])
        mode = self.draw(st.sampled_from(["DCR", "CRD"]))
        shape = (n, channels // 4, 2 * h, 2 * w)
        self.one("DepthToSpace", [data], shape, blocksize=2, mode=mode)

    def resize(self) -> None:
        data = self.pick(4, lambda s: _image(s)[2] <= 3)
        if data is None:
            return
        n, channels, h, w = _image(self.shapes[data])
        shape, scales = (n, channels, 2 * h, 2 * w), self.constant([1, 1, 2, 2])
        roi = "" if self.opset >= 13 else self.constant([])
        self.one("Resize", [data, roi, scales], shape, mode="nearest")

    def expand(self) -> None:
        data = self.pick(4)
        if data is None:
            return
        n, channels, *_ = _image(self.shapes[data])
        pooled = self.one("GlobalMaxPool", [data], (n, channels, 1, 1))
        sizes = self.constant([1, channels, 3, 2], np.int64)
        self.one("Expand", [pooled, sizes], (n, channels, 3, 2))

    def tile(self) -> None:
        data = self.pick(4, lambda s: int(s[1]) <= 8)
        if data is None:
            return
        n, channels, h, w = _image(self.shapes[data])
        repeats = self.constant([1, 2, 1, 1], np.int64)
        self.one("Tile", [data, repeats], (n, 2 * channels, h, w))

    def attention(self) -> None:
        """Two heads; the contraction axes of queries and keys are coupled."""
        if self.pick(3) is None:
            self.sequence()
        data = self.pick(3)
        if data is None:
            return
        n, length, channels = self.shapes[data]
        assert isinstance(channels, int)
        heads, width = 2, self.draw(st.integers(1, 3))
        parts = []
        for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
            whole = self.matmul(data, heads * width)
            assert whole is not None
            sizes = self.constant([0, 0, heads, width], np.int64)
            cut = self.one("Reshape", [whole, sizes], (n, length, heads, width))
            before = (n, length, heads, width)
            shape = tuple(before[axis] for axis in order)
            parts.append(self.one("Transpose", [cut], shape, perm=order))
        scores = self.one("MatMul", parts[:2], (n, heads, length, length))
        scores = self.one("Softmax", [scores], (n, heads, length, length), axis=3)
        mixed = self.one("MatMul", [scores, parts[2]], (n, heads, length, width))
        turned = self.one("Transpose", [mixed], (n, length, heads, width), perm=[0, 2, 1, 3])
        sizes = self.constant([0, 0, heads * width], np.int64)
        flat = self.one("Reshape", [turned, sizes], (n, length, heads * width))
        self.matmul(flat, channels)

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


def _image(shape: Dims) -> tuple[int, int, int, int]:
    # The batch may be a name; it is only ever passed on.
    n, channels, height, width = shape
    return n, int(channels), int(height), int(width)  # type: ignore[return-value]


def _info(name: str, shape: Dims) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


_PARTS: tuple[Callable[[Builder], object], ...] = (
    Builder.some_conv, Builder.conv_bn, Builder.grouped_conv, Builder.conv_transpose,
    Builder.residual, Builder.join, Builder.concat, Builder.split, Builder.slice, Builder.gather,
    Builder.activation, Builder.affine, Builder.batch_norm, Builder.norm, Builder.gate,
    Builder.foreign, Builder.subgraph, Builder.pool, Builder.pad, Builder.reduce, Builder.flatten,
    Builder.sequence, Builder.image, Builder.shuffle, Builder.pixels, Builder.resize,
    Builder.expand, Builder.tile, Builder.attention, Builder.gemm, Builder.matmul,
    Builder.left_matmul, Builder.products, Builder.twins,
)  # fmt: skip
_COMMON = (
    Builder.some_conv, Builder.conv_bn, Builder.residual, Builder.join, Builder.concat,
    *[Builder.chain] * 12,
)  # fmt: skip
# What a chain may lead through.
_ONE_TO_ONE: tuple[Callable[[Builder], object], ...] = (
    Builder.batch_norm, Builder.norm, Builder.affine, Builder.pool, Builder.pad, Builder.reduce,
    Builder.flatten, Builder.split, Builder.slice, Builder.gather, Builder.pixels, Builder.resize,
    Builder.shuffle, Builder.grouped_conv, Builder.activation, Builder.sequence,
)  # fmt: skip
_Part: TypeAlias = "Callable[[Builder], object]"
_ANY = st.lists(st.sampled_from([*_COMMON, *_PARTS]), min_size=3, max_size=16)


def _chain(*parts: _Part) -> _Part:
    return lambda builder: builder.chain(*parts)


def everything() -> st.SearchStrategy[list[_Part]]:
    """Everything that can go wrong, once, in any order."""
    chains = [_chain(part) for part in _ONE_TO_ONE]
    often = [Builder.norm, Builder.pool, Builder.grouped_conv, Builder.flatten, Builder.slice]
    chains += [_chain(part) for part in often for _ in range(3)]
    others = [Builder.attention, Builder.residual, Builder.tile]
    often = [Builder.some_conv, Builder.concat, Builder.conv_bn, Builder.products, Builder.twins]
    others += [part for part in often for _ in range(3)]
    return st.permutations([*chains, *others, _chain(), _chain()])


@st.composite
def cases(draw: st.DrawFn, parts: st.SearchStrategy[list[_Part]] = _ANY) -> Case:
    """A model of these parts, and masks for it."""
    opset = draw(st.sampled_from([17, 11, 13, 21]))
    batches: list[int | str] = [1, 2, "N"]
    batch = draw(st.sampled_from(batches))
    builder = Builder(draw, opset, batch)
    given: dict[str, Dims] = {"x": (batch, draw(st.integers(1, 4)), 4, 3)}
    builder.shapes.update(given)
    builder.some_conv()
    for part in draw(parts):
        part(builder)
    if builder.pick(4) and draw(st.booleans()):
        builder.some_conv()
    model = builder.finish(given)
    masks: Masks = {}
    ops = {node.name: node.op_type for node in model.graph.node}
    for layer in builder.layers:
        if builder.undeclared and ops[layer.node] == "MatMul":
            continue  # Its axes cannot be told without the rank of what it reads.
        if layer.result[0] in builder.given:
            sides = builder.given[layer.result[0]]
            if sides.get("output"):
                masks[layer.result[0]] = sides
            continue
        keys = [layer.node, layer.result[0], *([layer.weight] if layer.weight else [])]
        key = draw(st.sampled_from(keys))
        sides = {}
        for side, (_, _, channels) in (("input", layer.data), ("output", layer.result)):
            pruned = np.flatnonzero(builder.some(channels))
            if len(pruned):
                sides[side] = pruned.tolist()
        if sides:
            masks[key] = sides
    return Case(model, masks, tuple(builder.layers))


def masked(case: Case) -> onnx.ModelProto:
    """The masked model: the model with activations multiplied by 0 or 1."""
    before: dict[str, tuple[str, Array]] = {}
    behind: dict[str, Array] = {}
    for layer in case.layers:
        for key in (layer.node, layer.weight, layer.result[0]):
            sides = case.masks.get(key or "", {})
            if "input" in sides:
                tensor, axis, channels = layer.data
                keep = _zeros_at(sides["input"], axis, channels)
                _, others = before.get(layer.node, (tensor, keep))
                before[layer.node] = tensor, keep * others
            if "output" in sides:
                tensor, axis, channels = layer.result
                end = _end_of_affine(case.model, tensor, axis, channels, layer.rank)
                keep = _zeros_at(sides["output"], axis, channels)
                behind[end] = behind.get(end, np.ones_like(keep)) * keep
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    del model.graph.node[:]

    def multiply(tensor: str, keep: Array, result: str) -> None:
        model.graph.initializer.append(numpy_helper.from_array(keep, f"{result}.mask"))
        model.graph.node.append(helper.make_node("Mul", [tensor, f"{result}.mask"], [result]))

    for original in case.model.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        if node.name in before:
            tensor, keep = before[node.name]
            multiply(tensor, keep, f"{node.name}.input")
            node.input[list(node.input).index(tensor)] = f"{node.name}.input"
        masked_outputs = [name for name in node.output if name in behind]
        for slot, name in enumerate(node.output):
            node.output[slot] = f"{name}.raw" if name in behind else name
        model.graph.node.append(node)
        for name in masked_outputs:
            multiply(f"{name}.raw", behind[name], name)
    return model


def _zeros_at(indices: list[int], axis: int, channels: int) -> Array:
    keep = np.ones(channels, np.float32)
    keep[indices] = 0
    return keep.reshape(-1, *(1,) * (-axis - 1))


def _end_of_affine(model: onnx.ModelProto, tensor: str, axis: int, channels: int, rank: int) -> str:
    """Where an output mask acts: behind the affine operations attached straight to a layer."""
    graph = model.graph
    outputs = {value.name for value in graph.output}
    constants = {t.name: tuple(t.dims) for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = tuple(node.attribute[0].t.dims)
    while True:
        readers = [node for node in graph.node for name in _reads(node) if name == tensor]
        if len(readers) != 1 or tensor in outputs:
            return tensor
        (node,) = readers
        others = [name for name in node.input if name != tensor]
        if node.op_type == "BatchNormalization":
            if axis + rank != 1:
                return tensor
        elif node.op_type in ("Add", "Mul"):
            shape = constants.get(others[0]) if others else None
            per_channel = _zeros_at([], axis, channels).shape
            if shape is None or (math.prod(shape) != 1 and shape != per_channel):
                return tensor
        else:
            return tensor
        tensor = node.output[0]


def _reads(node: onnx.NodeProto) -> list[str]:
    inner = [name for a in node.attribute for n in a.g.node for name in _reads(n)]
    return [*node.input, *inner]


def run(model: onnx.ModelProto, seed: int = 0, batch: int = 2) -> dict[str, Array]:
    """The outputs of a model on random inputs, without onnxruntime's own optimizations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    rng = np.random.default_rng(seed)
    inputs = {}
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) else batch for size in value.shape]
        inputs[value.name] = rng.standard_normal(shape).astype(np.float32)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))
