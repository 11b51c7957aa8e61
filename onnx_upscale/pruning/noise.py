"""Noise that is shaped like the errors that a layer makes once some of its channels are gone."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from onnx_upscale.activations import up_to
from onnx_upscale.optimizer.load.graph import Graph
from onnx_upscale.optimizer.load.layers import Layer
from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.running import Session

_LITTLE = 1e-6  # Of the power of what a layer makes: as much is rounding.


def channel_noise(
    graph: Graph, layer: Layer, seen: Iterable[Array], rng: np.random.Generator
) -> list[Array] | None:
    """What a layer makes of its input with each channel multiplied by a random number.

    With z of mean 0 and variance 1 per channel that is the sum over channels c of z_c W_c X_c, and
    W_c X_c is what is missing when c leaves: the noise goes together over places and channels as
    errors do. What is the same everywhere is taken away, for a bias makes up for it.

    Args:
        graph: The graph of the model.
        layer: The layer.
        seen: What it reads, of some samples.
        rng: Draws z.

    Returns:
        The noise for each of the samples, in the shape of what the layer makes; None where nothing
        is left of it, as on one sample with one place.

    Raises:
        VerifySetupError: onnxruntime does not run the layer.
    """
    data, made = layer.node.inputs[layer.data_slot], layer.node.outputs[0]
    session = Session(up_to(graph.model, [made], {data}, graph))
    factors = rng.standard_normal(layer.inputs)
    found = []
    for values in seen:
        along = factors.reshape(-1, *(1,) * (values.ndim - 1 - layer.data_axis))
        found.append(session.run({data: (values * along).astype(values.dtype)})[made])
    found = [values.astype(np.float64) for values in found]
    before = sum(float(np.square(values).sum()) for values in found)
    means = _means(layer, found)
    noises = [values - means for values in found]
    after = sum(float(np.square(values).sum()) for values in noises)
    return noises if np.isfinite(before) and after > _LITTLE * before else None


def _means(layer: Layer, found: list[Array]) -> Array:
    """Per output channel, over samples and places, in a shape that broadcasts."""
    axis = layer.output_axis
    others = tuple(each for each in range(found[0].ndim) if each != axis)
    sums = sum(values.sum(others, keepdims=True) for values in found)
    count = sum(values.size for values in found) // np.size(sums)
    return np.asarray(sums / max(count, 1))
