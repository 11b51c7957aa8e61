"""MODULE:NAME: what users name in modules of their own."""

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
class Loaded:
    """What `MODULE:NAME` names.

    Attributes:
        value: It.
        file: The file of the module that it is in, if it has one.
    """

    value: Any
    file: str | None


def module_file(spec: str) -> str | None:
    """The file that MODULE:NAME names, or None where it is an importable name."""
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


def load_attribute(spec: str) -> Loaded:
    """Imports what `MODULE:NAME` names.

    Args:
        spec: MODULE is an importable name or the path of a `.py` file, NAME may have dots.

    Returns:
        It, and the file of the module.

    Raises:
        UsageError: There is no such thing, or the module cannot be imported.
    """
    module_name, _, name = spec.rpartition(":")
    module = _imported(module_name)
    return Loaded(_attribute(module, module_name, name), getattr(module, "__file__", None))


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
        raise UsageError(f"module '{name}' cannot be imported: {said(error)}") from None
    except UsageError:
        raise
    except (Exception, SystemExit) as error:  # Whatever the user's module does.
        raise UsageError(f"module '{name}' cannot be imported: {said(error)}") from None


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


def said(error: BaseException) -> str:
    """What somebody else's error says, on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
