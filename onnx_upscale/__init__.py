"""Unconstrained channel pruning for ONNX: masks in, an equal and faster model out."""

from onnx_upscale.api import Analyzed, Result, analyze, optimize, verify
from onnx_upscale.benchmark import Comparison, bench
from onnx_upscale.errors import (
    MaskError,
    ModelError,
    OutputError,
    UpscaleError,
    UsageError,
    VerifyError,
    VerifySetupError,
)

__version__ = "0.1.0"

__all__ = [
    "Analyzed",
    "Comparison",
    "MaskError",
    "ModelError",
    "OutputError",
    "Result",
    "UpscaleError",
    "UsageError",
    "VerifyError",
    "VerifySetupError",
    "__version__",
    "analyze",
    "bench",
    "optimize",
    "verify",
]
