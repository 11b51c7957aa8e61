"""Shapes and types as onnx infers them, without moving the weights."""

from __future__ import annotations

from functools import cached_property

import onnx
from onnx import shape_inference

from onnx_upscale.declared import Shape, shape_of
from onnx_upscale.optimizer.load.known import is_known, names_in
from onnx_upscale.optimizer.load.subgraphs import subgraphs

# Constants up to this many elements can hold shapes, axes and pads; larger ones are weights.
_SHAPE_ELEMENTS = 1024
# Longer than the largest vocabularies, which have a bias each.
_LONG_VECTOR = 1 << 18


class Inferred:
    """What a model says of its tensors after shape inference.

    Args:
        model: The model, without large weights.

    Attributes:
        model: The same.
        shapes: Shapes by tensor name.
        types: Element types (`TensorProto.DataType`) by tensor name.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.shapes: dict[str, Shape] = {}
        self.types: dict[str, int] = {}
        graph = model.graph
        for value in (*graph.value_info, *graph.output, *graph.input):
            if not value.type.HasField("tensor_type"):
                continue
            tensor = value.type.tensor_type
            self.types[value.name] = tensor.elem_type
            if tensor.HasField("shape"):
                self.shapes[value.name] = shape_of(value)

    @cached_property
    def open(self) -> list[str]:
        """What nodes make, but for what has numbers and names of the inputs' sizes only."""
        made = (name for node in self.model.graph.node for name in node.output if name)
        return [name for name in made if not is_known(self.shapes.get(name), self._names)]

    @cached_property
    def _names(self) -> frozenset[str]:
        return names_in(self.shapes.get(value.name, ()) for value in self.model.graph.input)

    def is_all(self, declared: onnx.GraphProto) -> bool:
        """Whether nothing can be added, in a graph without bodies.

        Outputs may have names of their own, as exporters give them.

        Args:
            declared: What the model said of its outputs before.
        """
        graph = self.model.graph
        if not {value.name for value in graph.output}.issuperset(self.open):
            return False
        names = self._names | names_in(map(shape_of, declared.output))
        return all(is_known(self.shapes.get(name), names) for name in self.open) and not any(
            True for node in graph.node for _ in subgraphs(node)
        )

    def has_long_vector(self) -> bool:
        """Whether onnx would take long to follow values."""
        vectors = (shape[0] for shape in self.shapes.values() if len(shape) == 1)
        return any(isinstance(size, int) and size > _LONG_VECTOR for size in vectors)


def infer(slim: onnx.ModelProto) -> Inferred:
    """Runs shape inference, and lets values follow through shape arithmetic where that is cheap.

    onnx keeps a record per element for every vector that it follows, so that one node which makes a
    long vector, such as a Range, would fill the memory.

    Args:
        slim: A model without large weights.

    Returns:
        What was found; what the model itself says where onnx does not know an operator.
    """
    try:
        plain = Inferred(shape_inference.infer_shapes(slim))
        if plain.is_all(slim.graph) or plain.has_long_vector():
            return plain
        return Inferred(shape_inference.infer_shapes(slim, data_prop=True))
    except (shape_inference.InferenceError, RuntimeError, ValueError):
        return Inferred(slim)


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
