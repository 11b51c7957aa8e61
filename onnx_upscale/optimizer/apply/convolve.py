"""A BatchNormalization written as a convolution of every channel by itself."""

from __future__ import annotations

import numpy as np

from onnx_upscale.optimizer.analyze.facts import Facts
from onnx_upscale.optimizer.apply.surgery import Surgery
from onnx_upscale.optimizer.plan import Plan

_EPSILON = 1e-5


def convolve(surgery: Surgery, facts: Facts, plan: Plan) -> None:
    """Puts a convolution in the place of a BatchNormalization.

    Args:
        surgery: The graph; what the node reads is cut already.
        facts: What is known of the node.
        plan: The plan.
    """
    node, graph = facts.node, plan.analysis.graph
    values = [graph.value(node, slot) for slot in range(1, 5)]
    params = [np.asarray(value, np.float64) for value in values]
    scale, shift, mean, variance = (
        param[plan.layout.positions(each.labels)]
        for param, each in zip(params, facts.params, strict=True)
    )
    scale = scale / np.sqrt(variance + node.attributes.get("epsilon", _EPSILON))
    weight = scale.reshape(-1, 1, 1, 1).astype(np.float32)
    bias = (shift - mean * scale).astype(np.float32)
    edited = surgery.nodes[node.index]
    constants = [
        surgery.constant(surgery.fresh_name(f"{node.outputs[0]}.{name}"), value)
        for name, value in (("scale", weight), ("shift", bias))
    ]
    outputs = list(edited.outputs)
    edited.outputs.clear()
    surgery.removed.add(node.index)
    made = surgery.node(
        "Conv",
        node.title,
        [edited.inputs[0], *constants],
        outputs,
        group=len(weight),
        kernel_shape=[1, 1],
    )
    surgery.after.setdefault(node.index, []).insert(0, made)
