"""Which weights of a layer are not zero."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnx_upscale.load.graph import Graph
from onnx_upscale.load.layers import Layer

BoolArray = npt.NDArray[np.bool_]


class UsedWeights:
    """Per layer, which pairs of output and input channel a non-zero weight connects."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._known: dict[int, BoolArray] = {}

    def __getitem__(self, layer: Layer) -> BoolArray:
        """Shape (groups, outputs per group, inputs per group)."""
        index = layer.node.index
        if index not in self._known:
            weight = self._graph.value(layer.node, layer.weight_slot)
            assert weight is not None
            grouped = layer.by_group(weight != 0)
            width = grouped.shape[-1]
            # A product of booleans is the fastest "any" that numpy has over short axes.
            self._known[index] = grouped[..., 0] if width == 1 else grouped @ np.ones(width, bool)
        return self._known[index]
