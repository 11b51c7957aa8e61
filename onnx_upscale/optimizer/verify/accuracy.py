"""Models in which no product rounds what it reads, although it may.

MatMulNBits may be told to round its activations to whole numbers of 8 bits first. Whether two
models compute the same shows only where both compute as well as they can.
"""

from __future__ import annotations

import onnx

from onnx_upscale.optimizer.verify.wiring import operator_of

_PRODUCT = ("com.microsoft", "MatMulNBits")
_ALLOWS = "accuracy_level"


def at_full_accuracy(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, without leave to compute less exactly.

    Args:
        model: The model, which is not changed.

    Returns:
        A new model, or the same where nothing in it has such leave.
    """
    if not any(_is_told(node) for node in model.graph.node):
        return model
    exact = onnx.ModelProto()
    exact.CopyFrom(model)
    for node in exact.graph.node:
        if _is_told(node):
            kept = [each for each in node.attribute if each.name != _ALLOWS]
            del node.attribute[:]
            node.attribute.extend(kept)
    return exact


def _is_told(node: onnx.NodeProto) -> bool:
    return operator_of(node) == _PRODUCT and any(a.name == _ALLOWS for a in node.attribute)
