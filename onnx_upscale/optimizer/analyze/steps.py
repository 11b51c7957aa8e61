"""Nodes as the steps of a program."""

from __future__ import annotations

import math

from onnx_upscale.optimizer.load.fused import runs_as
from onnx_upscale.optimizer.load.graph import Node
from onnx_upscale.optimizer.load.layers import Layer
from onnx_upscale.prices.program import Step


def step_of(node: Node, layer: Layer | None, inputs: tuple[str, ...]) -> Step:
    """A node as it runs where no channel leaves.

    Args:
        node: The node.
        layer: What it is as a layer.
        inputs: What it reads that is not constant.
    """
    outputs = tuple(name for name in node.outputs if name)
    stride = math.prod(node.attributes.get("strides", ()))
    if layer is None:
        window = math.prod(node.attributes.get("kernel_shape", ()))
        axis = int(node.attributes.get("axis", 1))
        return Step(runs_as(node), inputs, outputs, axis=axis, window=window, stride=stride)
    return Step(
        "MatMul" if node.op == "Einsum" else runs_as(node),
        inputs,
        outputs,
        axis=layer.data_axis,
        made_axis=layer.output_axis or 0,
        weighted=True,
        window=layer.window,
        stride=stride,
        groups=layer.groups,
        in_bytes=layer.in_bytes,
    )
