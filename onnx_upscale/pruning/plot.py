"""A plot of a sweep: how near models stay against how fast they are."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from onnx_upscale.atomic import PathLike
from onnx_upscale.errors import UsageError

FORMATS = ("svg", "png")
"""In which a plot can be written; the suffix of the file says which."""


def plot_format(path: PathLike) -> str:
    """The format that a file name asks for, if it can be plotted here.

    Args:
        path: Where the plot will be written.

    Raises:
        UsageError: There is no such format, or matplotlib is not installed.
    """
    suffix = PurePath(path).suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        known = " or ".join(f".{each}" for each in FORMATS)
        raise UsageError(f"`plot` {path}: give a file name that ends in {known}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError(
            f"`plot` {path}: needs matplotlib: pip install 'onnx-upscale[plot]'"
        ) from None
    return suffix


def fidelity(
    table: Sequence[Mapping[str, Any]], original: float | None
) -> tuple[str, float, list[float]]:
    """How near models stay to the original.

    Args:
        table: Rows as `Sweep.table` has them.
        original: The score of the original, where rows have a score.

    Returns:
        What says so, what the original has of it, and what each model has: the user's score where
        there is one, or the share of the same top-1 answers, or where no output ranks answers
        1 - error.
    """
    if original is not None:
        return "score", original, [row["score"] for row in table]
    if any(row["agreement"] is None for row in table):
        return "1 - error of the outputs", 1.0, [1 - row["error"] for row in table]
    return "same top-1 answers", 1.0, [row["agreement"] for row in table]


def plotted(table: Sequence[Mapping[str, Any]], original: float | None, suffix: str) -> bytes:
    """A plot as the content of a file.

    Args:
        table: Rows as `Sweep.table` has them.
        original: The score of the original, where rows have a score.
        suffix: One of `FORMATS`.

    Returns:
        Measured latencies along the x axis, `fidelity` along the y axis.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    label, best, values = fidelity(table, original)
    points = sorted(zip([row["latency"] for row in table], values, strict=True))
    # Nothing random and no date, so that the same table gives the same file.
    with rc_context({"svg.hashsalt": "onnx-upscale"}):
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(*zip(*points, strict=True), marker="o", label="pruned")
        axes.plot([1.0], [best], marker="s", linestyle="none", color="black", label="original")
        axes.set(xlabel="latency, share of the original", ylabel=label)
        axes.grid(alpha=0.3)
        axes.legend()
        content = io.BytesIO()
        metadata = {"Date": None} if suffix == "svg" else {"Software": None}
        figure.savefig(content, format=suffix, dpi=150, metadata=metadata)
    return content.getvalue()
