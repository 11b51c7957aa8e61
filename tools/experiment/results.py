"""Results as a CSV file that an interrupted run goes on with."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path

from experiment.cells import STRATEGIES, Row

_FIELDS = fields(Row)
_READERS = {"str": str, "int": int, "float": float}


def read(path: Path) -> list[Row]:
    """The rows of all cells that were finished."""
    if not path.exists():
        return []
    whole = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    lines = list(csv.DictReader(whole))
    rows = [
        Row(**{field.name: _READERS[str(field.type)](line[field.name]) for field in _FIELDS})
        for line in lines
    ]
    counts = Counter(row.cell for row in rows)
    return [row for row in rows if counts[row.cell] == len(STRATEGIES)]


def write(path: Path, rows: Sequence[Row]) -> None:
    """All rows anew, in full or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    with beside.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in _FIELDS)
        writer.writerows(astuple(row) for row in rows)
    beside.replace(path)


def append(path: Path, rows: Sequence[Row]) -> None:
    """The rows of one more cell."""
    with path.open("a", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(astuple(row) for row in rows)
