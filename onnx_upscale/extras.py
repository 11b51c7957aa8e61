"""Packages that are optional: what to say where one is missing."""

from __future__ import annotations

from importlib.util import find_spec

from onnx_upscale.errors import UsageError


def require(module: str, package: str, extra: str, what: str) -> None:
    """Finds out that an optional package is there, without importing it.

    Args:
        module: What is imported of it.
        package: What it is called.
        extra: The extra of this package that brings it along.
        what: What it is needed for.

    Raises:
        UsageError: It is not there; the message says how to install it.
    """
    if find_spec(module) is None:
        raise UsageError(
            f"{what} needs {package}, which is not installed: pip install 'onnx-upscale[{extra}]'"
        )
