"""One small rule per operator, grouped by family; `RULES` is the table of them all."""

from onnx_upscale.optimizer.analyze.rules import (
    elementwise,
    layers,
    movement,
    normalization,
    pooling,
    quantized,
    reshaping,
    selection,
    spatial,
)
from onnx_upscale.optimizer.analyze.rules.table import RULES

__all__ = [
    "RULES",
    "elementwise",
    "layers",
    "movement",
    "normalization",
    "pooling",
    "quantized",
    "reshaping",
    "selection",
    "spatial",
]
