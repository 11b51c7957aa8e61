"""Torch's parameter names for the weights of an exported model.

Exporters lose names where they compute a weight: where they fold its transpose, and where several
parameters hold the same values, which they store once. Masks name layers by their weights, so here
every layer gets back a weight of its own, under the name of the parameter it was made from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from onnx_upscale.optimizer.load.layers import LAYER_OPERATORS
from onnx_upscale.optimizer.load.subgraphs import names_read
from onnx_upscale.optimizer.load.values import Array

_SCOPES = "pkg.torch.onnx.name_scopes"


def name_weights(model: onnx.ModelProto, parameters: Mapping[str, Array]) -> None:
    """Renames weights after the parameters that have their values.

    Args:
        model: A model, which is changed.
        parameters: The parameters of the torch model, by name; shared ones once.
    """
    graph = model.graph
    _store_what_identities_repeat(graph)
    stored = {tensor.name: tensor for tensor in graph.initializer}
    names = _names_by_content(parameters)
    for node in graph.node:
        operator = LAYER_OPERATORS.get((node.domain, node.op_type))
        for slot in operator.weight_slots if operator is not None else ():
            tensor = stored.get(node.input[slot])
            if tensor is None or len(tensor.dims) < 2:
                continue
            name = _best(names.get(_digest(numpy_helper.to_array(tensor)), ()), node, tensor.name)
            if name not in stored:
                stored[name] = graph.initializer.add()
                stored[name].CopyFrom(tensor)
                stored[name].name = name
            elif tensor.raw_data != stored[name].raw_data or tensor.dims != stored[name].dims:
                continue  # Two layouts of one parameter; only one can have its name.
            node.input[slot] = name
    _drop_unread(graph)


def _store_what_identities_repeat(graph: onnx.GraphProto) -> None:
    stored = {tensor.name: tensor for tensor in graph.initializer}
    results = {value.name for value in graph.output}
    for node in list(graph.node):
        if node.op_type == "Identity" and node.input[0] in stored and node.output[0] not in results:
            again = graph.initializer.add()
            again.CopyFrom(stored[node.input[0]])
            again.name = node.output[0]
            stored[again.name] = again
            graph.node.remove(node)


def _names_by_content(parameters: Mapping[str, Array]) -> dict[bytes, list[str]]:
    """Parameters by a digest of their values, and of those transposed, as linear layers are."""
    names: dict[bytes, list[str]] = {}
    for name, values in parameters.items():
        if values.ndim < 2:
            continue
        names.setdefault(_digest(values), []).append(name)
        if values.ndim == 2 and _digest(values.T) != _digest(values):
            names.setdefault(_digest(values.T), []).append(name)
    return names


def _digest(values: Array) -> bytes:
    content = hashlib.sha256(f"{values.dtype} {values.shape}".encode())
    content.update(np.ascontiguousarray(values).tobytes())
    return content.digest()


def _best(names: list[str] | tuple[()], node: onnx.NodeProto, stored: str) -> str:
    """Which of the parameters with the same values a node reads; the stored name if none has them.

    That of the innermost module around the node; the name that is stored already wins a tie.
    """

    def depth(name: str) -> tuple[int, bool]:
        around = [module for module in modules if name.startswith(f"{module}.")]
        return max(map(len, around), default=0), name == stored

    modules = tuple(modules_around(node))
    return max(names, key=depth, default=stored)


def modules_around(node: onnx.NodeProto) -> Iterator[str]:
    """The paths of the modules around a node, as far as the exporters tell."""
    for entry in node.metadata_props:
        if entry.key == _SCOPES:  # Such as "['', 'layer1.0', 'layer1.0.conv1', 'conv2d_1']".
            yield from (part.strip(" '\"") for part in entry.value.strip("[]").split(","))
    path, last = "", ""
    for part in node.name.strip("/").split("/")[:-1]:  # Such as "/layer1/layer1.0/conv1/Conv".
        own = part.removeprefix(f"{last}.") if last else part
        path, last = f"{path}.{own}" if path else own, part
        yield path


def _drop_unread(graph: onnx.GraphProto) -> None:
    read = names_read(graph)
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
