"""Mask files: reading and checking them, with no model at hand."""

from __future__ import annotations

import io
import json
import os
import reprlib
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_upscale.choices import SIDES
from onnx_upscale.errors import MaskError
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.load.sides import Side

MaskSource = str | os.PathLike[str] | Mapping[str, Any] | None

_FORMS = ("prune", "keep", "mask")
_VERSION = 1


def document(masks: Mapping[str, Any]) -> dict[str, Any]:
    """Masks, by layer and side, in the form of a mask file."""
    return {"version": _VERSION, "masks": masks}


@dataclass(frozen=True)
class Mask:
    """Which channels of one side of a layer are pruned.

    Attributes:
        key: What the file calls the layer.
        side: The side of the layer.
        form: `prune` or `keep` (then `values` are indices), or `mask` (then 0 is pruned).
        values: Indices or flags.
        name: What the layer is called in the graph that it is in; empty where that is the key.
    """

    key: str
    side: Side
    form: str
    values: IntArray
    name: str = ""

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
        return (chosen if self.form == "prune" else ~chosen).nonzero()[0]

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
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise MaskError(f"{path}: no such mask file (use '-' for no masks)") from None
    except IsADirectoryError:
        raise MaskError(f"{path}: is a directory, not a mask file") from None
    except OSError as error:
        raise MaskError(f"{path}: cannot be read: {error.strerror or error}") from None
    if path.suffix.lower() == ".npz":
        return _read_npz(data, str(path))
    return _parse(_read_json(data, str(path)), str(path))


def as_document(source: MaskSource) -> dict[str, Any] | None:
    """Masks of any kind as the dictionary of a mask file, to keep after the file has changed.

    Args:
        source: As for `read_masks`.

    Returns:
        The dictionary; None where no masks are given.

    Raises:
        MaskError: As `read_masks`.
    """
    if source is None or source == "-":
        return None
    layers: dict[str, Any] = {}
    for mask in read_masks(source):
        layers.setdefault(mask.key, {})[str(mask.side)] = {mask.form: mask.values.tolist()}
    return document(layers)


class _Object(dict[str, Any]):
    """A JSON object that remembers a key given twice, for an error that can say where."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        counts = Counter(name for name, _ in pairs)
        self.twice = next((name for name, count in counts.items() if count > 1), None)


def _read_json(data: bytes, where: str) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_Object)
    except UnicodeDecodeError:
        raise MaskError(f"{where}: not a JSON file (it is not UTF-8 text)") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise MaskError(f"{where}: bad JSON at {place}: {error.msg}") from None
    except (RecursionError, ValueError) as error:  # Nested too deeply; too many digits.
        raise MaskError(f"{where}: bad JSON: {error}") from None


def _parse(content: Any, where: str) -> tuple[Mask, ...]:
    fields = _fields(content, where, ("version", "masks"))
    version = fields.get("version")
    if version != _VERSION or isinstance(version, bool):
        found = reprlib.repr(version) if "version" in fields else "none"
        raise MaskError(f"{where}: unknown version {found} (this tool reads version {_VERSION})")
    masks = _fields(fields.get("masks"), f"{where}: 'masks'")
    return tuple(mask for key, sides in masks.items() for mask in _parse_layer(key, sides))


def _parse_layer(key: str, sides: Any) -> tuple[Mask, ...]:
    fields = _fields(sides, f"mask '{key}'", SIDES)
    return tuple(_parse_side(key, side, fields[side]) for side in Side if side in fields)


def _parse_side(key: str, side: Side, value: Any) -> Mask:
    where = f"mask '{key}', side '{side}'"
    form = "prune"
    if isinstance(value, Mapping):
        fields = _fields(value, where, _FORMS)
        if len(fields) != 1:
            found = ", ".join(fields) or "none"
            raise MaskError(f"{where}: expected exactly one of {', '.join(_FORMS)}; found {found}")
        ((form, value),) = fields.items()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise MaskError(f"{where}: expected a list of whole numbers, found {reprlib.repr(value)}")
    numbers = _numbers(value)
    if numbers is not None and form != "mask":
        return Mask(key, side, form, numbers)
    for entry in value if numbers is None else (numbers.min(), numbers.max()):
        flag = isinstance(entry, (bool, np.bool_))
        if not isinstance(entry, (int, np.integer, np.bool_)) or (flag and form != "mask"):
            raise MaskError(f"{where}: expected whole numbers, found {reprlib.repr(entry)}")
        if form == "mask" and entry not in (0, 1):
            raise MaskError(f"{where}: mask entries are 0 or 1, found {entry}")
        if abs(int(entry)) >= 2**31:
            raise MaskError(f"{where}: channel {entry} is out of range")
    return Mask(key, side, form, np.array(value, np.int64) if numbers is None else numbers)


def _numbers(value: Sequence[Any]) -> IntArray | None:
    """Entries that are numbers of 32 bits, all at once; None where each must be looked at."""
    if set(map(type, value)) != {int}:
        return None
    try:
        return np.fromiter(value, np.int32, len(value)).astype(np.int64)
    except OverflowError:
        return None


def _fields(content: Any, where: str, known: Sequence[str] = ()) -> dict[str, Any]:
    """The fields of an object, of which all must be known, where it says which are."""
    if not isinstance(content, Mapping):
        fields = f" with {' and/or '.join(map(repr, known))}" if known else ""
        found = "nothing" if content is None else reprlib.repr(content)
        raise MaskError(f"{where}: expected an object{fields}, found {found}")
    if isinstance(content, _Object) and content.twice is not None:
        raise MaskError(f"{where}: duplicate key '{content.twice}'")
    unknown = next((name for name in content if known and name not in known), None)
    if unknown is not None:
        raise MaskError(f"{where}: unknown field '{unknown}' (known: {', '.join(known)})")
    return {str(name): value for name, value in content.items()}


def _read_npz(data: bytes, where: str) -> tuple[Mask, ...]:
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise MaskError(f"{where}: not a .npz file, or a truncated one")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            content = [(name, np.asarray(arrays[name])) for name in arrays.files]
    except Exception as error:  # Broken archives make zipfile, zlib and numpy raise a dozen kinds.
        raise MaskError(f"{where}: not a readable .npz file: {error}") from None
    twice = _Object(content).twice
    if twice is not None:
        raise MaskError(f"{where}: duplicate key '{twice}'")
    return tuple(_parse_array(name, flags, where) for name, flags in content)


def _parse_array(name: str, flags: npt.NDArray[Any], where: str) -> Mask:
    key, _, side = name.rpartition(".")
    if side not in SIDES or not key:
        raise MaskError(f"{where}: array '{name}' must be named KEY.input or KEY.output")
    if flags.ndim != 1 or flags.dtype.kind not in "biu" or not np.isin(flags, (0, 1)).all():
        raise MaskError(
            f"mask '{key}', side '{side}': expected a boolean or 0/1 vector, "
            f"found {flags.dtype} of shape {flags.shape}"
        )
    return Mask(key, Side(side), "mask", flags.astype(np.int64))
