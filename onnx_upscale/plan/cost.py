"""What layers and copies cost on a target, in seconds."""

from __future__ import annotations

import math
from collections.abc import Collection

from onnx import TensorProto, helper

from onnx_upscale.load.graph import Graph
from onnx_upscale.load.layers import Layer
from onnx_upscale.plan.profile import Profile

# What leaving the fast kernels and coming back takes, as a count of nodes.
_UNALIGNED_NODES = 3


def positions(graph: Graph, tensor: str, without: Collection[int]) -> int:
    """How many positions a tensor has along all but some axes; unknown sizes count as one."""
    shape = graph.shapes.get(tensor, ())
    sizes = [size for axis, size in enumerate(shape) if axis not in without]
    return math.prod(size for size in sizes if isinstance(size, int) and size > 0)


def element_bytes(graph: Graph, tensor: str) -> int:
    """Size of one element of a tensor."""
    kind = graph.types.get(tensor, TensorProto.FLOAT) or TensorProto.FLOAT
    return int(helper.tensor_dtype_to_np_dtype(kind).itemsize) or 1


class Costs:
    """Prices of one target for the layers of one graph."""

    def __init__(self, graph: Graph, profile: Profile) -> None:
        self._graph, self.profile = graph, profile

    def layer(self, layer: Layer, inputs: int, outputs: int) -> float:
        """One ungrouped layer with given channel counts.

        Args:
            layer: The layer.
            inputs: Input channels that it reads.
            outputs: Output channels that it makes.

        Returns:
            Seconds.
        """
        profile = self.profile
        weight = self._graph.value(layer.node, layer.weight_slot)
        assert weight is not None
        window = weight.size * layer.groups // max(layer.inputs * layer.outputs, 1)
        made = () if layer.output_axis is None else (layer.output_axis,)
        tensor = layer.node.outputs[0]
        if layer.node.op == "ConvTranspose":
            tensor, made = layer.node.inputs[layer.data_slot], (layer.data_axis,)
        places = positions(self._graph, tensor, made)
        # Fewer inputs than a block are read unblocked, like those of an image.
        few = inputs < profile.block
        if outputs % profile.align or (inputs % profile.align and not few):
            result = outputs * places * element_bytes(self._graph, tensor)
            # What follows is likely to want the fast layout back.
            back = result * profile.seconds_per_source_byte
            return self._any_count(places, window, inputs, outputs) + back
        macs = places * window * _rounded(outputs, profile.block)
        if not few:
            return macs * _rounded(inputs, profile.block) * profile.seconds_per_mac
        slower = profile.few_pointwise if window == 1 else 1
        return macs * inputs * slower * profile.seconds_per_mac

    def _any_count(self, places: int, window: int, inputs: int, outputs: int) -> float:
        """A layer in the kernels that compute just the channels there are."""
        profile = self.profile
        seconds = places * window * inputs * outputs * profile.seconds_per_mac
        if window == 1:
            return seconds * profile.unaligned_pointwise
        unrolled = places * window * inputs * profile.seconds_per_unrolled
        nodes = _UNALIGNED_NODES * profile.seconds_per_node
        return seconds * profile.unaligned + unrolled + nodes

    def copy(self, tensor: str, axis: int, source: int, channels: int) -> float:
        """A copy of `channels` channels out of (or into) a tensor of `source` channels."""
        profile = self.profile
        whole = self.copied_bytes(tensor, axis, source)
        part = self.copied_bytes(tensor, axis, channels)
        seconds = whole * profile.seconds_per_source_byte + part * profile.seconds_per_copied_byte
        return profile.seconds_per_node + seconds * (
            profile.far if part > profile.near_bytes else 1
        )

    def copied_bytes(self, tensor: str, axis: int, channels: int) -> int:
        """Bytes that a copy of some channels writes."""
        places = positions(self._graph, tensor, (axis,))
        return channels * places * element_bytes(self._graph, tensor)


def _rounded(count: int, block: int) -> int:
    return -(-count // block) * block
