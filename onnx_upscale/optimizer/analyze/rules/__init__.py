"""One small rule per operator, grouped by family; `RULES` is the table of them all."""

from onnx_upscale.optimizer.analyze.rules import (
    einsum,
    elementwise,
    fused,
    layers,
    movement,
    normalization,
    pooling,
    reshaping,
    selection,
    spatial,
)
from onnx_upscale.optimizer.analyze.rules.table import RULES

__all__ = [
    "RULES",
    "einsum",
    "elementwise",
    "fused",
    "layers",
    "movement",
    "normalization",
    "pooling",
    "reshaping",
    "selection",
    "spatial",
]
