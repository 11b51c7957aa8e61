"""Constants of the main graph under other names."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from onnx_upscale.optimizer.load.subgraphs import names_captured, subgraphs


def rename_constants(graph: onnx.GraphProto, renamed: Mapping[str, str]) -> None:
    """Renames constants, and has all that speak of them follow.

    Args:
        graph: The main graph, which is changed.
        renamed: New names by the old ones.
    """
    if not renamed:
        return
    for tensor in graph.initializer:
        tensor.name = renamed.get(tensor.name, tensor.name)
    for value in (*graph.input, *graph.value_info):  # Old models list constants as inputs.
        value.name = renamed.get(value.name, value.name)
    for annotation in graph.quantization_annotation:
        annotation.tensor_name = renamed.get(annotation.tensor_name, annotation.tensor_name)
        for entry in annotation.quant_parameter_tensor_names:
            entry.value = renamed.get(entry.value, entry.value)
    _rename_read(graph, renamed)


def _rename_read(graph: onnx.GraphProto, renamed: Mapping[str, str]) -> None:
    for node in graph.node:
        for slot, name in enumerate(node.input):
            if name in renamed:
                node.input[slot] = renamed[name]
        for inner in subgraphs(node):
            outside = names_captured(inner)  # Its own may have the same names.
            _rename_read(inner, {old: new for old, new in renamed.items() if old in outside})
