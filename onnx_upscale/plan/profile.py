"""Cost profiles: what work costs on a target."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from onnx_upscale.errors import UsageError

BUILT_IN = ("cpu", "cuda")


@dataclass(frozen=True)
class Profile:
    """Prices of one target, in seconds.

    Attributes:
        name: What the target is called.
        description: What was measured, on what.
        seconds_per_mac: One multiply-add of a dense layer in its best shape.
        seconds_per_source_byte: One byte of a tensor that is copied from, whose layout must change.
        seconds_per_copied_byte: One byte that a copy writes.
        near_bytes: The largest copy that fits the caches.
        far: How much longer a larger one takes per byte.
        seconds_per_node: One more node.
        block: The fast kernels compute whole blocks of this many channels; Concat and pooling work
            on nothing but whole blocks.
        align: A layer with a channel count that is no multiple of this leaves the fast kernels, for
            others that compute just the channels there are.
        few_pointwise: How much longer a multiply-add takes in a layer without a window that reads
            fewer channels than a block.
        unaligned: How much longer a multiply-add takes in the kernels for any count.
        unaligned_pointwise: The same for a layer without a window.
        seconds_per_unrolled: One element of the input of a layer with a window, once per place of
            the window, as those kernels unroll it before they multiply.
    """

    name: str
    description: str
    seconds_per_mac: float
    seconds_per_source_byte: float
    seconds_per_copied_byte: float
    near_bytes: int
    far: float
    seconds_per_node: float
    block: int
    align: int
    few_pointwise: float
    unaligned: float
    unaligned_pointwise: float
    seconds_per_unrolled: float


def load_profile(target: str | os.PathLike[str]) -> Profile:
    """Loads a profile.

    Args:
        target: `cpu`, `cuda`, or the path of a JSON file with the fields of `Profile`.

    Returns:
        The profile.

    Raises:
        UsageError: There is no such profile, or something in it is not as it must be.
    """
    if target in BUILT_IN:
        text = resources.files(__package__).joinpath(f"profiles/{target}.json").read_text("utf-8")
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
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"target '{path}': cannot be read: {error}") from None
    return _parse(content, str(path))


def _parse(content: Any, where: str) -> Profile:
    if not isinstance(content, dict):
        raise UsageError(f"target '{where}': expected a JSON object")
    names = {field.name: field.type for field in fields(Profile)}
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
            fits = isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
        if not fits:
            raise UsageError(f"target '{where}': field '{name}' cannot be {value!r}")
    return Profile(**content)
