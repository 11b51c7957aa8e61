"""The execution providers of onnxruntime that models are compared on."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence

import onnx
import onnxruntime
from onnx import helper

from onnx_upscale.choices import PROVIDERS
from onnx_upscale.errors import UsageError, VerifySetupError
from onnx_upscale.running import Session

# By the names users know: onnxruntime's own, the preferred one first.
_PROVIDERS: Mapping[str, tuple[str, ...]] = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": (
        "TensorrtExecutionProvider",
        "CUDAExecutionProvider",
        "CPUExecutionProvider",
    ),
}
_REQUIREMENTS: Mapping[str, str] = {
    "cpu": "the package onnxruntime",
    "cuda": "the package onnxruntime-gpu in place of onnxruntime",
    "tensorrt": "the package onnxruntime-gpu in place of onnxruntime, and TensorRT",
}
_LIBRARIES: Mapping[str, str] = {
    "cuda": "CUDA{0} and cuDNN",
    "tensorrt": "CUDA{0}, cuDNN, TensorRT",
}
_FATAL, _WARNING = 4, 2  # onnxruntime's levels of severity; the second is its default.


def execution_providers(provider: str) -> tuple[str, ...]:
    """The providers of onnxruntime that one of ours stands for, once they have been seen to start.

    Args:
        provider: `cpu`, `cuda` or `tensorrt`.

    Returns:
        Their names, the preferred one first.

    Raises:
        UsageError: There is no such provider, the installed onnxruntime lacks it, or it cannot
            start here.
    """
    if provider not in _PROVIDERS:
        raise UsageError(f"`provider` {provider}: unknown (known: {', '.join(PROVIDERS)})")
    wanted, offered = _PROVIDERS[provider], onnxruntime.get_available_providers()
    if wanted[0] not in offered:
        ours = [name for name, (first, *_) in _PROVIDERS.items() if first in offered]
        raise UsageError(
            f"`provider` {provider}: the installed onnxruntime does not have it (it offers "
            f"{', '.join(ours) or 'none of ours'}): install {_REQUIREMENTS[provider]}"
        )
    found = tuple(name for name in wanted if name in offered)
    if provider != "cpu" and found[0] not in _started(found):
        # onnxruntime itself would go on with the CPU.
        libraries = _LIBRARIES[provider].format(_cuda_version())
        raise UsageError(
            f"`provider` {provider}: onnxruntime has it, but cannot start it on this machine: it "
            f"needs an NVIDIA GPU with its driver, and the libraries of {libraries} where they are "
            "found"
        )
    return found


def _started(providers: Sequence[str]) -> tuple[str, ...]:
    """Those providers that a session for the smallest of models ends up with."""
    if hasattr(onnxruntime, "preload_dlls"):
        # Finds CUDA and cuDNN that were installed as Python packages. What it prints when it finds
        # none is no failure yet: they may be where the system looks.
        with contextlib.redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()
    # What fails here is told before there is a session whose own severity could be set.
    onnxruntime.set_default_logger_severity(_FATAL)
    try:
        return Session(_smallest_model(), providers=providers).providers
    except VerifySetupError:
        return ()
    finally:
        onnxruntime.set_default_logger_severity(_WARNING)


def _smallest_model() -> onnx.ModelProto:
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    node = helper.make_node("Relu", ["x"], ["y"])
    graph = helper.make_graph([node], "smallest", [value], [result])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)


def _cuda_version() -> str:
    version = getattr(onnxruntime, "cuda_version", "")
    return f" {version}" if version else ""
