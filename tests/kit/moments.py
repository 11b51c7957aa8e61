"""Second moments of what layers read, on random inputs, straight from their definition."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from numpy.lib.stride_tricks import sliding_window_view

from build import Array
from onnx_upscale.optimizer.load.layers import Layer

Floats = npt.NDArray[np.float64]


def columns(layer: Layer, data: Array) -> Floats:
    """What a layer sees, one column per position; convolutions have no dilations."""
    if layer.product or layer.transposed:
        return np.moveaxis(data, layer.data_axis, 0).reshape(layer.inputs, -1).astype(np.float64)
    spans = layer.weight_shape[2:]
    pads = layer.node.attributes.get("pads", [0] * (2 * len(spans)))
    around = [(0, 0), (0, 0), *zip(pads[: len(spans)], pads[len(spans) :], strict=True)]
    axes = tuple(range(2, data.ndim))
    windows = sliding_window_view(np.pad(data, around), spans, axis=axes)
    steps = layer.node.attributes.get("strides", [1] * len(spans))
    windows = windows[(slice(None), slice(None), *(slice(None, None, step) for step in steps))]
    moved = np.moveaxis(windows, 1, data.ndim - 1)  # Samples, places, channels, window.
    return moved.reshape(-1, layer.inputs * layer.window).T.astype(np.float64)


def second_moments(
    model: onnx.ModelProto, samples: Sequence[Mapping[str, Array]], most: int = 20000
) -> Callable[[Layer], Floats]:
    """Covariances of what layers read, found when they are asked for.

    Args:
        model: The model.
        samples: Its inputs.
        most: How many positions to look at, at most.

    Returns:
        From a layer, the covariance of its columns.
    """

    def found(layer: Layer) -> Floats:
        name = layer.node.inputs[layer.data_slot]
        values = [_value(model, name, sample) for sample in samples]
        seen = np.concatenate([columns(layer, value) for value in values], axis=1)
        seen = seen[:, :: max(seen.shape[1] // most, 1)]
        seen = seen - seen.mean(axis=1, keepdims=True)
        product: Floats = seen @ seen.T / seen.shape[1]
        return product

    return found


def _value(model: onnx.ModelProto, name: str, sample: Mapping[str, Array]) -> Array:
    if name in sample:
        return sample[name]
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.output[:]
    part.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        part.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, dict(sample))[0])
