"""Shapes and types of the tensors in a body, as onnx infers them and as weights fit.

A body may not run on the inputs at hand, so that no run shows what is in it. onnx's own inference
says what it can, given the body behind all that runs before it; what a layer reads and makes, its
weight tells as well.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator

import onnx
from onnx import helper, shape_inference

from onnx_upscale.optimizer.verify.scopes import Scope
from onnx_upscale.optimizer.verify.shown import Shown
from onnx_upscale.optimizer.verify.wiring import (
    ATTENTION,
    CONVOLUTIONS,
    PRODUCTS,
    QUANTIZED,
    RECURRENT,
    Wiring,
    integer_attribute,
    operator_of,
)

_FEW = 1024
"""What has more elements is a weight, of which the shape alone matters."""


def told_by_onnx(model: onnx.ModelProto, wiring: Wiring, masked: Iterable[int]) -> Shown:
    """What follows without a run; sizes that stay open are 0.

    Args:
        model: The model.
        wiring: A body in it.
        masked: The masked layers.
    """
    alone = _alone(model, wiring.scope)
    with contextlib.suppress(Exception):  # Of several classes; then weights must do.
        alone = shape_inference.infer_shapes(alone, data_prop=True)
    shapes: dict[str, tuple[int, ...]] = {}
    types = {}
    graph = alone.graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.elem_type:
            types[value.name] = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if tensor.HasField("shape"):
            shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
    for stored in graph.initializer:
        shapes[stored.name] = tuple(stored.dims)
        types[stored.name] = helper.tensor_dtype_to_np_dtype(stored.data_type)
    for index in masked:
        node = wiring.nodes[index]
        slot, data = wiring.slots(node)
        if node.input[slot] not in shapes:
            continue
        weight = shapes[node.input[slot]]
        for name, axis, size, rank in _fitting(node, slot, data, weight):
            shape = list(shapes.get(name, (0,) * rank))
            if shape:
                shape[axis] = size
                shapes[name] = tuple(shape)
            if operator_of(node) not in QUANTIZED:
                types.setdefault(name, types[node.input[slot]])
    return Shown(wiring, shapes, types)


def _alone(model: onnx.ModelProto, scope: Scope) -> onnx.ModelProto:
    """A body behind all that runs before it, as a model."""
    alone = onnx.ModelProto(ir_version=max(model.ir_version, 4), opset_import=model.opset_import)
    alone.functions.extend(model.functions)
    graph = alone.graph
    graph.name = "body"
    graph.node.extend(scope.nodes)
    graph.output.extend(scope.graphs[-1].output)
    for each in scope.graphs:
        graph.input.extend(each.input)
        graph.value_info.extend(each.value_info)
        for tensor in each.initializer:
            if math.prod(tensor.dims) <= _FEW and tensor.name not in scope.defaults:
                graph.initializer.append(tensor)
            elif tensor.name not in {value.name for value in each.input}:
                value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
                graph.input.append(value)
    return alone


def _fitting(
    node: onnx.NodeProto, slot: int, data: int, weight: tuple[int, ...]
) -> Iterator[tuple[str, int, int, int]]:
    """Of what a layer reads and makes: its name, the axis of channels, their count, and the rank.

    The rank is 0 where a weight does not tell it.
    """
    rank = len(weight)
    if operator_of(node) in CONVOLUTIONS:
        groups = integer_attribute(node, "group", 1)
        inputs, outputs = weight[1] * groups, weight[0]
        if node.op_type == "ConvTranspose":
            inputs, outputs = weight[0], weight[1] * groups
        yield node.input[data], 1, inputs, rank
        yield node.output[0], 1, outputs, rank
    elif operator_of(node) in RECURRENT:
        yield node.input[data], -1, weight[-1], rank
    elif operator_of(node) == ATTENTION:
        yield node.input[data], -1, weight[0], 3
    elif operator_of(node) in PRODUCTS and slot == 1 and rank > 1:
        turned = integer_attribute(node, "transB", 0)
        rows, columns = weight[:-3:-1] if turned else weight[-2:]
        if not integer_attribute(node, "transA", 0):
            yield node.input[data], -1, rows, 2  # Whatever the rank, it is the last axis.
        yield node.output[0], -1, columns, 2 if node.op_type == "Gemm" else 0
