"""Several processes on one machine compute side by side, but each measures latencies alone."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Turns:
    """Whose turn it is, by locks on two files, which end with the process that holds them.

    Who computes shares the second lock, who measures has it alone. Both come by it only while they
    hold the first, so that somebody who waits to measure keeps others from starting to compute.

    Args:
        folder: Where the files are; the same for all processes.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._gate = (folder / "gate.lock").open("w")
        self._work = (folder / "work.lock").open("w")

    def share(self) -> None:
        """Lets others measure who wait for it, and computes on. Cheap: to be called often."""
        self._take(fcntl.LOCK_SH)

    def alone(self) -> None:
        """Waits until nobody else computes; from then on nobody does until `share`."""
        self._take(fcntl.LOCK_EX)

    def leave(self) -> None:
        """Neither computes nor measures."""
        fcntl.flock(self._work, fcntl.LOCK_UN)

    def close(self) -> None:
        """Gives up all locks."""
        self._gate.close()
        self._work.close()

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Alone inside, sharing afterwards."""
        self.alone()
        try:
            yield
        finally:
            self.share()

    def _take(self, kind: int) -> None:
        self.leave()
        fcntl.flock(self._gate, fcntl.LOCK_EX)
        fcntl.flock(self._work, kind)
        fcntl.flock(self._gate, fcntl.LOCK_UN)


@contextmanager
def claimed(path: Path, wait: bool = False) -> Iterator[bool]:
    """Holds a file against other processes.

    Args:
        path: The file; it is made.
        wait: Whether to wait for those who hold it.

    Yields:
        Whether it is held.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
