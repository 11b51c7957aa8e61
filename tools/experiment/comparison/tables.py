"""Results as Markdown tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from experiment.comparison.jobs import METHODS, MODES, REPAIRED, SAMPLES
from experiment.comparison.rows import Row, chosen

_Shown = Callable[[Sequence[Row], Sequence[Row]], str]

WITHIN = 0.05
_TIE = 0.05  # Points of which nobody can tell the difference.


def report(rows: Sequence[Row]) -> str:
    """Every table, one after the other."""
    full = [row for row in rows if row.samples == SAMPLES]
    parts = [
        "# Tables of the study of prune",
        "## Accuracy lost at equal latency\n\n"
        "Percentage points, mean over networks and seeds. In brackets in how many of the runs the "
        "latency was reached, where it was not in all. Methods were not all tried in equally many "
        "runs: compare with `prune` in the same ones, in the table below.\n\n"
        + _by_method(full, _lost),
        "## How much more is lost than after `prune`\n\n"
        "The same, minus what `prune` loses in the same runs.\n\n" + _by_method(full, _more),
        "## `prune`, by network\n\n" + _by_network(full, ["prune"]),
        "## Joint choice, agreement and freedom\n\n"
        "Points lost, mean over seeds: joint / agreement / freedom.\n\n"
        + _by_network(full, list(MODES)),
        "## Where something that does not train loses less than `prune`\n\n" + _better(full),
        f"## Measured latencies within {WITHIN:.0%} of the wanted one\n\n" + _within(full),
        "## Fewer samples\n\nPoints that `prune` loses, mean over networks and seeds.\n\n"
        + _counts(rows),
    ]
    return "\n\n".join(parts) + "\n"


def methods_in(rows: Iterable[Row]) -> list[str]:
    """The methods that there are, in the order of `METHODS`."""
    there = {row.method for row in rows}
    known = [name for method in METHODS for name in (method, method + REPAIRED)]
    return [name for name in known if name in there]


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def _unique(rows: Iterable[Row], field: str) -> list[str]:
    return list(dict.fromkeys(str(getattr(row, field)) for row in rows))


def _latencies(rows: Iterable[Row]) -> list[float]:
    return sorted({row.wanted for row in rows}, reverse=True)


def _head(names: Sequence[str], rows: Sequence[Row]) -> list[str]:
    return [*names, *(f"{wanted:g}" for wanted in _latencies(rows))]


def _by_method(rows: Sequence[Row], shown: _Shown) -> str:
    lines = []
    for data in _unique(rows, "data"):
        of_data = chosen(rows, data=data)
        for method in methods_in(of_data):
            found = chosen(of_data, method=method)
            reference = chosen(of_data, method="prune")
            seconds = np.mean([row.seconds for row in found if row.reached] or [np.nan])
            cells = [shown(chosen(found, wanted=wanted), reference) for wanted in _latencies(rows)]
            lines.append([data, method, *cells, f"{seconds:.1f}"])
    return _table([*_head(["data", "method"], rows), "CPU seconds"], lines)


def _lost(rows: Sequence[Row], reference: Sequence[Row]) -> str:
    reached = [row.lost for row in rows if row.reached]
    if not reached:
        return "-" if rows else ""
    some = f" ({len(reached)} of {len(rows)})" if len(reached) < len(rows) else ""
    return f"{np.mean(reached):.2f}{some}"


def _more(rows: Sequence[Row], reference: Sequence[Row]) -> str:
    there = {(row.network, row.seed, row.wanted): row.lost for row in reference if row.reached}
    pairs = [
        row.lost - there[row.network, row.seed, row.wanted]
        for row in rows
        if row.reached and (row.network, row.seed, row.wanted) in there
    ]
    return f"{np.mean(pairs) + 0.0:+.2f}" if pairs else ("-" if rows else "")


def _by_network(rows: Sequence[Row], methods: Sequence[str]) -> str:
    lines = []
    for data in _unique(rows, "data"):
        of_data = chosen(rows, data=data)
        for network in _unique(of_data, "network"):
            found = chosen(of_data, network=network)
            dense = np.mean([dense for _, dense in {(row.seed, row.dense) for row in found}])
            cells = [
                " / ".join(
                    _lost(chosen(found, method=method, wanted=wanted), []) or "-"
                    for method in methods
                )
                for wanted in _latencies(rows)
            ]
            lines.append([data, network, f"{dense:.2%}", *cells])
    return _table(_head(["data", "network", "dense"], rows), lines)


def _better(rows: Sequence[Row]) -> str:
    lines = list(_better_lines(rows))
    if not lines:
        return "Nowhere."
    return _table(["data", "network", "wanted", "method", "loses", "`prune` loses"], lines)


def _better_lines(rows: Sequence[Row]) -> Iterator[list[str]]:
    """By network and latency, mean over the seeds that both have."""
    others = [name for name in methods_in(rows) if name not in ("prune", "finetuned")]
    for data in _unique(rows, "data"):
        of_data = chosen(rows, data=data)
        for network in _unique(of_data, "network"):
            for wanted in _latencies(rows):
                found = [row for row in of_data if row.reached]
                found = chosen(found, network=network, wanted=wanted)
                ours = {row.seed: row.lost for row in chosen(found, method="prune")}
                for method in others:
                    theirs = [row for row in chosen(found, method=method) if row.seed in ours]
                    if not theirs:
                        continue
                    lost = np.mean([row.lost for row in theirs])
                    mine = np.mean([ours[row.seed] for row in theirs])
                    if lost < mine - _TIE:
                        yield [data, network, f"{wanted:g}", method, f"{lost:.2f}", f"{mine:.2f}"]


def _within(rows: Sequence[Row]) -> str:
    lines = []
    for method in methods_in(rows):
        found = chosen(rows, method=method)
        reached = [row for row in found if row.reached]
        if not reached or method + REPAIRED in methods_in(rows):
            continue  # Masks with and without repair are as fast.
        errors = np.array([row.ratio / row.wanted - 1 for row in reached])
        lines.append(
            [
                method.removesuffix(REPAIRED),
                str(len(found)),
                str(len(found) - len(reached)),
                f"{np.mean(np.abs(errors) <= WITHIN):.0%}",
                f"{np.mean(errors):+.1%}",
                f"{np.min(errors):+.1%} to {np.max(errors):+.1%}",
            ]
        )
    head = ["method", "runs", "not reached", "within, of those reached", "mean error", "errors"]
    return _table(head, lines)


def _counts(rows: Sequence[Row]) -> str:
    found = chosen(rows, method="prune")
    counts = sorted({row.samples for row in found})
    if len(counts) < 2:
        return "None tried."
    fewest = {
        (row.data, row.network, row.seed, row.wanted) for row in chosen(found, samples=counts[0])
    }
    lines = []
    for data in _unique(found, "data"):
        for wanted in _latencies(found):
            same = [
                row
                for row in chosen(found, data=data, wanted=wanted)
                if (row.data, row.network, row.seed, row.wanted) in fewest
            ]
            if same:
                cells = [_lost(chosen(same, samples=count), []) for count in counts]
                lines.append([data, f"{wanted:g}", *cells])
    return _table(["data", "wanted", *map(str, counts)], lines)
