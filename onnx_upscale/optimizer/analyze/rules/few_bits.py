"""Products with matrices of few bits."""

from __future__ import annotations

from onnx_upscale.optimizer.analyze.context import Context, UnclearError
from onnx_upscale.optimizer.analyze.rules.layers import matmul, need_constant_bias
from onnx_upscale.optimizer.analyze.rules.table import rule
from onnx_upscale.optimizer.load.layers import layer_of
from onnx_upscale.optimizer.load.packed import PRODUCT_OF_BITS


@rule(PRODUCT_OF_BITS[1], PRODUCT_OF_BITS[0])
def product_of_bits(node: Context) -> None:
    """A MatMul of whose input channels those leave together that share scales."""
    layer = layer_of(node.graph, node.node)
    if layer is None:
        raise UnclearError(
            "its matrix, a scale or a zero point is not constant, or says not what stands for zero"
        )
    need_constant_bias(node, layer)
    matmul(node)
