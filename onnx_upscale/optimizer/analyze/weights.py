"""Which weights of a layer are not zero, and what they add up to: of the graph, and under masks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnx_upscale.optimizer.load.graph import Graph
from onnx_upscale.optimizer.load.layers import Layer
from onnx_upscale.optimizer.load.values import Array

BoolArray = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


class Weights:
    """The weights of a graph without masks, by pairs of an output and an input channel.

    Arrays have the shape (groups, outputs per group, inputs per group). They are made when they are
    asked for, and remembered.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._connected: dict[int, BoolArray] = {}
        self._sums: dict[int, Floats] = {}

    def _by_group(self, layer: Layer) -> Array:
        weight = self._graph.value(layer.node, layer.weight_slot)
        assert weight is not None
        return layer.by_group(weight)

    def connected(self, layer: Layer) -> BoolArray:
        """Which pairs a non-zero weight connects."""
        index = layer.node.index
        if index not in self._connected:
            grouped = self._by_group(layer) != 0
            width = grouped.shape[-1]
            # A product of booleans is the fastest "any" that numpy has over short axes.
            any_of = grouped[..., 0] if width == 1 else grouped @ np.ones(width, bool)
            self._connected[index] = any_of
        return self._connected[index]

    def sums(self, layer: Layer) -> Floats:
        """The sum of the weights between each pair."""
        index = layer.node.index
        if index not in self._sums:
            self._sums[index] = self._by_group(layer).sum(-1, dtype=np.float64)
        return self._sums[index]


class MaskedWeights:
    """The weights of a graph seen through masks.

    Args:
        weights: The weights of the same graph without masks.
        graph: The graph seen through masks.
    """

    def __init__(self, weights: Weights, graph: Graph) -> None:
        self._weights, self._graph = weights, graph
        self._connected: dict[int, BoolArray] = {}

    def connected(self, layer: Layer) -> BoolArray:
        """Which pairs a non-zero weight connects."""
        index = layer.node.index
        if index not in self._connected:
            stays, connected = self._stays(layer), self._weights.connected(layer)
            self._connected[index] = connected if stays is None else connected & stays
        return self._connected[index]

    def contribution(self, layer: Layer, inputs: Floats) -> Floats:
        """What input channels of given values add to each output channel.

        Args:
            layer: A layer whose every position sees its whole kernel.
            inputs: A value per input channel; zero leaves the channel out.

        Returns:
            Sums, shape (outputs,).
        """
        if not inputs.any():
            return np.zeros(layer.outputs)
        stays, sums = self._stays(layer), self._weights.sums(layer)
        by_group = inputs.reshape(layer.groups, layer.inputs // layer.groups)
        sums = sums if stays is None else np.where(stays, sums, 0.0)
        total: Floats = np.einsum("goi,gi->go", sums, by_group).ravel()
        return total * layer.factor

    def _stays(self, layer: Layer) -> BoolArray | None:
        """The pairs that masks leave; None for all of them."""
        override = self._graph.overrides.get(layer.weight)
        if override is None:
            return None
        axes = {layer.weight_input_axis, layer.weight_output_axis} - {None}
        unmasked = override.unmasked([axis for axis in axes if axis is not None])
        return layer.by_group(unmasked)[..., 0]
