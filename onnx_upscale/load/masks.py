"""Mask files: reading and checking them, with no model at hand."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnx_upscale.errors import MaskError
from onnx_upscale.load.graph import IntArray

MaskSource = str | os.PathLike[str] | Mapping[str, Any] | None

SIDES = ("input", "output")
_FORMS = ("prune", "keep", "mask")
_VERSION = 1


@dataclass(frozen=True)
class Mask:
    """Which channels of one side of a layer are pruned.

    Attributes:
        key: What the file calls the layer.
        side: `input` or `output`.
        form: `prune` or `keep` (then `values` are indices), or `mask` (0/1 per channel, 0 = pruned).
        values: Indices or flags.
    """

    key: str
    side: str
    form: str
    values: IntArray

    def pruned(self, channels: int) -> IntArray:
        """The pruned channels of a side that has `channels` of them, in ascending order.

        Raises:
            MaskError: An index is out of range, or the mask has the wrong length.
        """
        if self.form == "mask":
            if len(self.values) != channels:
                raise self.error(
                    f"mask has {len(self.values)} entries, but the layer has {channels} channels"
                )
            return np.flatnonzero(self.values == 0)
        wrong = self.values[(self.values < 0) | (self.values >= channels)]
        if wrong.size:
            kind = "is negative" if wrong[0] < 0 else "is out of range"
            raise self.error(f"channel {wrong[0]} {kind}: use 0 to {channels - 1}")
        chosen = np.zeros(channels, bool)
        chosen[self.values] = True
        return np.flatnonzero(chosen if self.form == "prune" else ~chosen)

    def error(self, what: str) -> MaskError:
        """An error that says where in the file it is."""
        return MaskError(f"mask '{self.key}', side '{self.side}': {what}")


def read_masks(source: MaskSource) -> tuple[Mask, ...]:
    """Reads masks from a `.json` or `.npz` file or a dictionary; `-` or None stands for none.

    Args:
        source: A path, a dictionary of the same form as the JSON file, `-` or None.

    Returns:
        The masks, in the order of the file.

    Raises:
        MaskError: The file cannot be read, or something in it is not of the contract's form.
    """
    if source is None or source == "-":
        return ()
    if isinstance(source, Mapping):
        return _parse(source, "masks")
    path = Path(source)
    if path.is_dir():
        raise MaskError(f"{path}: is a directory, not a mask file")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise MaskError(f"{path}: no such mask file (use '-' for no masks)") from None
    except OSError as error:
        raise MaskError(f"{path}: cannot be read: {error.strerror or error}") from None
    if path.suffix.lower() == ".npz":
        return _read_npz(path)
    return _parse(_read_json(data, path), str(path))


def _read_json(data: bytes, path: Path) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise MaskError(f"{path}: duplicate key '{key}'")
            found[key] = value
        return found

    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=unique)
    except UnicodeDecodeError:
        raise MaskError(f"{path}: not a JSON file (it is not UTF-8 text)") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise MaskError(f"{path}: bad JSON at {where}: {error.msg}") from None
    except RecursionError:
        raise MaskError(f"{path}: bad JSON: nested too deeply") from None


def _parse(content: Any, where: str) -> tuple[Mask, ...]:
    if not isinstance(content, Mapping):
        raise MaskError(f"{where}: expected an object with 'version' and 'masks'")
    unknown = sorted(set(map(str, content)) - {"version", "masks"})
    if unknown:
        raise MaskError(f"{where}: unknown field '{unknown[0]}' (known: version, masks)")
    version = content.get("version")
    if version != _VERSION or isinstance(version, bool):
        raise MaskError(f"{where}: unknown version {version!r} (this tool reads version 1)")
    masks = content.get("masks")
    if not isinstance(masks, Mapping):
        raise MaskError(f"{where}: 'masks' must be an object from layer names to sides")
    return tuple(mask for key, sides in masks.items() for mask in _parse_layer(str(key), sides))


def _parse_layer(key: str, sides: Any) -> tuple[Mask, ...]:
    if not isinstance(sides, Mapping):
        raise MaskError(f"mask '{key}': expected an object with 'input' and/or 'output'")
    unknown = sorted(set(map(str, sides)) - set(SIDES))
    if unknown:
        raise MaskError(f"mask '{key}': unknown field '{unknown[0]}' (known: input, output)")
    return tuple(_parse_side(key, side, sides[side]) for side in SIDES if side in sides)


def _parse_side(key: str, side: str, value: Any) -> Mask:
    where = f"mask '{key}', side '{side}'"
    form = "prune"
    if isinstance(value, Mapping):
        names = list(value)
        if len(names) != 1 or names[0] not in _FORMS:
            found = ", ".join(map(repr, names)) or "none"
            raise MaskError(f"{where}: expected exactly one of prune, keep, mask; found {found}")
        form, value = names[0], value[names[0]]
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise MaskError(f"{where}: expected a list of whole numbers, found {value!r}")
    for entry in value:
        whole = isinstance(entry, (int, np.integer)) and not isinstance(entry, bool)
        if not whole and not (form == "mask" and isinstance(entry, (bool, np.bool_))):
            raise MaskError(f"{where}: expected whole numbers, found {entry!r}")
        if form == "mask" and entry not in (0, 1):
            raise MaskError(f"{where}: mask entries are 0 or 1, found {entry!r}")
        if abs(int(entry)) >= 2**31:
            raise MaskError(f"{where}: channel {entry} is out of range")
    return Mask(key, side, form, np.array(value, np.int64))


def _read_npz(path: Path) -> tuple[Mask, ...]:
    masks = []
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = list(arrays.files)
            content = {name: arrays[name] for name in names}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MaskError(f"{path}: not a readable .npz file: {reason}") from None
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise MaskError(f"{path}: duplicate key '{twice}'")
    for name, flags in content.items():
        key, _, side = name.rpartition(".")
        if side not in SIDES or not key:
            raise MaskError(f"{path}: array '{name}' must be named KEY.input or KEY.output")
        if flags.ndim != 1 or flags.dtype.kind not in "biu" or not np.isin(flags, (0, 1)).all():
            raise MaskError(
                f"mask '{key}', side '{side}': expected a boolean or 0/1 vector, "
                f"found {flags.dtype} of shape {flags.shape}"
            )
        masks.append(Mask(key, side, "mask", flags.astype(np.int64)))
    return tuple(masks)
