"""Samples of any kind."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TypeAlias, cast

import numpy as np
import onnx

from onnx_upscale.errors import DataError
from onnx_upscale.samples.arrays import DataSource, Samples, open_samples
from onnx_upscale.samples.images import Images
from onnx_upscale.samples.streams import DataReader, Stream, is_spec, read_module, read_stream

SampleSource: TypeAlias = "DataSource | Stream | Samples"
"""Where samples can come from; a text is a path or `MODULE:FUNCTION`."""


def open_source(source: SampleSource, model: onnx.ModelProto, most: int) -> Samples:
    """Opens samples of any kind and checks that they fit a model.

    Args:
        source: An .npz file (arrays by input name; a single one may have any), an .npy file (the
            one input), a folder of images, `MODULE:FUNCTION` (a function that yields dictionaries
            from input name to array), arrays, `Images`, an iterable of such dictionaries, or an
            object with `get_next()`.
        model: The model that will read them.
        most: How many samples of what comes one after the other are read at most.

    Returns:
        The samples.

    Raises:
        DataError: They cannot be read or do not fit the inputs of the model.
        UsageError: A function that was named is not there.
    """
    if isinstance(source, Samples):
        return source
    if isinstance(source, str) and not os.path.exists(source) and is_spec(source):
        return read_module(source, model, most)
    if isinstance(source, str | os.PathLike | np.ndarray | Mapping | Images):
        return open_samples(source, model, any_name=True)
    if isinstance(source, Iterable | DataReader):
        return read_stream(cast("Stream", source), model, most, "the samples")
    raise DataError(
        f"samples of type {type(source).__name__}: give a path, MODULE:FUNCTION, arrays, or "
        "dictionaries from input name to array"
    )
