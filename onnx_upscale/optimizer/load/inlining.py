"""Local functions, in whose place the nodes that they stand for are taken."""

from __future__ import annotations

import onnx
from onnx import inliner

from onnx_upscale.protobuf import copy_fields

SPARED: set[tuple[str, str]] = set()
"""Operators, by domain and name, whose functions stay, for somebody has a rule for their calls."""


def inline_functions(model: onnx.ModelProto) -> None:
    """Replaces calls of a model's functions by their nodes, as onnxruntime does when it loads it.

    A node gets the name that it has in its function, two underscores and a number, so that those
    of several calls differ. Where a function is written in another operator set than the model, all
    functions stay as they are: what onnx makes of such a one is another function, and nothing would
    show that it is an equal one.

    Args:
        model: The model, which is changed.
    """
    functions = {(function.domain, function.name) for function in model.functions}
    if not any((node.domain, node.op_type) in functions - SPARED for node in model.graph.node):
        return
    # The weights stay here, for onnx takes a model as bytes, of which there are 2 GB at most.
    slim = onnx.ModelProto()
    copy_fields(model, slim, {"graph"})
    copy_fields(model.graph, slim.graph, {"initializer"})
    slim.graph.initializer.extend(
        onnx.TensorProto(name=each.name, data_type=each.data_type, dims=each.dims)
        for each in model.graph.initializer
    )
    try:
        inlined = inliner.inline_selected_functions(slim, sorted(SPARED & functions), exclude=True)
    except Exception:  # Whatever C++ has against the model, which may run as it is.
        return
    if {(function.domain, function.name) for function in inlined.functions} - SPARED:
        return
    del model.functions[:], model.graph.node[:], model.graph.value_info[:]
    model.functions.extend(inlined.functions)
    model.graph.node.extend(inlined.graph.node)
    model.graph.value_info.extend(inlined.graph.value_info)
    known = {each.domain for each in model.opset_import}
    model.opset_import.extend(each for each in inlined.opset_import if each.domain not in known)
