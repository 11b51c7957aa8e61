"""Writing results: all or nothing, never over something else."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

from onnx_upscale.atomic import Content, PathLike, Waiting, replace_all, surely
from onnx_upscale.errors import OutputError


class HasContent(Protocol):
    """Something that is the content of a file."""

    @property
    def content(self) -> bytes:
        """The content; the same result gives the same bytes."""


class Saved:
    """What results have in common that are written to a file."""

    def save(self: HasContent, path: PathLike) -> None:
        """Writes it, in full or not at all.

        Args:
            path: Where to.

        Raises:
            OutputError: It cannot be written.
        """
        write_file(path, self.content)


def check_writable(path: PathLike) -> None:
    """Finds out before the work whether a file can be written after it.

    Raises:
        OutputError: It cannot.
    """
    target = _resolved(path)
    folder = target.parent
    if os.path.islink(target):
        raise OutputError(f"{path}: is a symbolic link that leads back to itself")
    if os.path.isdir(target):
        raise OutputError(f"{path}: is a directory, give the name of a file")
    if os.path.exists(target) and not os.path.isfile(target):
        raise OutputError(f"{path}: is not a regular file, so it cannot be replaced")
    if not os.path.isdir(folder):
        raise OutputError(f"{path}: there is no directory '{folder}'")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: no permission to write in '{folder}'")


def same_file(one: PathLike, other: PathLike) -> bool:
    """Whether two paths lead to the same file, which may not exist yet."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return _resolved(one) == _resolved(other)


def json_file(document: Mapping[str, Any], indent: int = 2) -> bytes:
    """A document as the content of a JSON file, in which there is no infinity and no NaN."""
    return f"{json.dumps(document, indent=indent, allow_nan=False)}\n".encode()


def write_file(path: PathLike, content: bytes) -> None:
    """Writes one file, in full or not at all.

    Args:
        path: Where to.
        content: What to write.

    Raises:
        OutputError: It cannot be written.
    """
    check_writable(path)
    write_files({path: content})


def write_files(
    contents: Mapping[str, Content] | Mapping[PathLike, Content],
    keep: Collection[Path] | None = None,
) -> None:
    """Writes files so that each is there in full, or is what it was before.

    Every file is first written beside its target under another name; only when all are on disk are
    they renamed, in the order given. So the last one changes only if everything went well.

    Args:
        contents: What to write where.
        keep: Data files (`atomic.data_path`) of models that were at these places before are removed
            last, but for these, as somebody reads them; None if all stay.

    Raises:
        OutputError: Something could not be written.
    """
    waiting: list[Waiting] = []
    try:
        for path, content in contents.items():
            waiting.append(Waiting(path))
            waiting[-1].write(content)
        replace_all(waiting, keep)
    finally:
        surely(lambda: _clean(waiting))


def _clean(waiting: list[Waiting]) -> None:
    for each in waiting:
        each.clean()


def _resolved(path: PathLike) -> Path:
    # Through symbolic links, so that a link stays one and its target is replaced.
    return Path(os.path.realpath(path))
