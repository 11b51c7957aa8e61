"""One tensor in, one of the same shape out."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from onnx import TensorProto, helper

from builder import Builder
from case import Dims

ACTIVATIONS = ("Relu", "Sigmoid", "HardSigmoid", "Softplus", "Cos", "Elu", "Abs", "Tanh", "Neg")
NOT_ZERO_AT_ZERO = ("Sigmoid", "HardSigmoid", "Softplus", "Cos")


def activation(b: Builder, data: str | None = None) -> str | None:
    data = data or b.pick(b.draw(st.sampled_from([4, 2, 3])))
    if data is None:
        return None
    shape = b.shapes[data]
    op = b.draw(st.sampled_from([*ACTIVATIONS, "Clip", "Swish", "PRelu", "Dropout", "Pow"]))
    if op == "Clip":
        bounds = [b.constant(0.5), b.constant(2.0)]
        return b.one("Clip", [data, *bounds], shape)
    if op == "Swish":
        return b.one("Mul", [data, b.one("Sigmoid", [data], shape)], shape)
    if op == "PRelu":
        return b.one("PRelu", [data, per_channel(b, shape)], shape)
    if op == "Pow":
        return b.one("Pow", [data, b.constant(float(b.draw(st.integers(0, 2))))], shape)
    return b.one(op, [data], shape)


def per_channel(b: Builder, shape: Dims) -> str:
    place = 1 if len(shape) == 4 else len(shape) - 1
    count = shape[place]
    assert isinstance(count, int)
    ones = (1,) * (len(shape) - 1 - place)
    return b.constant(b.numbers(count, *ones))


def affine(b: Builder) -> None:
    data = b.pick(b.draw(st.sampled_from([4, 2, 3])))
    if data is None:
        return
    shape = b.shapes[data]
    other = b.constant(b.numbers()) if b.chance(0.3) else per_channel(b, shape)
    inputs = [data, other] if b.chance(0.7) else [other, data]
    b.one(b.draw(st.sampled_from(["Add", "Mul", "Sub"])), inputs, shape)


def batch_norm(b: Builder, data: str | None = None) -> None:
    data = data or b.pick(b.draw(st.sampled_from([4, 2])))
    if data is None:
        return
    shape = b.shapes[data]
    count = shape[1]
    assert isinstance(count, int)
    params = [b.numbers(count) for _ in range(3)] + [b.rng.uniform(0.5, 2, count)]
    inputs = [data, *(b.constant(value) for value in params)]
    b.one("BatchNormalization", inputs, shape)


def norm(b: Builder) -> None:
    op = b.draw(st.sampled_from(["Instance", "Group", "Layer", "Softmax", "Lp", "LRN"]))
    rank = 4 if op in ("Instance", "Group", "LRN") else b.draw(st.sampled_from([3, 2, 4]))
    data = b.pick(rank)
    if data is None:
        return
    shape = b.shapes[data]
    channels, width = shape[1], shape[-1]
    assert isinstance(channels, int)
    assert isinstance(width, int)
    if op == "Instance":
        inputs = [data, *(b.constant(b.numbers(channels)) for _ in range(2))]
        b.one("InstanceNormalization", inputs, shape, epsilon=0.1)
    elif op == "Group" and b.opset >= 21:
        groups = 2 if channels % 2 == 0 else 1
        inputs = [data, *(b.constant(b.numbers(channels)) for _ in range(2))]
        b.one("GroupNormalization", inputs, shape, num_groups=groups, epsilon=0.1)
    elif op == "Layer" and b.opset >= 17:
        inputs = [data, *(b.constant(b.numbers(width)) for _ in range(2))]
        b.one("LayerNormalization", inputs, shape, axis=-1, epsilon=0.1)
    elif op == "LRN":
        b.one("LRN", [data], shape, size=3, alpha=0.3)
    elif op == "Lp":
        shifted = b.one("Add", [data, b.constant(3.0)], shape)
        b.one("LpNormalization", [shifted], shape, axis=1)
    else:
        axis = b.draw(st.sampled_from([1, rank - 1]))
        b.one("Softmax", [data], shape, axis=axis)


def foreign(b: Builder) -> None:
    """An operator that no rule and no shape inference of ONNX's knows."""
    data = b.pick(4)
    if data is not None:
        out = b.one("SampleOp", [data], b.shapes[data], domain="com.microsoft")
        if b.chance(0.5):
            b.recorded.append(out)
        else:
            b.undeclared = True


def subgraph(b: Builder) -> None:
    data = b.pick(4)
    if data is None:
        return
    shape = b.shapes[data]
    branches = {}
    for key, op in (("then_branch", "Relu"), ("else_branch", "Neg")):
        out = f"{key}{len(b.nodes)}"
        info = helper.make_tensor_value_info(out, TensorProto.FLOAT, shape)
        branches[key] = helper.make_graph([helper.make_node(op, [data], [out])], key, [], [info])
    b.one("If", [b.constant(b.chance(0.5), np.bool_)], shape, **branches)
