"""Local functions, in whose place the nodes that they stand for are taken."""

from __future__ import annotations

import onnx
from onnx import inliner

from onnx_upscale.protobuf import copy_fields


def inline_functions(model: onnx.ModelProto) -> None:
    """Replaces calls of a model's functions by their nodes, as onnxruntime does when it loads it.

    A node gets the name that it has in its function, two underscores and a number, so that those
    of several calls differ. Where a function is written in another operator set than the model, all
    functions stay as they are: what onnx makes of such a one is another function, and nothing would
    show that it is an equal one.

    Args:
        model: The model, which is changed.
    """
    if not model.functions:
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
        inlined = inliner.inline_local_functions(slim)
    except Exception:  # Whatever C++ has against the model, which may run as it is.
        return
    if inlined.functions:
        return
    del model.functions[:], model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(inlined.graph.node)
    model.graph.value_info.extend(inlined.graph.value_info)
    for each in inlined.opset_import:
        if each.domain not in {known.domain for known in model.opset_import}:
            model.opset_import.append(each)
