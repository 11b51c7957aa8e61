"""One small rule per operator, grouped by family; `RULES` is the table of them all.

`UNRULED` says of other operators why they have none.
"""

from onnx_upscale.optimizer.analyze.rules import (
    attention,
    einsum,
    elementwise,
    few_bits,
    fused,
    layers,
    movement,
    normalization,
    pooling,
    quantized,
    recurrent,
    reshaping,
    selection,
    spatial,
)
from onnx_upscale.optimizer.analyze.rules.table import RULES
from onnx_upscale.optimizer.analyze.rules.unruled import NO_RULE, UNRULED

__all__ = [
    "NO_RULE",
    "RULES",
    "UNRULED",
    "attention",
    "einsum",
    "elementwise",
    "few_bits",
    "fused",
    "layers",
    "movement",
    "normalization",
    "pooling",
    "quantized",
    "recurrent",
    "reshaping",
    "selection",
    "spatial",
]
