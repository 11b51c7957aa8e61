"""An average that changes places with the pointwise convolution before it."""

from __future__ import annotations

from onnx_upscale.optimizer.apply.surgery import Surgery
from onnx_upscale.optimizer.plan import PoolFirst


def pool_first(surgery: Surgery, edit: PoolFirst) -> None:
    """Puts the average before the convolution.

    Args:
        surgery: The graph; what the convolution reads is a copy already where it takes one.
        edit: The two.
    """
    layer, pool = edit.layer, edit.pool
    convolution, behind = surgery.nodes[layer.node.index], surgery.nodes[pool.index]
    source = convolution.inputs[layer.data_slot]
    pooled = surgery.variable(f"{source.name}.pooled")
    convolution.inputs[layer.data_slot] = pooled
    result = behind.outputs[0]
    behind.outputs.clear()
    convolution.outputs[0] = result
    surgery.removed.add(pool.index)
    first = surgery.node(pool.op, pool.title, [source], [pooled], **pool.attributes)
    surgery.before.setdefault(layer.node.index, []).append(first)
