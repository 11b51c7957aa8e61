"""prices: what work costs on a target, behind one interface."""

from onnx_upscale.prices.analytic import AnalyticPrices
from onnx_upscale.prices.files import load_prices, target_warnings
from onnx_upscale.prices.interface import Prices
from onnx_upscale.prices.kernels import KINDS, REORDERS, Kernel, byte_convolution
from onnx_upscale.prices.lower import BOUNDS, passing_family, works_on_blocks
from onnx_upscale.prices.program import Program, Step
from onnx_upscale.prices.table import TablePrices
from onnx_upscale.prices.work import CopyWork, Counts, LayerWork

__all__ = [
    "BOUNDS",
    "KINDS",
    "REORDERS",
    "AnalyticPrices",
    "CopyWork",
    "Counts",
    "Kernel",
    "LayerWork",
    "Prices",
    "Program",
    "Step",
    "TablePrices",
    "byte_convolution",
    "load_prices",
    "passing_family",
    "target_warnings",
    "works_on_blocks",
]
