"""Unconstrained channel pruning for ONNX: masks in, an equal and faster model out."""

import importlib
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

# Where names are from, as above. They are imported when somebody asks for one: numpy, onnx and
# onnxruntime take long, and the command line can say how it is used without them.
_HOMES = {
    "api": "Analyzed analyze optimize verify",
    "benchmark": "Comparison bench",
    "criteria": "Images",
    "errors": "DataError MaskError ModelError OutputError UpscaleError UsageError VerifyError "
    "VerifySetupError WorkerError",
    "exporter": "Exported export",
    "importers": "import_masks",
    "making": "Masks mask",
    "optimizer.verify": "Verification",
    "pricing": "Priced price",
    "pruning.prune": "prune prune_all",
    "pruning.results": "Pruned Sweep",
    "recovery": "Recovered recover",
    "report": "Report",
    "result": "Result",
}
# A star must not hide torch and the like themselves, so these are not in `__all__`.
_MODULES = ("ir", "olive", "rules", "torch")
_HOME = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """What is imported when somebody asks for it, and the names of earlier versions."""
    if name == "make_masks":
        warnings.warn("make_masks is called mask now", DeprecationWarning, stacklevel=2)
        return __getattr__("mask")
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = found  # Asked for once.
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
