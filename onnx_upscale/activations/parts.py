"""The part of a model that computes some tensors from others."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import onnx

from onnx_upscale.optimizer.load.graph import Graph
from onnx_upscale.optimizer.load.subgraphs import reads


def up_to(
    model: onnx.ModelProto, wanted: Sequence[str], known: Collection[str], graph: Graph
) -> onnx.ModelProto:
    """The part of a model that computes some tensors from others.

    Args:
        model: The model.
        wanted: What it is to compute.
        known: What is there already; what is wanted of that is left out.
        graph: Says of which type tensors are.

    Returns:
        A new model, with what it reads of `known` as its inputs.
    """
    ends = [name for name in dict.fromkeys(wanted) if name not in known]
    needed, nodes = set(ends), []
    for node in reversed(model.graph.node):
        if any(name in needed and name not in known for name in node.output):
            nodes.append(node)
            needed.update(reads(node))
    part = onnx.ModelProto(ir_version=model.ir_version)
    part.opset_import.extend(model.opset_import)
    part.functions.extend(model.functions)
    part.graph.name = model.graph.name or "graph"
    part.graph.node.extend(reversed(nodes))
    part.graph.initializer.extend(t for t in model.graph.initializer if t.name in needed)
    part.graph.sparse_initializer.extend(model.graph.sparse_initializer)
    given = {value.name: value for value in model.graph.input}
    # Models of IR version 3 list their initializers among the inputs.
    for name in (*given, *sorted(set(known).difference(given))):
        if name in needed:
            part.graph.input.append(given.get(name) or _typed(name, graph))
    others = {v.name: v for v in model.graph.output if not v.type.HasField("tensor_type")}
    part.graph.output.extend(others.get(name) or _typed(name, graph) for name in ends)
    return part


def _typed(name: str, graph: Graph) -> onnx.ValueInfoProto:
    kind = graph.types.get(name, onnx.TensorProto.FLOAT)
    return onnx.helper.make_tensor_value_info(name, kind, None)
