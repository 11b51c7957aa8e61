"""The emitted model: all of the original that was not changed, byte for byte, and the rest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from onnx_upscale.optimizer.apply.surgery import Surgery
from onnx_upscale.optimizer.load.shapes import infer, skeleton
from onnx_upscale.protobuf import copy_fields


@dataclass(frozen=True)
class Emitted:
    """A model that was made of another one.

    Attributes:
        model: The model.
        added: Names of the nodes in it that the original does not have.
        gone: Operators of the nodes of the original that it does not have.
    """

    model: onnx.ModelProto
    added: tuple[str, ...]
    gone: tuple[str, ...]


def emit(surgery: Surgery, reshaped: Iterable[str]) -> Emitted:
    """Builds the model.

    graphsurgeon's own export would lose metadata, doc strings and quantization annotations of
    nodes, graph and model. Here each node and tensor that was there before is copied from the
    original, with its new wiring, and only new ones are exported.

    Args:
        surgery: The graph after all changes.
        reshaped: Tensors whose shape is no longer the original one.

    Returns:
        The model, and how its nodes differ from the original's.
    """
    original = surgery.graph.model
    emitted = onnx.ModelProto()
    copy_fields(original, emitted, leave={"graph"})
    graph = emitted.graph
    copy_fields(original.graph, graph, leave={"node", "initializer", "value_info", "input"})
    nodes, read = _without_dead(surgery)
    new: dict[str, gs.Constant] = {}
    for index, node in nodes:
        new.update({t.name: t for t in node.inputs if isinstance(t, gs.Constant)})
        if index is None:
            graph.node.append(OnnxExporter.export_node(node))
        else:
            _copy_node(surgery.graph.nodes[index].proto, node, graph.node.add())
            for attribute in graph.node[-1].attribute:
                if attribute.name in surgery.bodies.get(index, ()):
                    attribute.g.CopyFrom(surgery.bodies[index][attribute.name])
    _copy_initializers(surgery, read, new, graph)
    _copy_inputs(original, graph)
    _refresh_shapes(original, emitted, set(reshaped))
    kept = {index for index, _ in nodes}
    return Emitted(
        emitted,
        added=tuple(node.name for index, node in nodes if index is None),
        gone=tuple(node.op for node in surgery.graph.nodes if node.index not in kept),
    )


def _without_dead(surgery: Surgery) -> tuple[list[tuple[int | None, gs.Node]], set[str]]:
    """Leaves out nodes that only served what was removed; those that served nobody before stay.

    Returns:
        The others, and the names that they or a caller read.
    """
    graph = surgery.graph
    read, kept = set(graph.outputs), []
    for index, node in reversed(surgery.in_order()):
        idle = index is not None and not any(
            name in graph.readers or name in graph.outputs or name in graph.captured
            for name in graph.nodes[index].outputs
        )
        if idle or any(tensor.name in read for tensor in node.outputs):
            kept.append((index, node))
            read.update(tensor.name for tensor in node.inputs)
            read |= set() if index is None else surgery.captured(index)
    return kept[::-1], read


def _copy_node(original: onnx.NodeProto, node: gs.Node, target: onnx.NodeProto) -> None:
    target.CopyFrom(original)
    del target.input[:]
    del target.output[:]
    target.input.extend(tensor.name for tensor in node.inputs)
    target.output.extend(tensor.name for tensor in node.outputs)
    for name, value in node.attrs.items():
        kept = [attribute for attribute in target.attribute if attribute.name != name]
        if len(kept) < len(target.attribute):
            del target.attribute[:]
            target.attribute.extend(kept)
        if value is not None:
            target.attribute.append(onnx.helper.make_attribute(name, value))


def _copy_initializers(
    surgery: Surgery, read: set[str], new: dict[str, gs.Constant], target: onnx.GraphProto
) -> None:
    """Initializers that are read, and those that no node read before either, in their old order."""
    graph = surgery.graph
    read = read.union(
        entry.value
        for annotation in graph.model.graph.quantization_annotation
        for entry in annotation.quant_parameter_tensor_names
    )
    for tensor in graph.model.graph.initializer:
        if tensor.name in new:
            replaced = target.initializer.add()
            _move(new.pop(tensor.name), replaced)
            copy_fields(tensor, replaced, leave=_TENSOR_CONTENT)
        elif tensor.name in read or not (
            tensor.name in graph.readers or tensor.name in graph.captured
        ):
            target.initializer.append(tensor)
    for constant in new.values():
        _move(constant, target.initializer.add())
    target.initializer.extend(tensor for tensor in surgery.constants if tensor.name in read)


def _move(constant: gs.Constant, target: onnx.TensorProto) -> None:
    """Writes a constant, which loses its values, as all of them would be in memory twice."""
    target.CopyFrom(OnnxExporter.export_tensor_proto(constant))
    constant.values = np.empty(0)


_TENSOR_CONTENT = {
    field.name
    for field in onnx.TensorProto.DESCRIPTOR.fields
    if field.name not in ("doc_string", "metadata_props")
}


def _copy_inputs(original: onnx.ModelProto, graph: onnx.GraphProto) -> None:
    """Graph inputs; models of IR version 3 list their initializers there as well."""
    present = {tensor.name: tensor for tensor in graph.initializer}
    before = {tensor.name for tensor in original.graph.initializer}
    for value in original.graph.input:
        if original.ir_version >= 4 or value.name not in before:
            graph.input.append(value)
        elif value.name in present:
            graph.input.append(value)
            _set_dims(graph.input[-1], present[value.name].dims)
    if original.ir_version < 4:
        listed = {value.name for value in graph.input}
        graph.input.extend(
            onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
            for name, tensor in present.items()
            if name not in listed
        )


def _set_dims(value: onnx.ValueInfoProto, dims: Any) -> None:
    shape = value.type.tensor_type.shape
    if [dim.dim_value for dim in shape.dim] != list(dims):
        del shape.dim[:]
        for size in dims:
            shape.dim.add().dim_value = size


def _refresh_shapes(
    original: onnx.ModelProto, emitted: onnx.ModelProto, reshaped: set[str]
) -> None:
    """Keeps what is still true of the recorded shapes, and infers the others anew."""
    names = {name for node in emitted.graph.node for name in node.output}
    sizes = {tensor.name: tensor.dims for tensor in emitted.graph.initializer}
    stale: dict[str, onnx.ValueInfoProto] = {}
    for value in original.graph.value_info:
        if value.name in reshaped:
            stale[value.name] = value
        elif value.name in sizes:
            emitted.graph.value_info.append(value)
            _set_dims(emitted.graph.value_info[-1], sizes[value.name])
        elif value.name in names:
            emitted.graph.value_info.append(value)
    known = {value.name for value in original.graph.value_info} | {
        name for node in original.graph.node for name in node.output
    }
    added = names - known
    if not stale and not added:
        return
    found = {value.name: value for value in infer(skeleton(emitted)).model.graph.value_info}
    for name, value in stale.items():
        if name in found:
            emitted.graph.value_info.append(value)
            emitted.graph.value_info[-1].type.CopyFrom(found[name].type)
    if original.graph.value_info:
        emitted.graph.value_info.extend(found[name] for name in sorted(added & found.keys()))
