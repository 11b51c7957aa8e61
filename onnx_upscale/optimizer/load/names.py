"""The names that people know layers by: patterns may use them, mask files may not."""

from __future__ import annotations

import ast

from onnx_upscale.optimizer.load.affine import addends
from onnx_upscale.optimizer.load.graph import Graph, Node
from onnx_upscale.optimizer.load.keys import layer_key
from onnx_upscale.optimizer.load.layers import Layer


def names_of(graph: Graph, layer: Layer) -> tuple[str, ...]:
    """Every name of a layer.

    1. What a mask file calls it; its node; its output.
    2. The parameter that is its bias, or that an Add right behind it adds: exporters rename the
       weights of matrix products (`val_27`, `onnx::MatMul_432`), not their biases. From either
       parameter the other one and their module.
    3. The module that it comes from, where the exporter says so in the metadata of the node.

    Args:
        graph: The graph.
        layer: The layer.

    Returns:
        The names, each once.

    Raises:
        MaskError: No name means the layer alone, so that no mask can.
    """
    node = layer.node
    found = [layer_key(graph, layer), node.proto.name, node.outputs[0]]
    for addend in addends(graph, layer):
        adding = graph.nodes[addend.use[0]]
        if adding.op == "BatchNormalization":
            break
        if addend.start is None:
            found.append(adding.input(addend.use[1]))
    for name in list(found):
        module, _, kind = name.rpartition(".")
        if module and kind in ("weight", "bias"):
            found += [module, f"{module}.weight", f"{module}.bias"]
    found.append(_module(node))
    return tuple(dict.fromkeys(name for name in found if name))


def _module(node: Node) -> str:
    """The innermost module around a node, as torch names it."""
    said = {each.key: each.value for each in node.proto.metadata_props}
    scopes = _listed(said.get("pkg.torch.onnx.name_scopes", ""))
    if not scopes:
        scopes = [part.partition(":")[0] for part in said.get("namespace", "").split("/")]
    return next((scope for scope in reversed(scopes[:-1]) if scope), "")  # The last is the call.


def _listed(text: str) -> list[str]:
    """The texts in a list that is written as Python writes it."""
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    return [str(each) for each in found] if isinstance(found, list) else []
