"""What layers and copies cost on a target, in seconds."""

from __future__ import annotations

import math
from collections.abc import Collection

from onnx import TensorProto, helper

from onnx_upscale.load.graph import Graph
from onnx_upscale.load.layers import Layer
from onnx_upscale.plan.profile import Profile


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
        kernel = weight.size // max(layer.inputs * layer.outputs, 1)
        made = () if layer.output_axis is None else (layer.output_axis,)
        tensor = layer.node.outputs[0]
        if layer.node.op == "ConvTranspose":
            tensor, made = layer.node.inputs[layer.data_slot], (layer.data_axis,)
        places = positions(self._graph, tensor, made)
        macs = _rounded(inputs, profile.block) * _rounded(outputs, profile.block) * kernel * places
        unaligned = inputs % profile.align or outputs % profile.align
        return macs * profile.seconds_per_mac * (profile.unaligned if unaligned else 1.0)

    def copy(self, tensor: str, axis: int, channels: int) -> float:
        """A Slice or Gather of some channels of a tensor."""
        profile, size = self.profile, self.copied_bytes(tensor, axis, channels)
        price = (
            profile.seconds_per_byte if size <= profile.near_bytes else profile.seconds_per_far_byte
        )
        return profile.seconds_per_node + price * size

    def copied_bytes(self, tensor: str, axis: int, channels: int) -> int:
        """Bytes that a copy of some channels writes."""
        places = positions(self._graph, tensor, (axis,))
        return channels * places * element_bytes(self._graph, tensor)


def _rounded(count: int, block: int) -> int:
    return -(-count // block) * block
