"""Results as plots: accuracy against measured latency, and against the number of samples."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiment.comparison.jobs import SAMPLES
from experiment.comparison.rows import Row, chosen
from experiment.plots import save

# What is drawn, and how: colours that the colour-blind can tell apart (Okabe and Ito).
STYLES = {
    "prune": ("#D55E00", "o-"),
    "l1-constrained+recover": ("#0072B2", "s-"),
    "l1+recover": ("#56B4E9", "s-"),
    "l1-constrained": ("#0072B2", "s:"),
    "onnxsim": ("#009E73", "^:"),
    "torch-pruning": ("#CC79A7", "v:"),
    "finetuned": ("#000000", "*"),
}
_LEAST = 40  # Percent; what is below is drawn no more.


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """All plots, as SVG and PNG."""
    full = chosen(rows, samples=SAMPLES)
    plots: dict[str, Callable[[], Figure]] = {
        f"latency-{data}": functools.partial(_by_latency, chosen(full, data=data))
        for data in dict.fromkeys(row.data for row in full)
    }
    if any(row.reached and row.samples < SAMPLES for row in rows):
        plots["samples"] = functools.partial(_by_samples, rows)
    return save(plots, folder)


def _by_latency(rows: Sequence[Row]) -> Figure:
    networks = list(dict.fromkeys(row.network for row in rows))
    figure = Figure((2.9 * len(networks) + 0.6, 3.6), layout="constrained")
    panels = figure.subplots(1, len(networks), sharey=True, squeeze=False)[0]
    for panel, network in zip(panels, networks, strict=True):
        of_network = chosen(rows, network=network)
        dense = 100 * np.mean([row.dense for row in of_network])
        panel.axhline(dense, color="grey", linewidth=0.8, linestyle=":")
        for method, (colour, style) in STYLES.items():
            found = [row for row in chosen(of_network, method=method) if row.reached]
            points = [
                np.mean([(row.ratio, 100 * row.accuracy) for row in part], axis=0)
                for wanted in sorted({row.wanted for row in found})
                if (part := chosen(found, wanted=wanted))
            ]
            if points:
                panel.plot(*np.transpose(points), style, ms=4, color=colour, label=method)
        panel.set_title(network)
        panel.set_xlabel("measured latency / unpruned")
        panel.set_ylim(bottom=_LEAST)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy (%)")
    handles = {
        label: line
        for panel in panels
        for line, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=2 * len(networks))
    return figure


def _by_samples(rows: Sequence[Row]) -> Figure:
    """Points lost, a line for each network and latency, mean over seeds."""
    found = [row for row in chosen(rows, method="prune") if row.reached]
    few = {(row.data, row.network, row.wanted) for row in found if row.samples < SAMPLES}
    figure = Figure((5, 3.4), layout="constrained")
    panel = figure.subplots()
    networks = list(dict.fromkeys(network for _, network, _ in sorted(few)))
    for data, network, wanted in sorted(few):
        same = chosen(found, data=data, network=network, wanted=wanted)
        counts = sorted({row.samples for row in same})
        lost = [np.mean([row.lost for row in chosen(same, samples=count)]) for count in counts]
        style = "o-" if wanted == max(w for _, _, w in few) else "s:"
        colour = list(STYLES.values())[networks.index(network)][0]
        panel.plot(counts, lost, style, ms=4, color=colour, label=f"{network}, {wanted:g}")
    panel.set_xscale("log", base=2)
    panel.set_xlabel("samples")
    panel.set_ylabel("points lost")
    panel.grid(alpha=0.3)
    panel.legend(fontsize=7)
    return figure
