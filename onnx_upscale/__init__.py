"""Unconstrained channel pruning for ONNX: masks in, an equal and faster model out."""

import warnings
from typing import Any

# Not one of `__all__`, for a star must not hide torch itself. It imports that only to work.
from onnx_upscale import rules
from onnx_upscale import torch as torch
from onnx_upscale.api import Analyzed, analyze, optimize, verify
from onnx_upscale.benchmark import Comparison, bench
from onnx_upscale.criteria import Images
from onnx_upscale.errors import (
    DataError,
    MaskError,
    ModelError,
    OutputError,
    UpscaleError,
    UsageError,
    VerifyError,
    VerifySetupError,
    WorkerError,
)
from onnx_upscale.exporter import Exported, export
from onnx_upscale.importers import import_masks
from onnx_upscale.making import Masks, mask
from onnx_upscale.optimizer.verify import Verification
from onnx_upscale.pricing import Priced, price
from onnx_upscale.pruning.prune import prune, prune_all
from onnx_upscale.pruning.results import Pruned, Sweep
from onnx_upscale.recovery import Recovered, recover
from onnx_upscale.report import Report
from onnx_upscale.result import Result

__version__ = "0.1.0"

__all__ = [
    "Analyzed",
    "Comparison",
    "DataError",
    "Exported",
    "Images",
    "MaskError",
    "Masks",
    "ModelError",
    "OutputError",
    "Priced",
    "Pruned",
    "Recovered",
    "Report",
    "Result",
    "Sweep",
    "UpscaleError",
    "UsageError",
    "Verification",
    "VerifyError",
    "VerifySetupError",
    "WorkerError",
    "__version__",
    "analyze",
    "bench",
    "export",
    "import_masks",
    "mask",
    "optimize",
    "price",
    "prune",
    "prune_all",
    "recover",
    "rules",
    "verify",
]


def __getattr__(name: str) -> Any:
    """The names of earlier versions."""
    if name == "make_masks":
        warnings.warn("make_masks is called mask now", DeprecationWarning, stacklevel=2)
        return mask
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
