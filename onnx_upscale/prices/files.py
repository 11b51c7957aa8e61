"""Profiles: prices as versioned JSON, built in or in the user's files."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, asdict, fields
from importlib import resources
from pathlib import Path
from typing import Any

from onnx_upscale.choices import TARGETS
from onnx_upscale.errors import UsageError
from onnx_upscale.prices.analytic import AnalyticPrices
from onnx_upscale.prices.interface import Prices
from onnx_upscale.prices.kernels import FAMILIES, WEIGHTS, Kernel
from onnx_upscale.prices.machine import cpu_kind
from onnx_upscale.prices.table import Measured, TablePrices

VERSION = 1
_CPU = "cpu"


def load_prices(target: str | os.PathLike[str]) -> Prices:
    """Loads the prices of a target.

    Args:
        target: One of `TARGETS`, of which `cpu` is the kind of CPU at hand, or the path of a
            profile.

    Returns:
        The prices.

    Raises:
        UsageError: There is no such profile, or something in it is not as it must be.
    """
    if target in TARGETS:
        name = cpu_kind() if target == _CPU else target
        text = resources.files(__package__).joinpath(f"profiles/{name}.json").read_text("utf-8")
        return _parse(json.loads(text), str(target))
    path = Path(target)
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        known = ", ".join(TARGETS)
        raise UsageError(f"target '{path}': no such profile (built in: {known})") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise UsageError(f"target '{path}': bad JSON at {where}: {error.msg}") from None
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"target '{path}': cannot be read: {error}") from None
    return _parse(content, str(path))


def target_warnings(target: str | os.PathLike[str]) -> tuple[str, ...]:
    """What to tell somebody who plans for a target: that it is not this machine's kind of CPU."""
    here = cpu_kind()
    if target not in TARGETS or not str(target).startswith(f"{_CPU}-") or target == here:
        return ()
    return (f"planned for {target}, but this machine is {here}: its latencies here tell little",)


def _parse(content: Any, where: str) -> Prices:
    if not isinstance(content, dict):
        raise UsageError(f"target '{where}': expected a JSON object")
    content = dict(content)
    version, kind = content.pop("version", None), content.pop("kind", None)
    if version != VERSION:
        raise UsageError(
            f"target '{where}': {_given('version', version)}, this program reads {VERSION}"
        )
    if kind not in _KINDS:
        raise UsageError(f"target '{where}': {_given('kind', kind)} (known: {', '.join(_KINDS)})")
    return _KINDS[kind](content, where)


def _analytic(content: dict[str, Any], where: str) -> AnalyticPrices:
    check_fields(AnalyticPrices, content, where)
    return AnalyticPrices(**content)


def _table(content: dict[str, Any], where: str) -> TablePrices:
    expected = {"name": str, "machine": dict, "errors": dict, "fallback": dict, "families": dict}
    _check_names(expected.keys(), content, where)
    for name, kind in expected.items():
        if not isinstance(content[name], kind):
            raise UsageError(f"target '{where}': field '{name}' cannot be {content[name]!r:.80}")
    families = {
        name: _measured(name, family, f"{where}' in family '{name}")
        for name, family in content["families"].items()
    }
    fallback = _analytic(content["fallback"], f"{where}' in 'fallback")
    return TablePrices(content["name"], fallback, families)


def _measured(family: str, content: Any, where: str) -> Measured:
    if family not in FAMILIES:
        raise UsageError(f"target '{where}': unknown family (known: {', '.join(FAMILIES)})")
    try:
        weights = tuple(float(weight) for weight in content["weights"])
        rows = [tuple(map(int, row[:-1])) for row in content["kernels"]]
        seconds = tuple(float(row[-1]) for row in content["kernels"])
        kernels = tuple(Kernel(family, *row) for row in rows)
        fits = len(weights) == WEIGHTS and all(0 <= w < math.inf for w in weights)
        fits &= bool(rows) and all(len(row) == 6 and min(row) >= 1 for row in rows)
        fits &= all(0 < value < math.inf for value in seconds)
    except (TypeError, KeyError, ValueError, IndexError, OverflowError):
        fits = False
    if not fits:
        raise UsageError(
            f"target '{where}': expected {WEIGHTS} 'weights' from 0 on, and 'kernels' as rows of "
            "inputs, outputs, places, window, stride, groups and seconds, all above 0"
        )
    return Measured(weights, kernels, seconds)


_KINDS: Mapping[str, Callable[[dict[str, Any], str], Prices]] = {
    "analytic": _analytic,
    "table": _table,
}


def table_json(
    prices: TablePrices, machine: Mapping[str, Any], errors: Mapping[str, Any]
) -> dict[str, Any]:
    """A table as the content of a profile.

    Args:
        prices: The prices.
        machine: What they were measured on.
        errors: How far off they are.

    Returns:
        What `load_prices` reads from a file.
    """
    families = {
        family: {
            "weights": list(measured.weights),
            "kernels": [
                [k.inputs, k.outputs, k.places, k.window, k.stride, k.groups, seconds]
                for k, seconds in zip(measured.kernels, measured.seconds, strict=True)
            ],
        }
        for family, measured in prices.families.items()
    }
    return {
        "version": VERSION,
        "kind": "table",
        "name": prices.name,
        "machine": dict(machine),
        "errors": dict(errors),
        "fallback": asdict(prices.fallback),
        "families": families,
    }


def _given(field: str, value: Any) -> str:
    return f"field '{field}' is missing" if value is None else f"unknown {field} {value!r}"


def check_fields(record: type, content: dict[str, Any], where: str) -> None:
    """Checks that a JSON object holds just the fields of a flat record, with values that can be.

    Args:
        record: A dataclass of strings, whole numbers from 1 on, and numbers from 0 on; what has a
            default may be missing.
        content: The object.
        where: What messages say it is.

    Raises:
        UsageError: It does not.
    """
    names = {field.name: field.type for field in fields(record)}
    optional = {field.name: field.default for field in fields(record) if field.default != MISSING}
    _check_names(names.keys(), {**optional, **content}, where)
    for name, value in content.items():
        type_ = names[name]
        if type_ == "str":
            fits = isinstance(value, str)
        elif type_ == "int":
            fits = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        else:
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            fits = number and 0 <= value < float("inf")
        if not fits:
            raise UsageError(f"target '{where}': field '{name}' cannot be {value!r}")


def _check_names(names: Collection[str], content: Mapping[str, Any], where: str) -> None:
    missing, unknown = set(names) - content.keys(), content.keys() - set(names)
    if missing or unknown:
        what = "missing" if missing else "unknown"
        raise UsageError(f"target '{where}': {what} field '{min(missing or unknown)}'")
