"""Results as plots: accuracy against amount, and against latency."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from experiment.cells import SIDES, Row

# Text stays text, and nothing in the file depends on the day or on chance.
_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "onnx-upscale", "font.size": 9}

# Colours that the colour-blind can tell apart (Okabe and Ito).
COLOURS = {
    "constrained": "#000000",
    "gather": "#E69F00",
    "upscale": "#56B4E9",
    "auto": "#D55E00",
}
_METADATA: dict[str, Any] = {".svg": {"Date": None}, ".png": {}}


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Both plots, as SVG and PNG."""
    plots = {"accuracy-amount": _by_amount, "accuracy-latency": _by_latency}
    return save({name: functools.partial(plot, rows) for name, plot in plots.items()}, folder)


def save(plots: Mapping[str, Callable[[], Figure]], folder: Path) -> list[Path]:
    """Plots by name, as SVG and PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with mpl.rc_context(_STYLE):
        for name, plot in plots.items():
            figure = plot()
            for suffix, metadata in _METADATA.items():
                path = folder / f"{name}{suffix}"
                figure.savefig(path, dpi=150, metadata=metadata)
                written.append(path)
    return written


def _networks(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.network for row in rows))


def _by_amount(rows: Sequence[Row]) -> Figure:
    networks = _networks(rows)
    size = (2.6 * len(networks) + 0.6, 2.5 * len(SIDES) + 0.4)
    figure = Figure(size, layout="constrained")
    panels = figure.subplots(len(SIDES), len(networks), sharex=True, sharey=True, squeeze=False)
    for line, side in zip(panels, SIDES, strict=True):
        for panel, network in zip(line, networks, strict=True):
            for strategy, name in (("auto", "unconstrained"), ("constrained", "constrained")):
                found = defaultdict(list)
                for row in rows:
                    if (row.network, row.side, row.strategy) == (network, side, strategy):
                        found[row.amount].append(100 * row.accuracy)
                amounts = sorted(found)
                middle = np.array([np.mean(found[amount]) for amount in amounts])
                spread = np.array([np.std(found[amount]) for amount in amounts])
                panel.plot(amounts, middle, "o-", ms=3, color=COLOURS[strategy], label=name)
                panel.fill_between(
                    amounts,
                    middle - spread,
                    np.minimum(middle + spread, 100),
                    color=COLOURS[strategy],
                    alpha=0.15,
                    linewidth=0,
                )
            panel.set_title(f"{network}, {side} side")
            panel.grid(alpha=0.3)
    for panel in panels[-1]:
        panel.set_xlabel("share of channels pruned")
    for panel in panels[:, 0]:
        panel.set_ylabel("accuracy (%)")
    panels[0, 0].legend()
    return figure


def _by_latency(rows: Sequence[Row]) -> Figure:
    networks = _networks(rows)
    figure = Figure((3.2 * len(networks) + 0.6, 3.4), layout="constrained")
    panels = figure.subplots(1, len(networks), sharey=True, squeeze=False)
    for panel, network in zip(panels[0], networks, strict=True):
        for strategy, colour in COLOURS.items():
            ratios, accuracies = _seed_means(rows, network, strategy)
            panel.scatter(ratios, accuracies, s=6, color=colour, alpha=0.35, linewidths=0)
            front = pareto_front(ratios, accuracies)
            panel.step(ratios[front], accuracies[front], where="post", color=colour, label=strategy)
        panel.axvline(1, color="grey", linewidth=0.8, linestyle=":")
        panel.set_title(network)
        panel.set_xlabel("latency / unpruned")
        panel.grid(alpha=0.3)
    panels[0, 0].set_ylabel("accuracy (%)")
    panels[0, 0].legend()
    return figure


def _seed_means(rows: Sequence[Row], network: str, strategy: str) -> tuple[Any, Any]:
    """Latency ratio and accuracy (%) of every criterion, side and amount, mean over seeds."""
    found: dict[tuple[str, str, float], list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if row.network == network and row.strategy == strategy:
            point = (row.ratio, 100 * row.accuracy)
            found[row.criterion, row.side, row.amount].append(point)
    means = np.array([np.mean(points, axis=0) for points in found.values()])
    return means[:, 0], means[:, 1]


def pareto_front(latencies: Any, accuracies: Any) -> list[int]:
    """The points that nothing beats in both, fastest first.

    Args:
        latencies: One per point; less is better.
        accuracies: One per point; more is better.

    Returns:
        Their indices.
    """
    front: list[int] = []
    for index in np.lexsort((-np.asarray(accuracies), latencies)).tolist():
        if not front or accuracies[index] > accuracies[front[-1]]:
            front.append(index)
    return front
