"""Which samples are used, and in which batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from onnx_upscale.declared import shape_of
from onnx_upscale.errors import DataError
from onnx_upscale.optimizer.load.graph import IntArray
from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.running import model_inputs
from onnx_upscale.samples.arrays import Samples

_BATCH = 8
_HELD_OUT = 5  # One of so many samples is held out.


@dataclass(frozen=True)
class Batch:
    """Some samples as a model reads them.

    Attributes:
        inputs: Arrays by input name.
        present: How many samples there are, from the start; what follows only fills the batch up.
    """

    inputs: dict[str, Array]
    present: int


def split(count: int, most: int, seed: int) -> tuple[IntArray, IntArray]:
    """Divides samples into those to calibrate on and those held out.

    Args:
        count: How many samples there are.
        most: How many to use at most.
        seed: Seed of the choice.

    Returns:
        Indices of both, each sorted. One sample alone is in both.
    """
    chosen = np.random.default_rng(seed).permutation(count)[:most]
    if len(chosen) == 1:
        return chosen, chosen
    held = max(1, len(chosen) // _HELD_OUT)
    return np.sort(chosen[held:]), np.sort(chosen[:held])


def batches(samples: Samples, indices: IntArray, model: onnx.ModelProto) -> Iterator[Batch]:
    """Some samples, in batches of the size that a model wants.

    Args:
        samples: The samples.
        indices: Which of them.
        model: The model. Where its batch is fixed, the last one is filled up by repetition.

    Yields:
        Batches, in order.

    Raises:
        DataError: A sample holds NaN or infinity.
    """
    fixed = fixed_batch(model)
    read = _batch_size(samples, model)
    for start in range(0, len(indices), read):
        chosen = indices[start : start + read]
        inputs = samples.at(chosen.tolist())
        for name, array in inputs.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                first = _first_bad(array)
                raise DataError(
                    f"sample {int(chosen[first])}: input '{name}' holds infinities or NaNs"
                )
        if fixed is not None and len(chosen) < fixed:
            inputs = {
                name: np.resize(array, (fixed, *array.shape[1:])) for name, array in inputs.items()
            }
        yield Batch(inputs, len(chosen))


def divide(
    samples: Samples, indices: IntArray, model: onnx.ModelProto, parts: int
) -> list[tuple[IntArray, int]]:
    """Divides samples into parts of whole batches, about equally long.

    Args:
        samples: The samples.
        indices: Which of them.
        model: The model.
        parts: Into how many; there are fewer where there are fewer batches.

    Returns:
        Per part its indices, and how many batches come before it.
    """
    size = _batch_size(samples, model)
    numbers = np.arange(-(-len(indices) // size))
    found = []
    for own in np.array_split(numbers, max(min(parts, len(numbers)), 1)):
        first, last = int(own[0]), int(own[-1])
        found.append((indices[first * size : (last + 1) * size], first))
    return found


def _batch_size(samples: Samples, model: onnx.ModelProto) -> int:
    return (fixed_batch(model) or _BATCH) if samples.together else 1


def _first_bad(array: Array) -> int:
    return int(np.argmin(np.isfinite(array).reshape(len(array), -1).all(1)))


def fixed_batch(model: onnx.ModelProto) -> int | None:
    """How many samples a model wants at once, or None where it takes any count."""
    sizes = [
        shape_of(value)[0] for value in model_inputs(model) if len(value.type.tensor_type.shape.dim)
    ]
    return next((size for size in sizes if isinstance(size, int)), None)
