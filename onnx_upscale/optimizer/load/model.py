"""Reading a model from wherever the caller has it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import helper

from onnx_upscale.errors import ModelError, UsageError
from onnx_upscale.in_place import read_in_place
from onnx_upscale.mapped import Place, embedded, load_or_map, refer
from onnx_upscale.optimizer.load.inlining import inline_functions
from onnx_upscale.optimizer.load.order import sort_nodes
from onnx_upscale.storage import Stored, external_files


class InPlace(os.PathLike[str]):
    """The path of a model whose file is there, and stays as it is, as long as the model is in use.

    Its large weights are left there until somebody looks at them.

    Args:
        path: The path.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return self._path

    def __str__(self) -> str:
        return self._path


ModelSource = str | os.PathLike[str] | onnx.ModelProto | Stored


def read_model(source: ModelSource) -> onnx.ModelProto:
    """Reads an ONNX model, weights in external files included.

    Args:
        source: A path, or a model in memory, which is copied so that the caller's stays as it is.
            One that `read_files` gave may have weights in files.

    Returns:
        A model that nobody else holds, its nodes in topological order, its functions inlined.

    Raises:
        ModelError: There is no such file, or it is no ONNX model, or a broken one.
    """
    return read_files(source).model


def read_files(source: ModelSource, mapped: bool = False) -> Stored:
    """Reads an ONNX model, and says in which external files its weights lie.

    Args:
        source: As for `read_model`.
        mapped: Whether large weights stay in external files (`onnx_upscale.mapped`).

    Returns:
        What `read_model` gives, but for these weights, and the external files.

    Raises:
        ModelError: As `read_model`.
    """
    model = onnx.ModelProto()
    if isinstance(source, Stored):
        model.CopyFrom(source.model)
        return Stored(model if mapped else embedded(model), source.sources)
    if isinstance(source, onnx.ModelProto):
        model.CopyFrom(source)
        _check(model, "the model")
        if external_files(model, ""):
            raise ModelError(
                "the model: has weights in external files that were not loaded; give its path, or "
                "load them with onnx.load"
            )
        inline_functions(model)
        sort_nodes(model.graph)
        return Stored(model)
    try:
        path = Path(source)
    except TypeError:
        kind = type(source).__name__
        raise UsageError(f"the model: expected a path or a ModelProto, found {kind}") from None
    places: Mapping[str, Place] = {}
    try:
        in_place = read_in_place(path) if mapped and isinstance(source, InPlace) else None
        if in_place is None:
            model.ParseFromString(path.read_bytes())
        else:
            model, places = in_place
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ModelError(f"{path}: is a directory, not an ONNX file") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (DecodeError, ValueError):
        raise ModelError(f"{path}: not an ONNX model, or a truncated one") from None
    stored = adopt(model, path.parent, mapped, str(path))
    for tensor in stored.model.graph.initializer:
        if tensor.name in places:
            refer(tensor, places[tensor.name])
    return stored


def adopt(
    model: onnx.ModelProto, folder: Path, mapped: bool = False, where: str = "the model"
) -> Stored:
    """Makes a model one to work on that is as its own file would have it.

    Args:
        model: The model, which nobody else holds. It is changed.
        folder: Where the files are in which weights of it may lie.
        mapped: As for `read_files`.
        where: What the model is called in messages.

    Returns:
        As `read_files`.

    Raises:
        ModelError: As `read_model`.
    """
    _check(model, where)
    try:
        files = external_files(model, folder / "model.onnx")
        if mapped:
            load_or_map(model, folder)
        else:
            onnx.load_external_data_for_model(model, str(folder))
    except (OSError, ValueError, RuntimeError, onnx.checker.ValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{where}: its external weights cannot be read: {reason}") from None
    _check_weights(model, where)
    inline_functions(model)
    sort_nodes(model.graph)
    return Stored(model, files)


def stored_or_path(source: ModelSource) -> Stored | str:
    """A model that is in memory already, or the path of one that is not."""
    if isinstance(source, onnx.ModelProto):
        return Stored(source)
    return source if isinstance(source, Stored) else os.fspath(source)


def check_lasting(path: str) -> None:
    """Sees to it that a file can be read more than once.

    Raises:
        ModelError: It is a pipe or the like.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise ModelError(f"{path}: can be read only once: write the model to a file first")


def why_invalid(source: ModelSource) -> str | None:
    """What the ONNX checker has against a model.

    It is asked only when something went wrong, for it refuses models that run well elsewhere.

    Args:
        source: A path, or a model in memory.

    Returns:
        The first line of its complaint, or None if it has none.
    """
    held = stored_or_path(source)
    try:
        onnx.checker.check_model(held if isinstance(held, str) else embedded(held.model))
    except Exception as error:  # It and protobuf raise classes of their own that share no base.
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return None


def _check(model: onnx.ModelProto, where: str) -> None:
    # Empty files and some random bytes parse as a protobuf message without content.
    if not model.ir_version or not model.opset_import or not model.graph.output:
        raise ModelError(f"{where}: not an ONNX model (no graph outputs or operator set in it)")


def _check_weights(model: onnx.ModelProto, where: str) -> None:
    """External files are read as far as they go, so a truncated one shows only here."""
    for tensor in model.graph.initializer:
        if not tensor.HasField("raw_data"):
            continue
        try:
            dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        except KeyError:
            kind = tensor.data_type
            raise ModelError(f"{where}: weight '{tensor.name}' has unknown type {kind}") from None
        wanted = math.prod(tensor.dims) * dtype.itemsize
        if dtype.isbuiltin == 1 and len(tensor.raw_data) != wanted:  # Others may be packed.
            raise ModelError(
                f"{where}: weight '{tensor.name}' has {len(tensor.raw_data)} bytes, but its shape "
                f"needs {wanted}: the file or its external weights are broken"
            )
