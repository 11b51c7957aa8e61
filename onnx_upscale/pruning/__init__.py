"""pruning: which channels to remove, by what that costs the outputs and what it saves."""

from onnx_upscale.pruning.curves import Curves, find_curves
from onnx_upscale.pruning.families import Family, find_families
from onnx_upscale.pruning.gauge import GAUGES
from onnx_upscale.pruning.search import Choice, search
from onnx_upscale.pruning.sensitivity import sensitivities

__all__ = [
    "GAUGES",
    "Choice",
    "Curves",
    "Family",
    "find_curves",
    "find_families",
    "search",
    "sensitivities",
]
