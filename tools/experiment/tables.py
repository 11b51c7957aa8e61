"""Results as Markdown tables."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from experiment.cells import SIDES, STRATEGIES, Cell, Row

Accuracies: TypeAlias = "npt.NDArray[np.float64]"

PAPER_POINTS = 2.1
# Shares of the unpruned latency at which strategies are compared.
BUDGETS = (0.95, 0.9, 0.8, 0.7, 0.6)


def report(rows: Sequence[Row]) -> str:
    """Every table, one after the other."""
    networks = list(dict.fromkeys(row.network for row in rows))
    criteria = list(dict.fromkeys(row.criterion for row in rows))
    gains = dict(_gains(rows))
    parts = [
        "# Tables of the experiment",
        "## Accuracy, unpruned\n\n" + _table(("network", "accuracy"), _unpruned(rows, networks)),
        "## Accuracy: unconstrained minus constrained\n\n"
        "Percentage points, mean ± standard deviation over all cells (sides, amounts and seeds). "
        f"The paper reports +{PAPER_POINTS} on average.\n\n"
        + _gain_table(gains, networks, criteria),
        "## The same by side and amount\n\n" + _side_table(gains, networks),
        "## In how many cells it is better, equal or worse\n\n" + _count_table(gains, networks),
        "## Latency as a share of the unpruned network's\n\n"
        "Geometric mean over criteria, sides and seeds.\n\n" + _latency_table(rows, networks),
        "## Accuracy at equal latency\n\n"
        "The accuracy (%) that is left at this share of the unpruned network's latency, straight "
        "lines drawn between amounts, and how many points that is more than with constrained "
        "pruning; mean over the curves (one per criterion, side and seed) on which both get that "
        "fast. In brackets: how many of its curves a strategy brings there.\n\n"
        + _equal_latency_table(rows, networks),
    ]
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def _unpruned(rows: Sequence[Row], networks: Sequence[str]) -> Iterator[list[str]]:
    for network in networks:
        found = {
            row.seed: row.accuracy
            for row in rows
            if row.network == network and row.strategy == "unpruned"
        }
        shown = ", ".join(f"{accuracy:.2%}" for _, accuracy in sorted(found.items()))
        yield [network, shown]


def _gains(rows: Sequence[Row]) -> Iterator[tuple[Cell, float]]:
    """Per cell, what freedom gains, in percentage points."""
    accuracies: dict[Cell, dict[str, float]] = defaultdict(dict)
    for row in rows:
        accuracies[row.cell][row.strategy] = row.accuracy
    for cell, found in accuracies.items():
        yield cell, 100 * (found["auto"] - found["constrained"])


def _select(gains: Mapping[Cell, float], **wanted: Any) -> list[float]:
    """The gains of the cells whose fields are as wanted; "all" wants any."""
    return [
        gain
        for cell, gain in gains.items()
        if all(value in (getattr(cell, field), "all") for field, value in wanted.items())
    ]


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):+.1f} ± {np.std(values):.1f}" if values else ""


def _gain_table(
    gains: Mapping[Cell, float], networks: Sequence[str], criteria: Sequence[str]
) -> str:
    lines = [
        [
            criterion,
            *(
                _spread(_select(gains, network=network, criterion=criterion))
                for network in [*networks, "all"]
            ),
        ]
        for criterion in [*criteria, "all"]
    ]
    return _table(["criterion", *networks, "all"], lines)


def _side_table(gains: Mapping[Cell, float], networks: Sequence[str]) -> str:
    amounts = sorted({cell.amount for cell in gains})
    lines = [
        [
            side,
            network,
            *(
                _spread(_select(gains, side=side, network=network, amount=amount))
                for amount in amounts
            ),
        ]
        for side in SIDES
        for network in [*networks, "all"]
    ]
    return _table(["side", "network", *map(str, amounts)], lines)


def _count_table(gains: Mapping[Cell, float], networks: Sequence[str]) -> str:
    lines = []
    for network in [*networks, "all"]:
        values = np.array(_select(gains, network=network), np.float64)
        counts = ((values > 0).sum(), (values == 0).sum(), (values < 0).sum())
        lines.append([network, *map(str, counts), f"{values.min():+.1f}", f"{values.max():+.1f}"])
    return _table(["network", "better", "equal", "worse", "least", "most"], lines)


def _latency_table(rows: Sequence[Row], networks: Sequence[str]) -> str:
    amounts = sorted({row.amount for row in rows})
    lines = []
    for network in networks:
        for strategy in STRATEGIES[1:]:
            line = [network, strategy]
            for amount in amounts:
                ratios = [
                    row.ratio
                    for row in rows
                    if (row.network, row.strategy, row.amount) == (network, strategy, amount)
                ]
                line.append(f"{np.exp(np.mean(np.log(ratios))):.2f}")
            lines.append(line)
    return _table(["network", "strategy", *map(str, amounts)], lines)


def _equal_latency_table(rows: Sequence[Row], networks: Sequence[str]) -> str:
    lines = []
    for network in networks:
        tied = _at_budgets(rows, network, "constrained")
        for strategy in STRATEGIES[1:]:
            found = tied if strategy == "constrained" else _at_budgets(rows, network, strategy)
            columns = zip(found.T, tied.T, strict=True)
            lines.append([network, strategy, *(_compared(*column) for column in columns)])
    return _table(["network", "strategy", *(f"at {budget}" for budget in BUDGETS)], lines)


def _compared(found: Accuracies, tied: Accuracies) -> str:
    """Accuracy, its lead over that of constrained pruning, and how many curves get that fast."""
    both = np.isfinite(found) & np.isfinite(tied)
    share = f"({np.isfinite(found).mean():.0%})"
    if not both.any():
        return f"- {share}"
    accuracy = 100 * found[both].mean()
    lead = round(100 * (found - tied)[both].mean(), 1) + 0.0  # No "-0.0".
    return f"{accuracy:.1f}, {lead:+.1f} {share}"


def _at_budgets(rows: Sequence[Row], network: str, strategy: str) -> Accuracies:
    """Accuracy at every latency budget, one line per criterion, side and seed."""
    curves: dict[tuple[int, str, str], dict[float, tuple[float, float]]] = defaultdict(dict)
    for row in rows:
        if row.network == network and row.strategy in (strategy, "unpruned"):
            amount = 0.0 if row.strategy == "unpruned" else row.amount
            ratio = 1.0 if row.strategy == "unpruned" else row.ratio
            curves[row.seed, row.criterion, row.side][amount] = (ratio, row.accuracy)
    lines = [[point for _, point in sorted(curve.items())] for _, curve in sorted(curves.items())]
    return np.array([[accuracy_at(curve, budget) for budget in BUDGETS] for curve in lines])


def accuracy_at(curve: Sequence[tuple[float, float]], budget: float) -> float:
    """The best accuracy that a curve reaches within a latency budget.

    Args:
        curve: (latency, accuracy) as more and more is pruned; straight between two points.
        budget: The largest latency allowed.

    Returns:
        The accuracy, or NaN if the curve never gets that fast.
    """
    found = [accuracy for latency, accuracy in curve if latency <= budget]
    for (slow, before), (fast, after) in itertools.pairwise(curve):
        if (slow - budget) * (fast - budget) < 0:
            found.append(before + (after - before) * (slow - budget) / (slow - fast))
    return max(found, default=float("nan"))
