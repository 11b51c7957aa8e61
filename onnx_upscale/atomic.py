"""Files that are there in full or not at all, whatever ends the process that writes them.

Every file is first written beside its target under a name of its own, and renamed once all of a
set are on disk. What a killed process leaves is cleared by whoever writes to the same target next;
files of a process that still runs are locked, and stay.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias

from onnx_upscale.errors import OutputError

fcntl: Any
try:
    import fcntl
except ImportError:  # Not every system has such locks; leftovers then stay.
    fcntl = None

PathLike: TypeAlias = "str | os.PathLike[str]"
Buffer: TypeAlias = "bytes | memoryview"


class Blocks(Protocol):
    """The content of a file that is too large to be held in one piece."""

    def __len__(self) -> int:
        """Its size in bytes."""

    def __iter__(self) -> Iterator[Buffer]:
        """Its blocks, one after the other."""


Content: TypeAlias = "bytes | Blocks"

_DATA = re.compile(r"\.[0-9a-f]{16}\.data\Z")


def data_path(path: Path, digest: str) -> Path:
    """Where the weights of a model lie that are not in its own file.

    Their digest is part of the name, so that new ones never replace those of the model before.

    Args:
        path: The model's file.
        digest: 16 hexadecimal digits that stand for the content.
    """
    return path.with_name(f"{path.name}.{digest}.data")


class Waiting:
    """A file on its way to its target.

    Args:
        path: Where it will be. A symbolic link stays one, and what it leads to is replaced.
    """

    def __init__(self, path: PathLike) -> None:
        self._path = path
        self.target = target = Path(os.path.realpath(path))
        # Names have a largest length, which that of the target may have already. Data has that of
        # its model, as the next run may have other data.
        model = os.fsencode(_DATA.sub("", target.name))
        self._stem = f".onnx-upscale-{hashlib.sha256(model).hexdigest()[:16]}-"
        self.beside = target.with_name(f"{self._stem}{secrets.token_hex(8)}.tmp")
        self._file: IO[bytes] | None = None
        self._is_new = False

    def write(self, content: Content) -> None:
        """Puts it on disk beside its target, and clears what others left there that were killed.

        Raises:
            OutputError: It cannot be written.
        """
        with self._or_say():
            with locked([self.target.parent]):
                self._clear()
                self._file = self.beside.open("xb")
                _lock(self._file.fileno(), wait=False)
            for block in [content] if isinstance(content, bytes) else content:
                self._file.write(block)
            self._file.flush()
            os.fsync(self._file.fileno())
            if self.target.exists():
                shutil.copymode(self.target, self.beside)

    @contextlib.contextmanager
    def _or_say(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(f"{self._path}: cannot be written: {reason}") from None

    def _clear(self) -> None:
        for left in self.target.parent.glob(f"{self._stem}*.tmp"):
            with contextlib.suppress(OSError), left.open("rb") as file:
                if _lock(file.fileno(), wait=False):
                    left.unlink(missing_ok=True)

    def replace(self) -> None:
        """Puts it in the place of its target."""
        with self._or_say():
            self._is_new = not self.target.exists()
            os.replace(self.beside, self.target)

    @property
    def is_pending(self) -> bool:
        """Whether it is still beside its target."""
        return self.beside.exists()

    def withdraw(self) -> None:
        """Takes data back that came to a place where nothing was, as its model will not follow."""
        if self._is_new and not self.is_pending and _DATA.search(self.target.name):
            self.target.unlink(missing_ok=True)

    def remove_old_data(self, keep: Collection[Path]) -> None:
        """Removes the data of models that were at this target before, but for some files."""
        for path in self.target.parent.glob(f"{_escaped(self.target.name)}.*.data"):
            ours = _DATA.fullmatch(path.name[len(self.target.name) :])
            if ours and path not in keep:
                with contextlib.suppress(OSError):  # The result is there, all the same.
                    path.unlink(missing_ok=True)

    def clean(self) -> None:
        """Leaves nothing beside the target."""
        self.beside.unlink(missing_ok=True)
        if self._file is not None:
            with contextlib.suppress(OSError):  # A full disk, once more.
                self._file.close()


def replace_all(waiting: Sequence[Waiting], keep: Collection[Path] | None = None) -> None:
    """Puts files in their places, in their order; a model's data must come before it.

    Args:
        waiting: Files that were written.
        keep: Data of models that were at these places before is removed, but for these files; None
            if all stays.

    Raises:
        OutputError: One could not be put there.
    """
    with locked(each.target.parent for each in waiting):
        try:
            for each in waiting:
                each.replace()
        finally:
            surely(lambda: _settle(waiting, keep))


def _settle(waiting: Sequence[Waiting], keep: Collection[Path] | None) -> None:
    # What is on disk says how far it came, for an interrupt may come between any two steps.
    if any(each.is_pending for each in waiting):
        for each in waiting:
            each.withdraw()
        return
    if keep is None:
        return
    stays = {each.target for each in waiting} | {Path(os.path.realpath(path)) for path in keep}
    for each in waiting:
        each.remove_old_data(stays)


def surely(clean: Callable[[], None]) -> None:
    """Cleans up, once more if the user interrupts just that."""
    try:
        clean()
    except KeyboardInterrupt:
        clean()
        raise


@contextlib.contextmanager
def locked(folders: Iterable[Path]) -> Iterator[None]:
    """Keeps other processes from changing what is written in some folders; nothing stays of it."""
    with contextlib.ExitStack() as stack:
        for folder in sorted(set(folders)):  # In one order, or two could wait for each other.
            with contextlib.suppress(OSError):  # Some file systems lock no folders.
                number = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, number)
                _lock(number, wait=True)
        yield


def _lock(number: int, wait: bool) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _escaped(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)
