"""What can be known about paths before any work is done."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from pathlib import Path

import click

from onnx_upscale.errors import UsageError
from onnx_upscale.files import check_writable, same_file


def check_paths(sources: Mapping[str, str | None], results: Mapping[str, str | None]) -> None:
    """Finds out before the work that no result would replace a source, or could not be written.

    Args:
        sources: Paths of what is read, by what it is; None for what is not a file this time. The
            first is the main one: that it is missing is worth saying before anything else.
        results: Paths of what will be written, by argument or option; None for what will not be.

    Raises:
        UsageError: A result is a source, or another result.
        OutputError: A result cannot be written.
    """
    context = click.get_current_context(silent=True)
    settings = None if context is None else context.params.get("config")
    sources = {**sources, "the file of settings": settings}
    given = {option: path for option, path in results.items() if path is not None}
    for option, path in given.items():
        if path == "-":
            raise UsageError(f"{option} -: results go to files; for one of this name give ./-")
    for option, path in given.items():
        for name, source in sources.items():
            if source is not None and same_file(path, source):
                raise UsageError(f"{option} {path}: is {name}, which would be lost: choose another")
    for option, path in given.items():
        if os.path.exists(path):  # What is not there yet holds no weights.
            _check_weights(option, path, sources)
    for (first, path), (second, other) in itertools.combinations(given.items(), 2):
        if same_file(path, other):
            raise UsageError(f"{second} {other}: is {first} as well: choose another")
    main = next(iter(sources.values()))
    if main is None or os.path.exists(main):
        for path in given.values():
            check_writable(path)


def _check_weights(option: str, path: str, sources: Mapping[str, str | None]) -> None:
    from onnx_upscale.storage import weight_files

    for name, source in sources.items():
        if source is None or "model" not in name:
            continue
        if any(same_file(path, os.fspath(own)) for own in weight_files(Path(source))):
            raise UsageError(
                f"{option} {path}: holds weights of {name}, which would be lost: choose another"
            )
