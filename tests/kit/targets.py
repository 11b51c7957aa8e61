"""Prices under which everything happens: on small models real ones never let a copy pay.

`TARGETS` are paths of profiles, by what is special about them. `EVERY` names those that together
bring about every realization and every count.
"""

from __future__ import annotations

import atexit
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnx_upscale.prices import load_prices

_COPIES = (
    "seconds_per_source_byte",
    "seconds_per_copied_byte",
    "seconds_per_gathered",
    "seconds_per_row",
    "seconds_per_node",
)
_MACS = ("seconds_per_mac", "seconds_per_product_mac")


def _changes() -> dict[str, dict[str, Any]]:
    free, dear = dict.fromkeys(_COPIES, 0.0), dict.fromkeys(_COPIES, 1.0)
    changes: dict[str, dict[str, Any]] = {
        "copies free": free,
        "copies dear": dear,
        "multiply-adds free": dict.fromkeys(_MACS, 0.0),
    }
    for count in (1, 8, 64):
        changes[f"blocks of {count}"] = {"block": count, "align": count}
        changes[f"copies free, blocks of {count}"] = {**free, "block": count, "align": count}
    dear_macs = dict.fromkeys(_MACS, 1.0)
    changes["multiply-adds dear, blocks of 1"] = {**dear_macs, "block": 1, "align": 1}
    changes["one layout"] = {**dear_macs, "block": 1, "align": 1, "layouts": 1}
    changes["copies free, align 2"] = {**free, "block": 4, "align": 2}
    return changes


def _write() -> Mapping[str, str]:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    plain = dataclasses.asdict(load_prices("cpu-avx512"))  # type: ignore[call-overload]
    paths = {"as built in": "cpu-avx512"}
    for number, (name, change) in enumerate(_changes().items()):
        path = folder / f"{number}.json"
        content = {"version": 1, "kind": "analytic", **plain, **change}
        path.write_text(json.dumps(content), "utf-8")
        paths[name] = str(path)
    return paths


TARGETS = _write()
