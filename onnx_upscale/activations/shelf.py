"""Arrays that are put aside: in memory up to a limit, beyond it in a file that nobody else sees."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Collection, Hashable
from dataclasses import dataclass
from io import FileIO

import numpy as np

from onnx_upscale.optimizer.load.values import Array

MOST_BYTES = 1 << 29
"""How much is kept in memory."""
_SHARE = 0.5
"""Of the room that the disk has when a shelf is made: so much is used of it at most."""


@dataclass
class _Row:
    """The arrays of one name, in the order in which they came.

    Attributes:
        kept: Each; or where it begins in the file, its type and its shape.
        file: Only once there is one.
    """

    kept: list[Array | tuple[int, np.dtype[np.generic], tuple[int, ...]]]
    file: FileIO | None = None


class Shelf:
    """Rows of arrays, by name.

    What does not fit into memory goes to temporary files, a row each, unbuffered. They have no name
    where the system allows that: they are gone when they are closed, or the process ends for
    whatever reason. Use as a context manager.

    Args:
        memory: How many bytes stay in memory; None for `MOST_BYTES`.
        disk: How many bytes go to files; None for half of what there is room for.
    """

    def __init__(self, memory: int | None = None, disk: int | None = None) -> None:
        if disk is None:
            disk = int(_SHARE * shutil.disk_usage(tempfile.gettempdir()).free)
        self._memory, self._disk = MOST_BYTES if memory is None else memory, disk
        self._rows: dict[Hashable, _Row] = {}

    def __enter__(self) -> Shelf:
        return self

    def __exit__(self, *exception: object) -> None:
        self.keep(())

    def put(self, name: Hashable, array: Array) -> bool:
        """Adds an array to the end of a row.

        Args:
            name: Which row.
            array: The array, which must not be changed any more.

        Returns:
            Whether there is room for it.
        """
        row = self._rows.setdefault(name, _Row([]))
        if array.nbytes <= self._memory:
            self._memory -= array.nbytes
            row.kept.append(array)
            return True
        if array.nbytes > self._disk:
            return False
        if row.file is None:
            row.file = tempfile.TemporaryFile("w+b", buffering=0)  # noqa: SIM115
        offset = row.file.seek(0, 2)
        try:
            written = row.file.write(array.ravel().view(np.uint8).data)
        except OSError:  # Somebody else filled the disk.
            return False
        if written != array.nbytes:
            return False
        self._disk -= array.nbytes
        row.kept.append((offset, array.dtype, array.shape))
        return True

    def get(self, name: Hashable, place: int) -> Array:
        """One array of a row.

        Args:
            name: Which row.
            place: The place in it.

        Returns:
            The array.
        """
        row = self._rows[name]
        kept = row.kept[place]
        if isinstance(kept, np.ndarray):
            return kept
        offset, dtype, shape = kept
        content = np.empty(_size(dtype, shape), np.uint8)
        assert row.file is not None
        row.file.seek(offset)
        row.file.readinto(content.data)
        return content.view(dtype).reshape(shape)

    def keep(self, names: Collection[Hashable]) -> None:
        """Throws all rows but some away.

        Args:
            names: The rows that stay.
        """
        for name in [name for name in self._rows if name not in names]:
            row = self._rows.pop(name)
            if row.file is not None:
                row.file.close()
            for kept in row.kept:
                if isinstance(kept, np.ndarray):
                    self._memory += kept.nbytes
                else:
                    self._disk += _size(*kept[1:])


def _size(dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> int:
    return dtype.itemsize * math.prod(shape)
