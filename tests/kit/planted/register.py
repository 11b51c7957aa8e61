"""All errors by name, and ways to make a part of the package wrong for a while."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

from onnx_upscale.optimizer.analyze.rules import RULES

Patch = Callable[[], Any]
ERRORS: dict[str, Patch] = {}


def error(name: str) -> Callable[[Patch], Patch]:
    """Registers an error: a function that gives a context in which it is there."""

    def register(patch: Patch) -> Patch:
        ERRORS[name] = patch
        return patch

    return register


def wrapped(owner: Any, name: str, change: Callable[..., Any]) -> Any:
    """A context in which `change(original, *args)` runs in place of a function."""
    original = getattr(owner, name)

    def run(*args: Any, **kwargs: Any) -> Any:
        return change(original, *args, **kwargs)

    return mock.patch.object(owner, name, run)


def ruled(operators: str, rule: Callable[[Any], None]) -> Any:
    """A context in which operators have another rule."""
    table: Mapping[tuple[str, str], Any] = {("", name): rule for name in operators.split()}
    return mock.patch.dict(RULES, table)
