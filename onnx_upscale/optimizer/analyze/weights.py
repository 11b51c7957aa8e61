"""Which weights of a layer are not zero, and what they add up to: of the graph, and under masks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_upscale.optimizer.load.graph import Graph, Use
from onnx_upscale.optimizer.load.layers import Layer
from onnx_upscale.optimizer.load.values import Array

BoolArray = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

_MANY = 1 << 20
"""Pairs from which on they are kept as bits, so that large models need little memory."""


class Weights:
    """The weights of a graph without masks, by pairs of an output and an input channel.

    Arrays have the shape (groups, outputs per group, inputs per group). They are made when they are
    asked for, and remembered.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._connected: dict[Use, BoolArray] = {}
        self._packed: dict[Use, tuple[npt.NDArray[np.uint8], tuple[int, ...]]] = {}
        self._dense: dict[Use, bool] = {}
        self._sums: dict[Use, Floats] = {}

    def _by_group(self, layer: Layer) -> Array:
        weight = self._graph.value(layer.node, layer.weight_slot)
        assert weight is not None
        return layer.by_group(layer.factors(weight))

    def connected(self, layer: Layer) -> BoolArray:
        """Which pairs a non-zero weight connects."""
        use = layer.weight
        if use in self._packed:
            packed, shape = self._packed[use]
            bits = np.unpackbits(packed, count=math.prod(shape)).reshape(shape)
            flags: BoolArray = bits.view(np.bool_)
            return flags
        if use not in self._connected:
            grouped = self._by_group(layer) != 0
            width = grouped.shape[-1]
            # A product of booleans is the fastest "any" that numpy has over short axes.
            any_of: BoolArray = grouped[..., 0] if width == 1 else grouped @ np.ones(width, bool)
            self._dense[use] = bool(any_of.all())
            if self._dense[use]:  # What is the same everywhere takes no memory that way.
                any_of = np.broadcast_to(np.True_, any_of.shape)
            elif any_of.size >= _MANY:
                self._packed[use] = np.packbits(any_of), any_of.shape
                return any_of
            self._connected[use] = any_of
        return self._connected[use]

    def is_dense(self, layer: Layer) -> bool:
        """Whether every pair is connected, as in most layers."""
        if layer.weight not in self._dense:
            self.connected(layer)
        return self._dense[layer.weight]

    def sums(self, layer: Layer) -> Floats:
        """The sum of the weights between each pair."""
        use = layer.weight
        if use not in self._sums:
            self._sums[use] = self._by_group(layer).sum(-1, dtype=np.float64)
        return self._sums[use]


@dataclass(frozen=True)
class _Stays:
    """What masks leave of a layer: input channels, output channels, and pairs where that is more.

    Flat over all groups; pairs have the shape (groups, outputs per group, inputs per group).
    """

    inputs: BoolArray
    outputs: BoolArray
    pairs: BoolArray | None


class MaskedWeights:
    """The weights of a graph seen through masks.

    Masks take whole rows and columns of a layer, but for those of one group, so that hardly any
    question needs a matrix.

    Args:
        weights: The weights of the same graph without masks.
        graph: The graph seen through masks.
    """

    def __init__(self, weights: Weights, graph: Graph) -> None:
        self._weights, self._graph = weights, graph
        self._known: dict[Use, _Stays] = {}

    def spreads(self, layer: Layer) -> bool:
        """Whether every output channel depends on every input channel that masks leave, and on one.

        False may mean that it would take longer to tell.
        """
        if layer.groups > 1 or layer.recurrence is not None or not self._weights.is_dense(layer):
            return False
        stays = self._stays(layer)
        return bool(stays.inputs.any() and stays.outputs.all())

    def reached(self, layer: Layer, inputs: BoolArray) -> BoolArray:
        """Which output channels a non-zero weight connects with any of some input channels.

        Args:
            layer: A layer.
            inputs: Which ones, shape (inputs,).

        Returns:
            Shape (outputs,).
        """
        stays = self._stays(layer)
        return self._linked(layer, stays, inputs & stays.inputs, stays.outputs, -1)

    def reaching(self, layer: Layer, outputs: BoolArray) -> BoolArray:
        """Which input channels a non-zero weight connects with any of some output channels.

        Args:
            layer: A layer.
            outputs: Which ones, shape (outputs,).

        Returns:
            Shape (inputs,).
        """
        stays = self._stays(layer)
        return self._linked(layer, stays, outputs & stays.outputs, stays.inputs, 1)

    def _linked(
        self, layer: Layer, stays: _Stays, side: BoolArray, others: BoolArray, axis: int
    ) -> BoolArray:
        """Which of some channels of the other side anything connects with some of this one.

        Args:
            layer: The layer.
            stays: What masks leave of it.
            side: Which ones of this side.
            others: Which ones of the other side.
            axis: The axis of this side, in the shape of pairs.
        """
        groups = layer.groups
        if stays.pairs is None and self._weights.is_dense(layer):
            if groups == 1:
                return others if np.count_nonzero(side) else np.zeros(len(others), bool)
            return others & side.reshape(groups, -1).any(1).repeat(len(others) // groups)
        connected = self._weights.connected(layer)
        if stays.pairs is not None:
            connected = connected & stays.pairs
        side = side.reshape(groups, 1, -1) if axis < 0 else side.reshape(groups, -1, 1)
        found: BoolArray = (connected & side).any(axis).ravel()
        return others & found

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
        by_group = np.where(stays.inputs, inputs, 0.0).reshape(layer.groups, -1)
        sums = sums if stays.pairs is None else np.where(stays.pairs, sums, 0.0)
        total: Floats = np.einsum("goi,gi->go", sums, by_group).ravel()
        return np.where(stays.outputs, total, 0.0) * layer.factor

    def _stays(self, layer: Layer) -> _Stays:
        use = layer.weight
        if use not in self._known:
            self._known[use] = self._find_stays(layer)
        return self._known[use]

    def _find_stays(self, layer: Layer) -> _Stays:
        inputs, outputs = np.ones(layer.inputs, bool), np.ones(layer.outputs, bool)
        override = self._graph.overrides.get(layer.weight)
        if override is None:
            return _Stays(inputs, outputs, None)
        flags = {layer.weight_input_axis: inputs, layer.weight_output_axis: outputs}
        for axis, indices in override.zeroed:
            flags[axis][indices % len(flags[axis])] = False  # Hidden units have several rows each.
        if override.stays is None:
            return _Stays(inputs, outputs, None)
        shape = [size if axis in flags else 1 for axis, size in enumerate(override.original.shape)]
        pairs = layer.by_group(np.broadcast_to(override.stays, shape))[..., 0]
        return _Stays(inputs, outputs, pairs)
