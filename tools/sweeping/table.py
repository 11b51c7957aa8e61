"""What the sweep found, in Markdown: counts, what is below the bound and why, and all models."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from sweeping.reasons import NOT_EXPORTED, REASONS

Result: TypeAlias = "dict[str, Any]"
SIDES, STRATEGIES = ("input", "output"), ("gather", "auto")
ENOUGH = 0.9
APART = 1e-4


def summary(results: Sequence[Result], planned: int) -> str:
    """All of it.

    Args:
        results: One per model and exporter.
        planned: How many models and exporters there are.
    """
    checked = [each for each in results if "error" not in each]
    return "\n\n".join(
        [
            _counts(results, checked, planned),
            _reasons(checked),
            _failures(results),
            _models(results),
        ]
    )


def _counts(results: Sequence[Result], checked: Sequence[Result], planned: int) -> str:
    outcomes = [
        _outcome(each[side][strategy])
        for each in checked
        for side in SIDES
        for strategy in STRATEGIES
    ]
    kinds = Counter(outcomes)
    families = Counter(each["model"].split("/")[0] for each in checked)
    states = sorted({each.get("package", "unknown") for each in results})
    lines = [
        f"{len(results)} of {planned} pairs of model and exporter, with the package in "
        f"{'one state' if len(states) == 1 else f'{len(states)} states'} ({', '.join(states)}; "
        f"`tools/state.py`); {len(checked)} were exported "
        f"and checked ({', '.join(f'{name} {count}' for name, count in families.items())}), "
        f"with {len(outcomes)} results: "
        + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        + "."
    ]
    for side in SIDES:
        for strategy in STRATEGIES:
            ratios = sorted(
                each[side][strategy]["ratio"] for each in checked if "ratio" in each[side][strategy]
            )
            if ratios:
                low = sum(ratio < ENOUGH for ratio in ratios)
                lines.append(
                    f"- `{strategy}`, {side} masks: median ratio {ratios[len(ratios) // 2]:.3f}, "
                    f"smallest {ratios[0]:.3f}, {low} of {len(ratios)} below {ENOUGH}"
                )
    return "\n".join([lines[0], "", *lines[1:]])


def _outcome(row: Result) -> str:
    """`equal`, or in what way not."""
    if row["own"].startswith("refused"):
        return "refused"
    before = row.get("before")
    if row["apart"] > APART and before is not None and before <= APART:
        return "equal in front of what selects"
    if row["apart"] > APART or row["own"].startswith("differs"):
        return "different"
    return "equal"


def _reasons(checked: Sequence[Result]) -> str:
    """Of what is below the bound with `gather`, the reasons, with how often each occurs."""
    found: dict[str, list[str]] = {}
    for each in checked:
        for side in SIDES:
            ratio = each[side]["gather"].get("ratio", 1)
            if ratio < ENOUGH:
                case = f"{each['model'].split('/')[1]} ({ratio:.2f})"
                found.setdefault(reason(each["model"], side), []).append(case)
    rows = [
        [why, str(len(cases)), ", ".join(_few(cases))]
        for why, cases in sorted(found.items(), key=lambda item: -len(item[1]))
    ]
    return _table(["why less than 0.9 of the bound leaves", "cases", "such as"], rows)


def reason(model: str, side: str) -> str:
    """Why less leaves than masks allow; the first that fits."""
    fits = (why for pattern, sides, why in REASONS if side in sides and re.search(pattern, model))
    return next(fits, "not looked into")


def _few(cases: Iterable[str], most: int = 6) -> list[str]:
    unique = list(dict.fromkeys(cases))
    return unique if len(unique) <= most else [*unique[:most], f"and {len(unique) - most} more"]


def _failures(results: Sequence[Result]) -> str:
    """What was not exported or not checked, and why."""
    found: dict[str, list[str]] = {}
    for each in results:
        if "error" in each:
            why = f"{each['stage']}: {each['error']}"
            known = (text for pattern, text in NOT_EXPORTED if re.search(pattern, why))
            text = next(known, re.sub(r"[\s|]+", " ", why)[:100])
            found.setdefault(text, []).append(f"{each['model'].split('/')[1]} ({each['exporter']})")
    rows = [[why, str(len(cases)), ", ".join(_few(cases))] for why, cases in found.items()]
    return _table(["not exported or not checked", "cases", "which"], rows)


def _models(results: Sequence[Result]) -> str:
    """A row per model, with what left of what could, for both sides and all exporters."""
    by_model: dict[str, dict[str, Result]] = {}
    for each in results:
        by_model.setdefault(each["model"], {})[each["exporter"]] = each
    rows = [
        [name, *(_cell(found.get(exporter), side) for exporter in ("new", "old") for side in SIDES)]
        for name, found in by_model.items()
        if any("error" not in each for each in found.values())
    ]
    head = ["model", *(f"{exporter}, {side}" for exporter in ("newer", "older") for side in SIDES)]
    return _table(head, rows)


def _cell(found: Result | None, side: str) -> str:
    if found is None or "error" in found:
        return "" if found is None else "-"
    row = found[side]
    outcomes = {_outcome(row[strategy]) for strategy in STRATEGIES} - {"equal"}
    note = "" if not outcomes else " !" if {"different", "refused"} & outcomes else " *"
    if "left" not in row["gather"] or "bound" not in row:
        return note.strip()
    return f"{row['gather']['left']:.2f} of {row['bound']:.2f}{note}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
