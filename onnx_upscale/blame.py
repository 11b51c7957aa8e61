"""Whose error it is that something failed."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from onnx_upscale.errors import ModelError, UpscaleError
from onnx_upscale.optimizer.load.model import stored_or_path, why_invalid

_P = ParamSpec("_P")
_R = TypeVar("_R")


def blaming_the_model(job: Callable[_P, _R]) -> Callable[_P, _R]:
    """What fails on a model (the parameter `model`) that is not valid ONNX is its error."""
    parameters = inspect.signature(job)

    @functools.wraps(job)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return job(*args, **kwargs)
        except (UpscaleError, MemoryError):
            raise
        except Exception as error:  # No code foresees every way in which a model can be broken.
            model: Any = parameters.bind(*args, **kwargs).arguments.get("model")
            if model is None:
                raise
            undecodable = isinstance(error, UnicodeDecodeError)  # Names can be any bytes to others.
            reason = str(error) if undecodable else why_invalid(model)
            if reason is None:
                raise
            held = stored_or_path(model)
            where = held if isinstance(held, str) else "the model"
            raise ModelError(f"{where}: is not valid ONNX: {reason}") from error

    return run
