"""What an output mask zeroes besides a weight: all that is added behind it, up to the activation.

The bias, and the constants of the affine operations attached straight to a layer: each
BatchNormalization, and each Add or Mul with a constant that is a scalar or has one value per
channel, as long as nothing else reads the tensor in between and it is no graph output. Behind a
layer with an activation or a sum of its own nothing is attached; the bias that an activation adds
first is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_upscale.optimizer.load.graph import Graph, Node, Use
from onnx_upscale.optimizer.load.layers import Layer
from onnx_upscale.optimizer.load.pointwise import MICROSOFT
from onnx_upscale.optimizer.load.values import Array

_BIASED = frozenset((MICROSOFT, op) for op in ("BiasGelu", "BiasSplitGelu", "FastGelu"))
"""Activations that add a bias over the last axis first."""
_BIAS_SLOT = 1


@dataclass(frozen=True)
class Addend:
    """A constant that makes something else of a zero.

    Attributes:
        use: Where it is read. It has one value per channel, or one for all.
        rank: Of what it is added to.
        axis: Axis of the channels in that.
        times: Input slot of another constant that it is added times, or None.
    """

    use: Use
    rank: int
    axis: int
    times: int | None = None

    def place(self, value: Array) -> int:
        """The axis of its own that holds the channels; negative where it has none."""
        return value.ndim - (self.rank - self.axis)

    def nonzero(self, graph: Graph, channels: int) -> npt.NDArray[np.bool_]:
        """To which of so many channels it adds something, shape (channels,)."""
        node = graph.nodes[self.use[0]]
        value = graph.value(node, self.use[1])
        assert value is not None
        times = None if self.times is None else graph.value(node, self.times)
        adds = value != 0 if times is None else (value != 0) & (times != 0)
        place = self.place(value)
        rows = np.moveaxis(adds, place, -1) if place >= 0 else adds
        flags = rows.reshape(-1, rows.shape[-1] if place >= 0 else 1).any(0)
        return np.broadcast_to(flags, (channels,))


def addends(graph: Graph, layer: Layer) -> Iterator[Addend]:
    """The constants to zero where an output channel is to be zero when it reaches the activation.

    Args:
        graph: The graph.
        layer: The layer.

    Yields:
        The constants, in the order of the model.
    """
    if layer.bias_slot is not None and layer.node.input(layer.bias_slot):
        yield Addend((layer.node.index, layer.bias_slot), 1, 0)
    if layer.is_closed:
        return
    tensor, axis, rank = layer.node.outputs[0], layer.output_axis, layer.result_rank
    while axis is not None:
        uses = graph.readers.get(tensor, ())
        if len(uses) != 1 or tensor in graph.outputs or tensor in graph.captured:
            return
        node, slot = graph.nodes[uses[0][0]], uses[0][1]
        if node.domain:
            bias = graph.value(node, _BIAS_SLOT)
            biased = (node.domain, node.op) in _BIASED and slot == 0 and axis == rank - 1
            if biased and bias is not None and bias.shape == (layer.outputs,):
                yield Addend((node.index, _BIAS_SLOT), rank, axis)
            return
        if node.op == "BatchNormalization" and slot == 0 and axis == 1:
            if not _is_affine(graph, node):
                return
            yield Addend((node.index, 1), 1, 0, times=3)  # Zero becomes the bias - mean * scale.
            yield Addend((node.index, 2), 1, 0)
        elif node.op in ("Add", "Mul") and _is_per_channel(
            graph.value(node, 1 - slot), rank, axis, layer.outputs
        ):
            if node.op == "Add":
                yield Addend((node.index, 1 - slot), rank, axis)
        else:
            return
        tensor = node.outputs[0]


def _is_affine(graph: Graph, normalization: Node) -> bool:
    training = normalization.attributes.get("training_mode", 0)
    per_channel = normalization.attributes.get("spatial", 1)
    outputs = [name for name in normalization.outputs if name]
    constants = [graph.value(normalization, slot) for slot in (1, 2)]
    known = all(each is not None for each in constants)
    return bool(per_channel) and not training and len(outputs) == 1 and known


def _is_per_channel(value: Array | None, rank: int, axis: int, channels: int) -> bool:
    """Whether a constant is a scalar, or has one value per channel of an axis."""
    if value is None or value.ndim > rank:
        return False
    position = axis - (rank - value.ndim)
    others = [size for index, size in enumerate(value.shape) if index != position]
    return all(size == 1 for size in others) and (
        position < 0 or value.shape[position] in (1, channels)
    )
