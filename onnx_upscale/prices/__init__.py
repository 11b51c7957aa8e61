"""prices: what work costs on a target, behind one interface."""

from onnx_upscale.prices.files import BUILT_IN, load_prices, target_warnings
from onnx_upscale.prices.interface import Prices
from onnx_upscale.prices.work import CopyWork, Counts, LayerWork

__all__ = [
    "BUILT_IN",
    "CopyWork",
    "Counts",
    "LayerWork",
    "Prices",
    "load_prices",
    "target_warnings",
]
