"""Results as a CSV file that several processes append to, and that an interrupted run goes on with.

A cell is one network, one method and one wanted latency; a row says what came of it.
"""

from __future__ import annotations

import csv
import fcntl
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True, order=True)
class Cell:
    """What is asked for.

    Attributes:
        data: What the network was trained on.
        network: Its name.
        seed: Of its training.
        method: What makes it faster.
        samples: How many unlabelled images there are to do so.
        wanted: The wanted latency, as a share of the unpruned network's.
    """

    data: str
    network: str
    seed: int
    method: str
    samples: int
    wanted: float


@dataclass(frozen=True)
class Row:
    """What came of it.

    Attributes:
        predicted: The predicted latency, as a share.
        ratio: The measured one; NaN where the method does not get there.
        accuracy: Share of the held-out images that the result classifies right; else NaN.
        dense: The same of the unpruned network.
        seconds: CPU time that the method took, with its own measurements.
        note: Why there is no result.
    """

    data: str
    network: str
    seed: int
    method: str
    samples: int
    wanted: float
    predicted: float
    ratio: float
    accuracy: float
    dense: float
    seconds: float
    note: str = ""

    @property
    def cell(self) -> Cell:
        return Cell(self.data, self.network, self.seed, self.method, self.samples, self.wanted)

    @property
    def reached(self) -> bool:
        return math.isfinite(self.ratio)

    @property
    def lost(self) -> float:
        """Percentage points of accuracy."""
        return 100 * (self.dense - self.accuracy)


_FIELDS = fields(Row)
_READERS: dict[str, Callable[[str], object]] = {
    "str": str,
    "int": int,
    "float": lambda text: float(text or "nan"),
}


def read(path: Path) -> list[Row]:
    """All rows that were written in full, the later one of two for the same cell."""
    if not path.exists():
        return []
    whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    rows = [
        _row({field.name: _READERS[str(field.type)](line[field.name]) for field in _FIELDS})
        for line in csv.DictReader(whole)
    ]
    return list({row.cell: row for row in rows}.values())


def _row(values: Mapping[str, Any]) -> Row:
    return Row(**values)


def append(path: Path, rows: Iterable[Row]) -> None:
    """Adds rows to a file, behind the last one that is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        whole = file.read().rpartition(b"\n")[0]
        length = len(whole) + 1 if whole else 0
        file.truncate(length)
        file.write(_lines(rows, head=length == 0).encode())


def _lines(rows: Iterable[Row], head: bool) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if head:
        writer.writerow(field.name for field in _FIELDS)
    writer.writerows([_shown(value) for value in astuple(row)] for row in rows)
    return text.getvalue()


def _shown(value: object) -> object:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.5g}"
    return " ".join(value.split()) if isinstance(value, str) else value


def chosen(rows: Sequence[Row], **wanted: object) -> list[Row]:
    """The rows whose fields have these values."""
    return [
        row for row in rows if all(getattr(row, name) == value for name, value in wanted.items())
    ]
