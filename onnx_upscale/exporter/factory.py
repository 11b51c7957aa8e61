"""MODULE:FACTORY: the function that makes the torch model, and what it returns."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from onnx_upscale.errors import UsageError


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


def module_file(spec: str) -> str | None:
    """The file that MODULE:FACTORY names, or None where it is an importable name."""
    module = spec.rpartition(":")[0]
    return module if module.endswith(".py") else None


@contextlib.contextmanager
def importable(spec: str) -> Iterator[None]:
    """Puts the folder of the module on the search path, as `python -m` and `python FILE` do."""
    file = module_file(spec)
    before = list(sys.path)
    sys.path.insert(0, str(Path(file).resolve().parent if file else Path.cwd()))
    try:
        yield
    finally:
        sys.path[:] = before


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
    module = _imported(module_name)
    factory, file = _attribute(module, module_name, name), getattr(module, "__file__", None)
    made = factory
    if not isinstance(factory, nn.Module):
        if not callable(factory):
            raise UsageError(f"{spec}: is no function, but of type {type(factory).__name__}")
        try:
            made = factory()
        except (Exception, SystemExit) as error:  # Whatever the user's function raises.
            raise UsageError(f"{spec}() failed: {_said(error)}") from None
    if isinstance(made, nn.Module):
        return Made(made, None, file)
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module):
        return Made(*made, file)
    kind = type(made).__name__
    raise UsageError(
        f"{spec}() returned {kind}: expected a torch.nn.Module, or (module, example arguments)"
    )


def _imported(name: str) -> ModuleType:
    try:
        if module_file(f"{name}:"):
            return _from_file(Path(name))
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(
                f"there is no module '{name}' in the current directory or among the installed "
                "packages; a file is named with its suffix, such as models.py:resnet"
            ) from None
        raise UsageError(f"module '{name}' cannot be imported: {_said(error)}") from None
    except UsageError:
        raise
    except (Exception, SystemExit) as error:  # Whatever the user's module does.
        raise UsageError(f"module '{name}' cannot be imported: {_said(error)}") from None


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # As an import would, but without hiding another module of the same name.
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


def _attribute(module: ModuleType, module_name: str, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            names = [each for each in vars(found) if not each.startswith("_")]
            close = difflib.get_close_matches(part, names, n=3, cutoff=0.4)
            hint = f"; closest: {', '.join(close)}" if close else ""
            raise UsageError(f"module '{module_name}' has no '{name}'{hint}")
        found = getattr(found, part)
    return found


def _said(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
