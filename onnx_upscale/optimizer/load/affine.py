"""What an output mask zeroes besides a weight: all that is added behind it, up to the activation.

The bias, and the constants of the affine operations attached straight to a layer: each
BatchNormalization, and each Add or Mul with a constant that is a scalar or has one value per
channel, as long as nothing else reads the tensor in between and it is no graph output. QLinearAdd
and QLinearMul are such as well: a zero is the zero point there. So are the Cast of a sum of whole
numbers and the Mul by its scales, of which that of the data is found at run time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnx_upscale.optimizer.load.encoding import zero_point
from onnx_upscale.optimizer.load.graph import Graph, Node, Use
from onnx_upscale.optimizer.load.layers import Layer
from onnx_upscale.optimizer.load.quantized import INTEGER_LAYERS, scale_behind
from onnx_upscale.optimizer.load.values import Array

_QUANTIZED = {("com.microsoft", "QLinearAdd"), ("com.microsoft", "QLinearMul")}


@dataclass(frozen=True)
class Addend:
    """A constant that makes something else of a zero.

    Attributes:
        use: Where it is read. It has one value per channel, or one for all.
        rank: Of what it is added to.
        axis: Axis of the channels in that.
        times: Input slot of another constant that it is added times, or None.
        blank: What stands for zero in it.
    """

    use: Use
    rank: int
    axis: int
    times: int | None = None
    blank: int = 0

    def place(self, value: Array) -> int:
        """The axis of its own that holds the channels; negative where it has none."""
        return value.ndim - (self.rank - self.axis)

    def nonzero(self, graph: Graph, channels: int) -> npt.NDArray[np.bool_]:
        """To which of so many channels it adds something, shape (channels,)."""
        node = graph.nodes[self.use[0]]
        value = graph.value(node, self.use[1])
        assert value is not None
        times = None if self.times is None else graph.value(node, self.times)
        adds = value != self.blank if times is None else (value != 0) & (times != 0)
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
    tensor, axis, rank = layer.node.outputs[0], layer.output_axis, layer.result_rank
    while axis is not None:
        uses = graph.readers.get(tensor, ())
        if len(uses) != 1 or tensor in graph.outputs or tensor in graph.captured:
            return
        node, slot = graph.nodes[uses[0][0]], uses[0][1]
        if (node.domain, node.op) in _QUANTIZED and slot in (0, 3):
            other = 3 - slot
            if not _is_quantized_affine(graph, node, slot) or not _is_per_channel(
                graph.value(node, other), rank, axis, layer.outputs
            ):
                return
            if node.op == "QLinearAdd":
                point = zero_point(graph, node, other + 2, node.input(other))
                blank = 0 if point is None else int(point.item())
                yield Addend((node.index, other), rank, axis, blank=blank)
            tensor = node.outputs[0]
            continue
        if node.domain:
            return
        if layer.node.op in INTEGER_LAYERS and node.op == "Cast":
            tensor = node.outputs[0]
            scaled = _is_scaled(graph, tensor, rank, axis, layer.outputs)
            if scaled is None:
                return
            tensor = scaled
            continue
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


def _is_scaled(graph: Graph, tensor: str, rank: int, axis: int, channels: int) -> str | None:
    """What is made of sums that are real numbers now, where they are multiplied by their scales."""
    uses = graph.readers.get(tensor, ())
    if len(uses) != 1 or tensor in graph.outputs or tensor in graph.captured:
        return None
    node = graph.nodes[uses[0][0]]
    told = scale_behind(graph, node) if node.op == "Mul" and not node.domain else None
    if told is None:
        return None
    reader, slot = told
    if slot >= 0 and not _is_per_channel(graph.value(reader, slot), rank, axis, channels):
        return None
    return node.outputs[0]


def _is_affine(graph: Graph, normalization: Node) -> bool:
    training = normalization.attributes.get("training_mode", 0)
    outputs = [name for name in normalization.outputs if name]
    constants = [graph.value(normalization, slot) for slot in (1, 2)]
    return not training and len(outputs) == 1 and all(each is not None for each in constants)


def _is_quantized_affine(graph: Graph, node: Node, slot: int) -> bool:
    """Whether all that a node reads besides a slot is constant, and each scale one number."""
    given = [other for other, name in enumerate(node.inputs) if name and other != slot]
    values = [graph.value(node, other) for other in given]
    return all(
        value is not None and (other in (0, 3) or value.size == 1)
        for other, value in zip(given, values, strict=True)
    )


def _is_per_channel(value: Array | None, rank: int, axis: int, channels: int) -> bool:
    """Whether a constant is a scalar, or has one value per channel of an axis."""
    if value is None or value.ndim > rank:
        return False
    position = axis - (rank - value.ndim)
    others = [size for index, size in enumerate(value.shape) if index != position]
    return all(size == 1 for size in others) and (
        position < 0 or value.shape[position] in (1, channels)
    )
