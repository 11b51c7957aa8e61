"""Models that run planned kernels, each fed by a node so that its input lies where it would."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from onnx_upscale.prices import Kernel
from onnx_upscale.prices.kernels import BLOCKED, BYTES, PLAIN

# Channels of a probe's input, which a convolution turns into as many as the kernel reads.
_SEED = 8
_OPSET, _IR = 17, 8
# Ends of the names of nodes of a kernel's number that are not what is measured.
_FEEDING = (".less", ".made")

# Images, and the height and width of each.
_Maps = tuple[int, int, int]


class ProbeModel:
    """A model with several kernels side by side; nodes of number n are named `tn`, then a dot.

    Args:
        precision: The type of its real numbers.
    """

    def __init__(self, precision: str = "float32") -> None:
        self._real = np.dtype(precision)
        self.kind: int = helper.np_dtype_to_tensor_dtype(self._real)
        self._rng = np.random.default_rng(0)
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._number = 0

    def input(self, *shape: int) -> str:
        """A new input of the model."""
        self._inputs.append(
            helper.make_tensor_value_info(f"x{len(self._inputs)}", self.kind, shape)
        )
        return str(self._inputs[-1].name)

    def constant(self, value: Any) -> str:
        """A new constant."""
        name = f"w{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def numbers(self, values: npt.ArrayLike) -> str:
        """A new constant of real numbers."""
        return self.constant(np.asarray(values, self._real))

    def weight(self, *shape: int) -> str:
        """A new random weight."""
        values = self._rng.standard_normal(shape).astype(np.float32)
        return self.numbers(values / math.sqrt(math.prod(shape[1:]) or 1))

    def some(self, size: int, count: int) -> str:
        """Random distinct indices in order."""
        return self.constant(np.sort(self._rng.permutation(size)[:count]))

    def node(self, op: str, *inputs: str, name: str, **attributes: Any) -> str:
        """A new node that makes one tensor of its own name."""
        self._nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def made(self, channels: int, maps: _Maps, number: int) -> str:
        """A tensor in the layout that a convolution leaves it in."""
        images, height, width = maps
        source = self.input(images, _SEED, height, width)
        self._number += 1
        name = f"made{number}.{self._number}"
        return self.node("Conv", source, self.weight(channels, _SEED, 1, 1), name=name)

    def in_bytes(self, tensor: str, number: int) -> tuple[str, str, str]:
        """The bytes that a tensor is encoded as, with their scale and zero point."""
        step = self.constant(np.float32(0.05)), self.constant(np.uint8(128))
        self._number += 1
        return self.node("QuantizeLinear", tensor, *step, name=f"q{number}.{self._number}"), *step

    def byte_weight(self, *shape: int) -> tuple[str, str, str]:
        """A new random weight of bytes, with its scale and zero point."""
        values = self._rng.integers(-127, 128, shape).astype(np.int8)
        scale = np.float32(0.01 / math.sqrt(math.prod(shape[1:]) or 1))
        return self.constant(values), self.constant(scale), self.constant(np.int8(0))

    def output(self, name: str, kind: int | None = None) -> None:
        """Has a tensor made, as onnxruntime leaves out what nobody wants.

        Just a part of it is an output: what leaves the model is written to memory of its own.
        """
        bounds = [self.constant([bound]) for bound in (0, 1, -2)]
        name = self.node("Slice", name, *bounds, name=f"out{len(self._outputs)}")
        self._outputs.append(helper.make_tensor_value_info(name, kind or self.kind, None))

    def finished(self) -> onnx.ModelProto:
        """The model."""
        graph = helper.make_graph(self._nodes, "prices", self._inputs, self._outputs, self._weights)
        opset = helper.make_opsetid("", _OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=_IR)


def _maps(places: int, step: int = 1) -> _Maps:
    """As few square images as have so many places together, and so many times their sides."""
    images = next(
        n for n in count(1) if not places % n and math.isqrt(places // n) ** 2 * n == places
    )
    side = math.isqrt(places // images) * step
    return images, side, side


def _convolution(model: ProbeModel, kernel: Kernel, number: int) -> str:
    step, size = math.isqrt(kernel.stride), math.isqrt(kernel.window)
    data = model.made(kernel.inputs, _maps(kernel.places, step), number)
    weight = model.weight(kernel.outputs, kernel.inputs // kernel.groups, size, size)
    bias = model.weight(kernel.outputs)
    pads = [size // 2] * 2 + [(size - 1) // 2] * 2
    return model.node(
        "Conv", data, weight, bias, name=f"t{number}.",
        strides=[step, step], pads=pads, group=kernel.groups,
    )  # fmt: skip


def _byte_convolution(model: ProbeModel, kernel: Kernel, number: int) -> str:
    step, size = math.isqrt(kernel.stride), math.isqrt(kernel.window)
    images, height, width = _maps(kernel.places, step)
    source = model.input(images, _SEED, height, width)
    data, *coding = model.in_bytes(source, number)
    # As the convolution before leaves it: with its channels last.
    feeding = model.byte_weight(kernel.inputs, _SEED, 1, 1)
    data = model.node("QLinearConv", data, *coding, *feeding, *coding, name=f"made{number}")
    weight = model.byte_weight(kernel.outputs, kernel.inputs // kernel.groups, size, size)
    bias = model.constant(np.zeros(kernel.outputs, np.int32))
    pads = [size // 2] * 2 + [(size - 1) // 2] * 2
    return model.node(
        "QLinearConv", data, *coding, *weight, *coding, bias, name=f"t{number}.",
        strides=[step, step], pads=pads, group=kernel.groups,
    )  # fmt: skip


def _byte_product(model: ProbeModel, kernel: Kernel, number: int) -> str:
    data, *coding = model.in_bytes(model.input(1, kernel.places, kernel.inputs), number)
    weight = model.byte_weight(kernel.inputs, kernel.outputs)
    return model.node("QLinearMatMul", data, *coding, *weight, *coding, name=f"t{number}.")


def _product(model: ProbeModel, kernel: Kernel, number: int) -> str:
    data = model.node("Relu", model.input(1, kernel.places, kernel.inputs), name=f"made{number}")
    weight = model.weight(kernel.inputs, kernel.outputs)
    return model.node("MatMul", data, weight, name=f"t{number}.")


def _gather(model: ProbeModel, kernel: Kernel, number: int) -> str:
    last = kernel.family.endswith("_last")
    picked = model.some(kernel.inputs, kernel.outputs)
    data = _rows(model, kernel, number) if last else _planes(model, kernel, number)
    return model.node("Gather", data, picked, name=f"t{number}.", axis=2 if last else 1)


def _slice(model: ProbeModel, kernel: Kernel, number: int) -> str:
    last = kernel.family.endswith("_last")
    data = _rows(model, kernel, number) if last else _planes(model, kernel, number)
    start = (kernel.inputs - kernel.outputs) // 2
    bounds = (start, start + kernel.outputs, 2 if last else 1)
    return model.node("Slice", data, *(model.constant([b]) for b in bounds), name=f"t{number}.")


def _rows(model: ProbeModel, kernel: Kernel, number: int) -> str:
    return model.node("Relu", model.input(1, kernel.places, kernel.inputs), name=f"made{number}")


def _planes(model: ProbeModel, kernel: Kernel, number: int) -> str:
    return model.made(kernel.inputs, _maps(kernel.places), number)


def _concat(model: ProbeModel, kernel: Kernel, number: int) -> str:
    half = kernel.outputs // 2
    parts = [model.made(half, _maps(kernel.places), number) for _ in range(2)]
    return model.node("Concat", *parts, name=f"t{number}.", axis=1)


def _pool(model: ProbeModel, kernel: Kernel, number: int) -> str:
    step, size = math.isqrt(kernel.stride), math.isqrt(kernel.window)
    data = model.made(kernel.inputs, _maps(kernel.places, step), number)
    return model.node(
        "MaxPool", data, name=f"t{number}.", kernel_shape=[size, size], strides=[step, step],
        pads=[size // 2] * 2 + [(size - 1) // 2] * 2,
    )  # fmt: skip


def _reduce(model: ProbeModel, kernel: Kernel, number: int) -> str:
    side = math.isqrt(kernel.window)
    data = model.made(kernel.inputs, (kernel.places, side, side), number)
    return model.node("ReduceMean", data, name=f"t{number}.", axes=[2, 3], keepdims=1)


def _simple(model: ProbeModel, kernel: Kernel, number: int) -> str:
    images, *sides = _maps(kernel.places)
    data = model.input(images, kernel.inputs, *sides)
    data = model.node("LeakyRelu", data, name=f"plain{number}")
    return model.node("Relu", data, name=f"t{number}.")


def _binary(model: ProbeModel, kernel: Kernel, number: int) -> str:
    """As in squeeze-and-excite: the factors come from elsewhere, one per channel."""
    images, *_ = _maps(kernel.places)
    factors = model.made(kernel.inputs, (images, 1, 1), number)
    return model.node("Mul", _planes(model, kernel, number), factors, name=f"t{number}.")


def _scale(model: ProbeModel, kernel: Kernel, number: int) -> str:
    """A BatchNormalization that cannot move into a convolution, as a pooling is in between."""
    data = _planes(model, kernel, number)
    pooled = model.node("MaxPool", data, name=f"pool{number}", kernel_shape=[1, 1])
    values = [model.numbers(np.full(kernel.inputs, 0.5)) for _ in range(4)]
    return model.node("BatchNormalization", pooled, *values, name=f"t{number}.")


def _costly(model: ProbeModel, kernel: Kernel, number: int) -> str:
    data = _planes(model, kernel, number)
    gate = model.node("Sigmoid", data, name=f"t{number}.gate")
    return model.node("Mul", data, gate, name=f"t{number}.")


def _fused(model: ProbeModel, kernel: Kernel, number: int) -> str:
    """A convolution with an activation, and one like it without, which is taken off."""
    images, *sides = _maps(kernel.places)
    data = model.input(images, _SEED, *sides)
    # Weights of their own: onnxruntime would compute two equal nodes once, and fuse nothing.
    bare, weight = (model.weight(kernel.outputs, _SEED, 1, 1) for _ in range(2))
    model.output(model.node("Conv", data, bare, name=f"t{number}.less"))
    made = model.node("Conv", data, weight, name=f"t{number}.made")
    bounds = [model.numbers(bound) for bound in (0, 6)]
    return model.node("Clip", made, *bounds, name=f"t{number}.")


def _reorder(model: ProbeModel, kernel: Kernel, number: int) -> str:
    """A plain tensor for a convolution that wants it blocked."""
    images, *sides = _maps(kernel.places)
    data = model.input(images, kernel.inputs, *sides)
    data = model.node("Relu", data, name=f"plain{number}")
    weight = model.weight(_SEED, kernel.inputs, 1, 1)
    return model.node("Conv", data, weight, name=f"made{number}")


def _overhead(model: ProbeModel, kernel: Kernel, number: int) -> str:
    data = model.node("Relu", model.input(1, kernel.inputs, 1), name=f"made{number}")
    return model.node("Reshape", data, model.constant([kernel.inputs, 1]), name=f"t{number}.")


_BUILDERS: Mapping[str, Callable[[ProbeModel, Kernel, int], str]] = {
    **dict.fromkeys((*BLOCKED, *PLAIN), _convolution),
    **dict.fromkeys(BYTES, _byte_convolution),
    "bytes_product": _byte_product,
    "product": _product,
    "gather": _gather,
    "slice": _slice,
    "gather_last": _gather,
    "slice_last": _slice,
    "concat": _concat,
    "pool": _pool,
    "pool_plain": _pool,
    "reduce": _reduce,
    "simple": _simple,
    "binary": _binary,
    "scale": _scale,
    "costly": _costly,
    "fused": _fused,
    "reorder_in": _reorder,
    "overhead": _overhead,
}


def probe_model(kernels: Sequence[Kernel], precision: str = "float32") -> onnx.ModelProto:
    """A model that runs some kernels, one after the other and none on the result of another.

    Args:
        kernels: The kernels; the nodes of the one at index n are named `tn.` and so on.
        precision: The type of their real numbers.

    Returns:
        The model.
    """
    model = ProbeModel(precision)
    for number, kernel in enumerate(kernels):
        kind = onnx.TensorProto.UINT8 if kernel.family in BYTES else None
        model.output(_BUILDERS[kernel.family](model, kernel, number), kind)
    return model.finished()


def repeated(model: onnx.ModelProto, times: int) -> onnx.ModelProto:
    """The probe of one kernel that runs it some more times, each with weights of its own.

    Args:
        model: What `probe_model` makes of one kernel.
        times: How many times more.

    Returns:
        A new model, with every further result as an output.
    """
    longer = onnx.ModelProto()
    longer.CopyFrom(model)
    graph = longer.graph
    own = [n for n in graph.node if n.name.startswith("t0.") and not n.name.endswith(_FEEDING)]
    weights = {weight.name: weight for weight in model.graph.initializer}
    for time in range(times):
        names = {node.output[0]: f"{node.output[0]}again{time}" for node in own}
        for name in dict.fromkeys(name for node in own for name in node.input if name in weights):
            # As layers of a network have: none finds its weights in the cache.
            names[name] = f"{name}again{time}"
            graph.initializer.add().CopyFrom(weights[name])
            graph.initializer[-1].name = names[name]
        for node in own:
            again = graph.node.add()
            again.CopyFrom(node)
            again.name = f"{node.name}again{time}"
            again.input[:] = [names.get(name, name) for name in node.input]
            again.output[:] = [names[name] for name in node.output]
        result = names[own[-1].output[0]]
        kind = model.graph.output[-1].type.tensor_type.elem_type
        graph.output.append(helper.make_tensor_value_info(result, kind, None))
    return longer
