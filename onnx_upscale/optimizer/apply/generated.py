"""Names that onnxruntime gives to what it adds to a graph, in models that it saved."""

from __future__ import annotations

import re

import onnx

from onnx_upscale.optimizer.apply.renaming import rename_constants
from onnx_upscale.optimizer.apply.surgery import fresh_name
from onnx_upscale.optimizer.load.subgraphs import all_names, subgraphs

# Of its fusion of MatMul and Add; `_token_` is how it tells a name from one that is there.
_GENERATED = re.compile(r"gemm_(input|output)_shape(_token_\d+)?\Z")


def rename_generated(graph: onnx.GraphProto) -> None:
    """Gives constants that onnxruntime has named other names.

    It may make them once more when it loads the model, and release 1.32 does not look for constants
    of these names then: "Attempt to replace the existing tensor". That depends on what it fuses, so
    that a model that loads says nothing of one with fewer channels.

    Args:
        graph: The main graph, which is changed.
    """
    found = [tensor.name for tensor in graph.initializer if _GENERATED.match(tensor.name)]
    if not found:
        return
    taken, seen = all_names(graph), _seen(graph)
    rename_constants(
        graph, {name: fresh_name(f"{name}.kept", taken) for name in found if name not in seen}
    )


def _seen(graph: onnx.GraphProto) -> set[str]:
    """The names of what a caller, or the node around a body, gives or takes."""
    names = {value.name for value in (*graph.input, *graph.output)}
    return names.union(*(_seen(inner) for node in graph.node for inner in subgraphs(node)))
