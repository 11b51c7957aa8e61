"""Shapes and types as onnx infers them, without moving the weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx
from onnx import shape_inference

from onnx_upscale.declared import Shape, shape_of
from onnx_upscale.optimizer.load.subgraphs import subgraphs

# Constants up to this many elements can hold shapes, axes and pads; larger ones are weights.
_SHAPE_ELEMENTS = 1024
# Longer than the largest vocabularies, which have a bias each.
_LONG_VECTOR = 1 << 18
NO_NAMES = frozenset({"None", "?", "-1", "unk", "unknown", "dynamic"})
"""What some converters call every size that they do not know, so that two need not be equal."""


def skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its large weights replaced by inputs of the same type and shape.

    Shape inference serializes the model it is given, so weights would be copied twice for nothing.
    """
    slim = onnx.ModelProto(ir_version=max(model.ir_version, 4))
    slim.opset_import.extend(model.opset_import)
    slim.functions.extend(model.functions)
    graph = model.graph
    slim.graph.name = graph.name or "graph"
    slim.graph.node.extend(graph.node)
    slim.graph.input.extend(graph.input)
    slim.graph.output.extend(graph.output)
    slim.graph.value_info.extend(graph.value_info)
    slim.graph.sparse_initializer.extend(graph.sparse_initializer)
    listed = {value.name for value in graph.input}
    for tensor in graph.initializer:
        if tensor.name in listed and model.ir_version >= 4:
            continue  # A caller may give another value, so that this one tells nothing.
        elements = 1
        for size in tensor.dims:
            elements *= size
        if elements <= _SHAPE_ELEMENTS and tensor.data_location != onnx.TensorProto.EXTERNAL:
            slim.graph.initializer.append(tensor)
        elif tensor.name not in listed:
            slim.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    return slim


def is_fixed(shape: Shape | None) -> bool:
    """Whether every size of a shape is known as a number."""
    return shape is not None and all(isinstance(size, int) for size in shape)


def with_shapes(slim: onnx.ModelProto) -> onnx.ModelProto:
    """Runs shape inference, and lets values follow through shape arithmetic where that is cheap.

    onnx keeps a record per element for every vector that it follows, so that one node which makes a
    long vector, such as a Range, would fill the memory.

    Args:
        slim: A model without large weights.

    Returns:
        It with what was found; as it is where onnx does not know an operator, so that what the
        model itself says must do.
    """
    try:
        plain = shape_inference.infer_shapes(slim)
        if _has_all_sizes(plain.graph, slim.graph) or _has_long_vector(plain.graph):
            return plain
        return shape_inference.infer_shapes(slim, data_prop=True)
    except (shape_inference.InferenceError, RuntimeError, ValueError):
        return slim


def _has_all_sizes(graph: onnx.GraphProto, declared: onnx.GraphProto) -> bool:
    """Whether every size is a number or has the name of an input's, in a graph without bodies.

    Outputs may have names of their own, as exporters give them.
    """
    named, own = _names(declared.input), _names(declared.output)
    outputs = {value.name for value in graph.output}
    known = set()
    for value in (*graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        names = named | own if value.name in outputs else named
        sizes = (dim.dim_value or dim.dim_param in names for dim in tensor.shape.dim)
        if all(sizes) and tensor.HasField("shape"):
            known.add(value.name)
    made = (name for node in graph.node for name in node.output if name)
    return known.issuperset(made) and not any(True for n in graph.node for _ in subgraphs(n))


def _names(values: Iterable[onnx.ValueInfoProto]) -> set[str]:
    sizes = (dim.dim_param for value in values for dim in value.type.tensor_type.shape.dim)
    return set(sizes) - {"", *NO_NAMES}


def _has_long_vector(graph: onnx.GraphProto) -> bool:
    values = (*graph.value_info, *graph.output, *graph.input)
    shapes = (value.type.tensor_type.shape.dim for value in values)
    return any(len(dims) == 1 and dims[0].dim_value > _LONG_VECTOR for dims in shapes)


def shapes_in(
    slim: onnx.ModelProto, model: onnx.ModelProto
) -> tuple[Mapping[str, Shape], Mapping[str, int]]:
    """Collects the shapes and types of a model after shape inference.

    Args:
        slim: The model without large weights, as `with_shapes` gives it.
        model: The model with them.

    Returns:
        Shapes and element types (`TensorProto.DataType`) by tensor name. A size is an int, the
        name of a symbolic dimension, or None where nothing is known.
    """
    shapes: dict[str, Shape] = {}
    types: dict[str, int] = {}
    for value in [*slim.graph.value_info, *slim.graph.output, *slim.graph.input]:
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type"):
            continue
        types[value.name] = tensor.elem_type
        if tensor.HasField("shape"):
            shapes[value.name] = shape_of(value)
    for initializer in model.graph.initializer:
        shapes[initializer.name] = tuple(initializer.dims)
        types[initializer.name] = initializer.data_type
    return shapes, types
