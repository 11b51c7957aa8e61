"""Profiles: prices as versioned JSON, built in or in the user's files."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any

from onnx_upscale.errors import UsageError
from onnx_upscale.prices.analytic import AnalyticPrices
from onnx_upscale.prices.interface import Prices
from onnx_upscale.prices.machine import cpu_kind

VERSION = 1
BUILT_IN = ("cpu", "cpu-avx512", "cpu-avx2", "cpu-arm64", "cuda")
_CPU = "cpu"


def load_prices(target: str | os.PathLike[str]) -> Prices:
    """Loads the prices of a target.

    Args:
        target: One of `BUILT_IN`, of which `cpu` is the kind of CPU at hand, or the path of a
            profile.

    Returns:
        The prices.

    Raises:
        UsageError: There is no such profile, or something in it is not as it must be.
    """
    if target in BUILT_IN:
        name = cpu_kind() if target == _CPU else target
        text = resources.files(__package__).joinpath(f"profiles/{name}.json").read_text("utf-8")
        return _parse(json.loads(text), str(target))
    path = Path(target)
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        known = ", ".join(BUILT_IN)
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
    if target not in BUILT_IN or not str(target).startswith(f"{_CPU}-") or target == here:
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
    if kind != "analytic":
        raise UsageError(f"target '{where}': {_given('kind', kind)} (known: analytic)")
    check_fields(AnalyticPrices, content, where)
    return AnalyticPrices(**content)


def _given(field: str, value: Any) -> str:
    return f"field '{field}' is missing" if value is None else f"unknown {field} {value!r}"


def check_fields(record: type, content: dict[str, Any], where: str) -> None:
    """Checks that a JSON object holds just the fields of a flat record, with values that can be.

    Args:
        record: A dataclass of strings, whole numbers from 1 on, and numbers from 0 on.
        content: The object.
        where: What messages say it is.

    Raises:
        UsageError: It does not.
    """
    names = {field.name: field.type for field in fields(record)}
    missing, unknown = names.keys() - content.keys(), content.keys() - names.keys()
    if missing or unknown:
        what = "missing" if missing else "unknown"
        raise UsageError(f"target '{where}': {what} field '{min(missing or unknown)}'")
    for name, type_ in names.items():
        value = content[name]
        if type_ == "str":
            fits = isinstance(value, str)
        elif type_ == "int":
            fits = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        else:
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            fits = number and 0 <= value < float("inf")
        if not fits:
            raise UsageError(f"target '{where}': field '{name}' cannot be {value!r}")
