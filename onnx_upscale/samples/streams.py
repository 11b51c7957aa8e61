"""Samples that come one after the other, and only once: generators, data readers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import onnx

from onnx_upscale.errors import DataError, UpscaleError, UsageError
from onnx_upscale.modules import importable, load_attribute, module_file, said
from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.running import model_inputs
from onnx_upscale.samples.checks import checked_type


@runtime_checkable
class DataReader(Protocol):
    """What onnxruntime calls a CalibrationDataReader."""

    def get_next(self) -> Mapping[str, Any] | None:
        """The next inputs by name, or None at the end."""


Stream: TypeAlias = "Iterable[Mapping[str, Any]] | DataReader"


@dataclass(frozen=True)
class StreamSamples:
    """Samples out of a stream, in memory.

    Attributes:
        items: What the stream gave, each one or more samples along the first axis.
        places: Per sample, which item holds it and where.
    """

    items: tuple[Mapping[str, Array], ...]
    places: tuple[tuple[int, int], ...]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.places)

    @property
    def together(self) -> bool:
        """Whether several can be read at once; if not, their shapes differ."""
        shapes = {tuple(array.shape[1:] for array in item.values()) for item in self.items}
        return len(shapes) == 1

    def at(self, indices: Sequence[int]) -> dict[str, Array]:
        """Those at some places, by input name."""
        found = [self.places[index] for index in indices]
        return {
            name: np.concatenate([self.items[item][name][row : row + 1] for item, row in found])
            for name in self.items[0]
        }

    def read(self, start: int, stop: int) -> dict[str, Array]:
        """Some of them one after the other, by input name."""
        return self.at(range(self.count)[start:stop])


def read_stream(stream: Stream, model: onnx.ModelProto, most: int, where: str) -> StreamSamples:
    """Reads samples out of a stream.

    Args:
        stream: Dictionaries from input name to array, each of any count of samples along the first
            axis; or an object whose `get_next()` gives them.
        model: The model that will read them.
        most: How many samples to read at most.
        where: What the stream is, for messages.

    Returns:
        The samples.

    Raises:
        DataError: There are none, or they do not fit the inputs of the model.
    """
    items: list[dict[str, Array]] = []
    places: list[tuple[int, int]] = []
    for number, given in enumerate(_iterate(stream, where)):
        item = _checked_item(given, model, f"{where}: dictionary {number}")
        count = min(len(next(iter(item.values()))), most - len(places))
        places += [(number, row) for row in range(count)]
        items.append({name: array[:count] for name, array in item.items()})
        if len(places) == most:
            break
    if not places:
        once = isinstance(stream, DataReader)
        hint = "; a data reader gives each only once: make a new one" if once else ""
        raise DataError(f"{where}: there are no samples in it{hint}")
    return StreamSamples(tuple(items), tuple(places))


def _iterate(stream: Stream, where: str) -> Iterator[Any]:
    if isinstance(stream, type):
        raise DataError(f"{where}: is the class {stream.__name__}: give an object of it")
    try:
        if not isinstance(stream, DataReader):
            yield from stream
            return
        while (given := stream.get_next()) is not None:  # Only None itself is the end.
            yield given
    except UpscaleError:
        raise
    except (Exception, SystemExit) as error:  # Whatever the user's code raises.
        raise DataError(f"{where}: failed: {said(error)}") from None


def _checked_item(given: Any, model: onnx.ModelProto, where: str) -> dict[str, Array]:
    if not isinstance(given, Mapping):
        kind = type(given).__name__
        raise DataError(f"{where}: expected a dictionary from input name to array, found {kind}")
    inputs = {value.name: value for value in model_inputs(model)}
    if given.keys() != inputs.keys():
        found = ", ".join(map(str, given)) or "none"
        raise DataError(
            f"{where}: expected one array per input ({', '.join(inputs)}), found {found}"
        )
    item = {}
    for name, value in inputs.items():
        array = np.asarray(given[name])
        wanted = checked_type(value, array, f"{where}: input '{name}'")
        # A copy, for the stream may use its arrays again.
        item[name] = np.array(array, wanted)
    if len({len(array) for array in item.values()}) > 1:
        listed = ", ".join(f"{name} {len(array)}" for name, array in item.items())
        raise DataError(f"{where}: inputs differ in how many samples they have: {listed}")
    if not item:
        raise DataError("the model has no inputs, so that samples tell nothing")
    return item


def is_spec(source: str) -> bool:
    """Whether a text is of the form `MODULE:FUNCTION`."""
    module, _, name = source.rpartition(":")
    named = all(part.isidentifier() for part in name.split("."))
    return bool(module) and named and (module_file(source) is not None or _is_dotted(module))


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def read_module(spec: str, model: onnx.ModelProto, most: int) -> StreamSamples:
    """Reads samples that a function of the user gives.

    Args:
        spec: `MODULE:FUNCTION`: a function without arguments that yields dictionaries, or returns
            a stream; or a stream itself.
        model: The model that will read them.
        most: How many samples to read at most.

    Returns:
        The samples.

    Raises:
        UsageError: There is no such function.
        DataError: It fails, or what it gives does not fit the inputs of the model.
    """
    with importable(spec):
        stream = load_attribute(spec).value
        where = spec
        if callable(stream):
            where = f"{spec}()"
            try:
                stream = stream()
            except (Exception, SystemExit) as error:  # Whatever the user's function raises.
                raise DataError(f"{where}: failed: {said(error)}") from None
        if not isinstance(stream, (Iterable, DataReader)) or isinstance(stream, (str, Mapping)):
            raise UsageError(
                f"{where} is of type {type(stream).__name__}: expected a generator of dictionaries "
                "from input name to array"
            )
        return read_stream(stream, model, most, where)
