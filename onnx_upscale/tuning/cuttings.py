"""Cuttings: the part of an emitted model around a site, small enough to be timed by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_upscale.activations import up_to
from onnx_upscale.optimizer.load.graph import Graph
from onnx_upscale.options import Sizes
from onnx_upscale.tuning.sites import Site

Form: TypeAlias = "tuple[object, ...]"
"""What tells cuttings apart of which one takes longer: all but names and most numbers."""

_FEW_BYTES = 64
_SOME_OUTPUTS = 8
_ALONE, _BEFORE = "alone:", "before:"


def cutting(
    model: onnx.ModelProto,
    site: Site,
    graph: Graph,
    shapes: Sizes,
    blocked: Callable[[str], bool],
) -> onnx.ModelProto | None:
    """The part of an emitted model around a site.

    Where the model has convolutions before and behind, which leave tensors in onnxruntime's blocked
    layout or want them so, small ones stand for them, or else the cutting would measure changes of
    layout that the model does not make.

    Args:
        model: The emitted model.
        site: The site.
        graph: The original graph.
        shapes: The shapes of the model's inputs and of what cuttings begin with.
        blocked: Whether a tensor of the original model is in the blocked layout if all that makes
            it and reads it can be.

    Returns:
        The part, with shapes declared; None where one is not known.
    """
    part = up_to(model, [site.ends], site.begins, graph)
    made: list[onnx.NodeProto] = []
    inputs = list(part.graph.input)
    del part.graph.input[:]
    for value in inputs:
        name, kind = value.name, value.type.tensor_type.elem_type
        shape = shapes.get(name)
        if shape is None:
            return None
        if name in site.begins and blocked(name) and kind == TensorProto.FLOAT:
            made.append(_convolution(part, _ALONE + name, name, 1, shape[1]))
            name, shape = _ALONE + name, (shape[0], 1, *shape[2:])
        part.graph.input.append(helper.make_tensor_value_info(name, kind, shape))
    nodes = [*made, *part.graph.node]
    if not site.reads and blocked(site.ends):
        layer = graph.nodes[site.index]
        channels = _channels(shapes, site.ends)
        if channels is None:
            return None
        nodes.append(_convolution(part, site.ends, _BEFORE + layer.title, channels, _SOME_OUTPUTS))
        part.graph.output[0].name = _BEFORE + layer.title
    del part.graph.node[:]
    part.graph.node.extend(nodes)
    return part


def _channels(shapes: Sizes, tensor: str) -> int | None:
    shape = shapes.get(tensor, ())
    return shape[1] if len(shape) > 1 else None


def _convolution(
    part: onnx.ModelProto, given: str, made: str, inputs: int, outputs: int
) -> onnx.NodeProto:
    weight = numpy_helper.from_array(np.ones((outputs, inputs, 1, 1), np.float32), f"{made}:weight")
    part.graph.initializer.append(weight)
    return helper.make_node("Conv", [given, weight.name], [made], kernel_shape=[1, 1])


def form_of(part: onnx.ModelProto) -> Form:
    """What a cutting has in common with others that take as long."""
    numbers: dict[str, int] = {}

    def number(*names: str) -> tuple[int, ...]:
        return tuple(numbers.setdefault(name, len(numbers)) for name in names)

    def parts() -> Iterator[object]:
        for value in part.graph.input:
            yield *number(value.name), value.type.SerializeToString(deterministic=True)
        for node in part.graph.node:
            attributes = sorted(a.SerializeToString(deterministic=True) for a in node.attribute)
            named = number(*node.input), number(*node.output)
            yield node.domain, node.op_type, *named, *attributes
        for tensor in part.graph.initializer:
            few = tensor.raw_data if len(tensor.raw_data) <= _FEW_BYTES else b""
            yield *number(tensor.name), tensor.data_type, *tensor.dims, few

    return tuple(parts())
