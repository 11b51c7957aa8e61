"""The layers and copies of a graph, put to the prices of a target."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import cache

from onnx import TensorProto, helper

from onnx_upscale.optimizer.load.graph import Graph
from onnx_upscale.optimizer.load.layers import Layer
from onnx_upscale.prices import CopyWork, LayerWork, Prices


def positions(graph: Graph, tensor: str, without: Collection[int]) -> int:
    """How many positions a tensor has along all but some axes; unknown sizes count as one."""
    shape = graph.shapes.get(tensor, ())
    sizes = [size for axis, size in enumerate(shape) if axis not in without]
    return math.prod(size for size in sizes if isinstance(size, int) and size > 0)


def element_bytes(graph: Graph, tensor: str) -> int:
    """Size of one element of a tensor."""
    return _item_bytes(graph.types.get(tensor, TensorProto.FLOAT) or TensorProto.FLOAT)


@cache
def _item_bytes(kind: int) -> int:
    return int(helper.tensor_dtype_to_np_dtype(kind).itemsize) or 1


class Costs:
    """Prices of one target for the layers of one graph."""

    def __init__(self, graph: Graph, prices: Prices) -> None:
        self._graph, self.prices = graph, prices
        self._layers: dict[tuple[int, int, int], float] = {}
        self._sites: dict[int, tuple[int, int, int]] = {}

    def layer(self, layer: Layer, inputs: int, outputs: int) -> float:
        """One ungrouped layer with given channel counts.

        Args:
            layer: The layer.
            inputs: Input channels that it reads.
            outputs: Output channels that it makes.

        Returns:
            Seconds.
        """
        key = layer.node.index, inputs, outputs
        if key not in self._layers:
            if layer.node.index not in self._sites:
                self._sites[layer.node.index] = self._site(layer)
            places, item_bytes, stride = self._sites[layer.node.index]
            work = LayerWork(
                layer.product, inputs, outputs, places, layer.window, item_bytes, stride
            )
            self._layers[key] = self.prices.layer(work)
        return self._layers[key]

    def _site(self, layer: Layer) -> tuple[int, int, int]:
        """What the work of a layer depends on besides its counts: places, bytes, stride."""
        tensor, axis = layer.stepping
        places = positions(self._graph, tensor, () if axis is None else (axis,))
        stride = math.prod(layer.node.attributes.get("strides", ()))
        return places, element_bytes(self._graph, tensor), stride

    def copy(
        self, tensor: str, axis: int, source: int, channels: int, contiguous: bool = True
    ) -> float:
        """A copy of `channels` channels out of (or into) a tensor of `source` channels."""
        return self.prices.copy(
            CopyWork(
                source=source,
                channels=channels,
                places=positions(self._graph, tensor, (axis,)),
                contiguous=contiguous,
                last_axis=axis == len(self._graph.shapes.get(tensor, ())) - 1,
                item_bytes=element_bytes(self._graph, tensor),
            )
        )

    def copied_bytes(self, tensor: str, axis: int, channels: int) -> int:
        """Bytes that a copy of some channels writes."""
        places = positions(self._graph, tensor, (axis,))
        return channels * places * element_bytes(self._graph, tensor)
