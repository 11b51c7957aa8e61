"""How large a model is and how much it computes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx
from onnx import helper

from onnx_upscale.optimizer.load.layers import multiply_adds
from onnx_upscale.optimizer.load.shapes import Shape, shape_of, skeleton, with_shapes


@dataclass(frozen=True)
class Stats:
    """Size and work of a model, at given input sizes.

    Attributes:
        nodes: Count of nodes.
        params: Count of weights.
        macs: Multiply-adds of convolutions and matrix products per inference.
        copies: Count of the nodes asked about.
        copied_bytes: What they write per inference.
    """

    nodes: int
    params: int
    macs: int
    copies: int
    copied_bytes: int


def measure(
    model: onnx.ModelProto, sizes: Mapping[str, tuple[int, ...]], copies: Iterable[str] = ()
) -> Stats:
    """Measures a model without running it.

    Args:
        model: The model.
        sizes: Shapes of its inputs.
        copies: Names of nodes whose output is to be counted as copied.

    Returns:
        Its size and work. What cannot be known counts as nothing.
    """
    shapes = _shapes_at(model, sizes)
    known = {name: shape for name, (shape, _) in shapes.items()}
    names = set(copies)
    added = [node for node in model.graph.node if node.name in names]
    return Stats(
        nodes=len(model.graph.node),
        params=sum(math.prod(tensor.dims) for tensor in model.graph.initializer),
        macs=sum(multiply_adds(node, known) for node in model.graph.node),
        copies=sum(node.op_type in _COPIES for node in added),
        copied_bytes=sum(_bytes(node, shapes) for node in added if node.op_type in _COPIES),
    )


_COPIES = frozenset({"Slice", "Gather", "Pad", "Concat", "Split"})


def _shapes_at(
    model: onnx.ModelProto, sizes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[Shape, int]]:
    slim = skeleton(model)
    bound: dict[str, int] = {}
    for value in slim.graph.input:
        for dim, size in zip(
            value.type.tensor_type.shape.dim, sizes.get(value.name, ()), strict=False
        ):
            if dim.dim_param:
                bound[dim.dim_param] = size
            dim.dim_value = size
    del slim.graph.value_info[:]
    for value in slim.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in bound:
                dim.dim_value = bound[dim.dim_param]
    slim = with_shapes(slim)
    known = {
        value.name: (shape_of(value), value.type.tensor_type.elem_type)
        for value in [*slim.graph.value_info, *slim.graph.output, *slim.graph.input]
    }
    known.update((t.name, (tuple(t.dims), t.data_type)) for t in model.graph.initializer)
    return known


def _volume(shapes: Mapping[str, tuple[Shape, int]], name: str) -> int:
    shape, _ = shapes.get(name, ((0,), 0))
    return math.prod(size if isinstance(size, int) else 0 for size in shape)


def _bytes(node: onnx.NodeProto, shapes: Mapping[str, tuple[Shape, int]]) -> int:
    kind = shapes.get(node.output[0], ((), 0))[1] or onnx.TensorProto.FLOAT
    return _volume(shapes, node.output[0]) * int(helper.tensor_dtype_to_np_dtype(kind).itemsize)
