"""MODULE:FACTORY: the function that makes the torch model, and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from onnx_upscale.errors import UsageError
from onnx_upscale.modules import load_attribute, said


@dataclass(frozen=True)
class Made:
    """What a factory returned.

    Attributes:
        model: The module.
        args: Example arguments, as `export` takes them, or None where it gave none.
        file: The file of the module that the factory is in, if it has one.
    """

    model: Any
    args: Any
    file: str | None


def make_model(spec: str) -> Made:
    """Imports a factory and calls it.

    Args:
        spec: `MODULE:FACTORY`; MODULE is an importable name or the path of a `.py` file, and
            FACTORY a function without arguments, a class of modules, or a module.

    Returns:
        The model and its example arguments.

    Raises:
        UsageError: There is no such factory, or it fails, or it returns something else.
    """
    from torch import nn

    module_name, _, name = spec.rpartition(":")
    if not module_name or not name:
        raise UsageError(f"'{spec}' is not of the form MODULE:FACTORY, such as models.py:resnet")
    loaded = load_attribute(spec)
    factory, file = loaded.value, loaded.file
    made = factory
    if not isinstance(factory, nn.Module):
        if not callable(factory):
            raise UsageError(f"{spec}: is no function, but of type {type(factory).__name__}")
        try:
            made = factory()
        except (Exception, SystemExit) as error:  # Whatever the user's function raises.
            raise UsageError(f"{spec}() failed: {said(error)}") from None
    if isinstance(made, nn.Module):
        return Made(made, None, file)
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module):
        return Made(*made, file)
    kind = type(made).__name__
    raise UsageError(
        f"{spec}() returned {kind}: expected a torch.nn.Module, or (module, example arguments)"
    )
