"""Tables of what was measured, and a plot for each; ratios are those that are paired by rounds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiment.plots import save
from suite.jobs import EIGHT, KINDS, MASKS, setting
from zoo import table

Row = Mapping[str, Any]
_COLUMNS = ("unpruned", "peerbase", "peer", "gather", "upscale", "auto", "tune")
_COLOURS = ("#999999", "#56B4E9", "#0072B2", "#E69F00", "#CC79A7", "#D55E00", "#009E73")


def write_report(rows: Sequence[Row], folder: Path) -> None:
    """Writes `tables.md` and plots into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = ["# All tables of the suite"]
    plots: dict[str, Callable[[], Figure]] = {}
    for kind, masks in product(chain.from_iterable(KINDS.values()), MASKS):
        title = setting(*masks, kind)
        own = {
            model: row
            for row in rows
            for model, _, of in [row["job"].partition(" ")]
            if of == title
        }
        if own:
            name = title.replace(" ", "-").replace(".", "")
            parts += [f"## {title}", _table(own), f"![{title}]({name}.svg)", _means(own)]
            plots[name] = functools.partial(_plot, own, title)
    (folder / "tables.md").write_text("\n\n".join(parts) + "\n")
    save(plots, folder)


def _table(rows: Mapping[str, Row]) -> str:
    there = _versions(rows)
    head = ["model", *(f"{name}, ms" for name in there), "auto / best other", "auto / bound"]
    lines = []
    for model, row in rows.items():
        models = row["models"]
        times = (f"{models[name]['ms']:.2f}" if name in models else "" for name in there)
        best = min(each["ratio"] for name, each in models.items() if name not in ("auto", "tune"))
        ratio = models["auto"]["ratio"] / best
        above = bound(row)
        lines.append([model, *times, f"{ratio:.3f}", "" if above is None else f"{above:.3f}"])
    return table(head, lines)


def _versions(rows: Mapping[str, Row]) -> list[str]:
    """What some of the models were measured as."""
    return [name for name in _COLUMNS if any(name in row["models"] for row in rows.values())]


def bound(row: Row, name: str = "auto") -> float | None:
    """How far a model is above its copy-free bound, as `bench --profile` says, if it does."""
    above = row["models"][name].get("over_bound")
    return None if above is None else float(above)


def _means(rows: Mapping[str, Row]) -> str:
    """Geometric means: to the faster peer, to the bound, of tuned models."""
    bounds = [above for above in map(bound, rows.values()) if above is not None]
    said = [f"Distance to the copy-free bound: {_mean(bounds):.3f}."] if bounds else []
    peers = [
        (row["models"], min(row["models"][peer]["ratio"] for peer in ("peer", "peerbase")))
        for model, row in rows.items()
        if model in EIGHT and "peer" in row["models"]
    ]
    for name in ("auto", "tune"):
        ratios = [models[name]["ratio"] / peer for models, peer in peers if name in models]
        if ratios:
            said.append(f"{name} / faster peer, {len(ratios)} models: {_mean(ratios):.3f}.")
    tuned = [
        row["models"]["tune"]["ratio"] / row["models"]["auto"]["ratio"]
        for row in rows.values()
        if "tune" in row["models"]
    ]
    if tuned:
        said.append(f"tune / auto: {_mean(tuned):.3f}.")
    return " ".join(said)


def _mean(ratios: Iterable[float]) -> float:
    return float(np.exp(np.mean(np.log([*ratios]))))


def _plot(rows: Mapping[str, Row], title: str) -> Figure:
    """Latencies as shares of the unpruned model's."""
    figure = Figure((max(0.62 * len(rows) + 1.6, 5.0), 3.6), layout="constrained")
    panel = figure.subplots()
    there = _versions(rows)[1:]
    width = 0.8 / len(there)
    for place, name in enumerate(there):
        own = [(at, row["models"]) for at, row in enumerate(rows.values()) if name in row["models"]]
        panel.bar(
            [at + (place - (len(there) - 1) / 2) * width for at, _ in own],
            [models[name]["ratio"] for _, models in own],
            width,
            label=name,
            color=_COLOURS[_COLUMNS.index(name)],
        )
    panel.axhline(1.0, color="#444444", linewidth=0.8)
    panel.set_xticks(range(len(rows)), list(rows), rotation=40, ha="right")
    panel.set_ylabel("latency / unpruned")
    panel.set_title(title)
    figure.legend(loc="outside lower center", ncols=len(there), fontsize="small")
    return figure
