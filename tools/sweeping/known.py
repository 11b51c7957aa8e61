"""What of a model is known before it gets inputs, found without any code of the package."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import numpy_helper

from build import Array
from masked import reads
from sweeping.compare import tensors

# What is drawn is no constant, and what is no tensor cannot be an initializer.
_NOT_FOLDED = ("Random", "Bernoulli", "Multinomial", "Dropout", "Sequence", "Optional")


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with a name of its own for each node, as not every exporter gives one."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for index, node in enumerate(copy.graph.node):
        node.name = f"{index}:{node.op_type}"
    return copy


def constants(graph: onnx.GraphProto) -> set[str]:
    """Tensors that do not depend on any input."""
    found = {tensor.name for tensor in graph.initializer} - {each.name for each in graph.input}
    for node in graph.node:
        if node.op_type.startswith(_NOT_FOLDED) or any(a.HasField("g") for a in node.attribute):
            continue
        if all(name in found for name in node.input if name):
            found.update(filter(None, node.output))
    return found


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with initializers for what its nodes compute from constants.

    Some exporters leave to nodes what others write as an initializer: the contract means both where
    it speaks of constants.
    """
    constant = constants(model.graph)
    stays = [node for node in model.graph.node if not constant.issuperset(node.output)]
    read = {name for node in stays for name in reads(node)}
    read.update(value.name for value in model.graph.output)
    made = {name for node in model.graph.node for name in node.output if name}
    wanted = sorted(read & constant & made)
    if not wanted:
        return model
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    del cut.graph.node[:], cut.graph.input[:]
    cut.graph.node.extend(node for node in model.graph.node if node not in stays)
    (values,) = tensors(cut, wanted, [{}])
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    copy.graph.node.extend(stays)
    for name, value in zip(wanted, values, strict=True):
        copy.graph.initializer.append(numpy_helper.from_array(value, name))
    return copy


def shapes(
    model: onnx.ModelProto, sample: Mapping[str, Array] | None = None
) -> dict[str, tuple[int, ...]]:
    """The shapes that onnx's own inference finds; 0 for a size that is open.

    Args:
        model: Any model.
        sample: For a run that shows the shapes of products where inference does not know them.
    """
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    found = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    for value in (*inferred.input, *inferred.value_info, *inferred.output):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            found[value.name] = tuple(dim.dim_value for dim in dims)
    products = [node.output[0] for node in model.graph.node if node.op_type == "MatMul"]
    unknown = [name for name in products if name not in found]
    if sample is not None and unknown:
        (values,) = tensors(model, unknown, [sample])
        found.update((name, value.shape) for name, value in zip(unknown, values, strict=True))
    return found


def attributes(node: onnx.NodeProto) -> Mapping[str, object]:
    """The attributes of a node, by name."""
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
