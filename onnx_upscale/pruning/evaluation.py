"""The user's own measure of a model: a score."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from onnx_upscale.errors import UsageError
from onnx_upscale.files import write_files
from onnx_upscale.modules import importable, load_attribute, said
from onnx_upscale.optimizer.load import ModelSource
from onnx_upscale.optimizer.load.model import stored_or_path

Evaluate: TypeAlias = "str | Callable[[str], Any]"
"""A function from the path of an .onnx file to a number, or `MODULE:FUNCTION`."""


@dataclass(frozen=True)
class Evaluation:
    """A measure that the user gives.

    Attributes:
        function: From the path of an .onnx file to a number; more is better.
        spec: `MODULE:FUNCTION` that it was named by, or None.
    """

    function: Callable[[str], Any]
    spec: str | None = None

    @classmethod
    def of(cls, evaluate: Evaluate) -> Evaluation:
        """What the user gave.

        Args:
            evaluate: A function, or `MODULE:FUNCTION`.

        Raises:
            UsageError: There is no such function.
        """
        if not isinstance(evaluate, str):
            if not callable(evaluate):
                raise UsageError(f"`evaluate`: expected a function, found {_kind(evaluate)}")
            return cls(evaluate)
        if not all(evaluate.rpartition(":")[::2]):
            raise UsageError(
                f"`evaluate` {evaluate}: is not of the form MODULE:FUNCTION, such as mine.py:top1"
            )
        with importable(evaluate):
            function = load_attribute(evaluate).value
        if not callable(function):
            raise UsageError(
                f"`evaluate` {evaluate}: is no function, but of type {_kind(function)}"
            )
        return cls(function, evaluate)

    def score(self, model: ModelSource, what: str) -> float:
        """The score of a model.

        Args:
            model: The model, or the path of its file.
            what: What the model is, for messages.

        Returns:
            A finite number.

        Raises:
            UsageError: The function raises, or returns something else.
        """
        with tempfile.TemporaryDirectory(prefix="onnx-upscale-") as folder:
            path = os.fspath(Path(folder) / "model.onnx")
            held = stored_or_path(model)
            if isinstance(held, str):
                path = held
            else:
                write_files(held.files(path))
            given = self._call(path, what)
        try:
            number = math.nan if isinstance(given, str | bytes) else float(given)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            number = math.nan
        if not math.isfinite(number):
            found = f"{given}" if isinstance(given, float) else f"something of type {_kind(given)}"
            raise UsageError(f"{self._named} on {what}: expected a finite number, found {found}")
        return number

    def _call(self, path: str, what: str) -> Any:
        try:
            if self.spec is None:
                return self.function(path)
            with importable(self.spec):  # It may import what lies beside it only now.
                return self.function(path)
        except (Exception, SystemExit) as error:  # Whatever the user's function raises.
            raise UsageError(f"{self._named} on {what}: failed: {said(error)}") from None

    @property
    def _named(self) -> str:
        return "`evaluate`" if self.spec is None else f"`evaluate` {self.spec}"


def _kind(value: object) -> str:
    return type(value).__name__
