"""What an output mask zeroes besides a weight: all that is added behind it, up to the activation.

The bias, and the constants of the affine operations attached straight to a layer: each
BatchNormalization, and each Add or Mul with a constant that is a scalar or has one value per
channel, as long as nothing else reads the tensor in between and it is no graph output. Behind a
layer with an activation or a sum of its own nothing is attached; the bias that an activation, or an
attention, adds first is. QLinearAdd and QLinearMul are attached like Add and Mul: a zero is the
zero point there. So are the Cast of a sum of whole numbers and the Mul by its scales, of which that
of the data is found at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from onnx_upscale.optimizer.load.encoding import zero_point
from onnx_upscale.optimizer.load.graph import Graph, Node, Use
from onnx_upscale.optimizer.load.layers import Layer
from onnx_upscale.optimizer.load.pointwise import MICROSOFT
from onnx_upscale.optimizer.load.quantized import INTEGER_LAYERS, scale_behind
from onnx_upscale.optimizer.load.values import Array

_BIASED = tuple((MICROSOFT, op) for op in ("BiasGelu", "BiasSplitGelu", "FastGelu"))
"""Activations that add a bias over the last axis first."""
_BIAS_SLOT = 1
_HEADS_BIAS_SLOT = 3


@dataclass(frozen=True)
class Addend:
    """A constant that makes something else of a zero.

    Attributes:
        use: Where it is read. It has one value per channel, or one for all.
        rank: Of what it is added to.
        axis: Axis of the channels in that.
        times: Input slot of another constant that it is added times, or None.
        blank: What stands for zero in it.
        start: Where its channels begin in a constant that holds those of others as well; None for
            one that holds no others.
    """

    use: Use
    rank: int
    axis: int
    times: int | None = None
    blank: int = 0
    start: int | None = None

    def place(self, value: Array) -> int:
        """The axis of its own that holds the channels; negative where it has none."""
        return value.ndim - (self.rank - self.axis)

    def nonzero(self, graph: Graph, channels: int) -> npt.NDArray[np.bool_]:
        """To which of so many channels it adds something, shape (channels,)."""
        node = graph.nodes[self.use[0]]
        value = graph.value(node, self.use[1])
        assert value is not None
        if self.start is not None:
            value = value[self.start : self.start + channels]
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
    if layer.is_closed or layer.output_axis is None:
        return
    made = _Made(layer.result_rank, layer.output_axis, layer.outputs)
    tensor: str | None = layer.node.outputs[0]
    while tensor is not None:
        use = graph.only_use(tensor)
        if use is None:
            return
        node, slot = graph.nodes[use[0]], use[1]
        rule = _RULES.get((node.domain, node.op))
        attached = rule(graph, node, slot, made) if rule is not None else None
        if attached is None:
            return
        yield from attached.addends
        tensor = attached.makes


@dataclass(frozen=True)
class _Made:
    """What a layer makes, and affine operations make of it.

    Attributes:
        rank: Its rank.
        axis: The axis of the channels.
        channels: How many there are.
    """

    rank: int
    axis: int
    channels: int

    def fits(self, value: Array | None) -> bool:
        """Whether a constant is a scalar, or has one value per channel."""
        if value is None or value.ndim > self.rank:
            return False
        position = self.axis - (self.rank - value.ndim)
        others = [size for index, size in enumerate(value.shape) if index != position]
        return all(size == 1 for size in others) and (
            position < 0 or value.shape[position] in (1, self.channels)
        )

    def addend(self, node: Node, slot: int, blank: int = 0) -> Addend:
        """A constant that fits, as it is added."""
        return Addend((node.index, slot), self.rank, self.axis, blank=blank)


@dataclass(frozen=True)
class _Attached:
    """An operation that belongs to the layer in front of it.

    Attributes:
        addends: What it adds.
        makes: What it makes, behind which others may be attached; None where nothing can be.
    """

    addends: tuple[Addend, ...]
    makes: str | None


_Rule: TypeAlias = "Callable[[Graph, Node, int, _Made], _Attached | None]"
"""From a node and the slot in which it reads what a layer made, to what it does; None for nothing
that belongs to the layer."""


def _normalization(graph: Graph, node: Node, slot: int, made: _Made) -> _Attached | None:
    attributes = node.attributes
    affine = attributes.get("spatial", 1) and not attributes.get("training_mode", 0)
    constant = all(graph.value(node, each) is not None for each in (1, 2))
    alone = len([name for name in node.outputs if name]) == 1
    if slot != 0 or made.axis != 1 or not (affine and constant and alone):
        return None
    # Zero becomes the bias - mean * scale.
    scale, bias = Addend((node.index, 1), 1, 0, times=3), Addend((node.index, 2), 1, 0)
    return _Attached((scale, bias), node.outputs[0])


def _sum(graph: Graph, node: Node, slot: int, made: _Made) -> _Attached | None:
    other = 1 - slot
    if not made.fits(graph.value(node, other)):
        return None
    return _Attached((made.addend(node, other),), node.outputs[0])


def _product(graph: Graph, node: Node, slot: int, made: _Made) -> _Attached | None:
    fits = made.fits(graph.value(node, 1 - slot))
    return _Attached((), node.outputs[0]) if fits else None


def _quantized(graph: Graph, node: Node, slot: int, made: _Made) -> _Attached | None:
    """A sum or a product of whole numbers, where all besides a slot is constant."""
    if slot not in (0, 3):
        return None
    other = 3 - slot
    for given, name in enumerate(node.inputs):
        value = graph.value(node, given)
        if name and given != slot and (value is None or (given != other and value.size != 1)):
            return None
    if not made.fits(graph.value(node, other)):
        return None
    if node.op == "QLinearMul":
        return _Attached((), node.outputs[0])
    point = zero_point(graph, node, other + 2, node.input(other))
    blank = 0 if point is None else int(point.item())
    return _Attached((made.addend(node, other, blank),), node.outputs[0])


def _rescaled(graph: Graph, node: Node, slot: int, made: _Made) -> _Attached | None:
    """Sums that become real numbers, where they are multiplied by their scales at once."""
    maker = graph.producers.get(node.input(0))
    use = graph.only_use(node.outputs[0])
    if maker is None or maker.op not in INTEGER_LAYERS or use is None:
        return None
    scaling = graph.nodes[use[0]]
    told = scale_behind(graph, scaling) if (scaling.domain, scaling.op) == ("", "Mul") else None
    if told is None:
        return None
    reader, place = told
    if place >= 0 and not made.fits(graph.value(reader, place)):
        return None
    return _Attached((), scaling.outputs[0])


def _biased(graph: Graph, node: Node, slot: int, made: _Made) -> _Attached | None:
    bias = graph.value(node, _BIAS_SLOT)
    if slot != 0 or made.axis != made.rank - 1 or bias is None or bias.shape != (made.channels,):
        return None
    return _Attached((made.addend(node, _BIAS_SLOT),), None)


def _biased_with_others(graph: Graph, node: Node, slot: int, made: _Made) -> _Attached | None:
    """Queries, keys and values, whose biases lie one after the other."""
    bias = graph.value(node, _HEADS_BIAS_SLOT)
    if made.axis != 2 or bias is None or bias.ndim != 1 or slot > 2:
        return None
    rest = bias.size - (1 if slot == 2 else 2) * made.channels
    if rest < 1 or (slot == 2 and rest % 2):
        return None
    start = rest if slot == 2 else slot * made.channels
    addend = Addend((node.index, _HEADS_BIAS_SLOT), made.rank, made.axis, start=start)
    return _Attached((addend,), None)


_RULES: Mapping[tuple[str, str], _Rule] = {
    ("", "Add"): _sum,
    ("", "BatchNormalization"): _normalization,
    ("", "Cast"): _rescaled,
    ("", "Mul"): _product,
    (MICROSOFT, "MultiHeadAttention"): _biased_with_others,
    (MICROSOFT, "QLinearAdd"): _quantized,
    (MICROSOFT, "QLinearMul"): _quantized,
    **dict.fromkeys(_BIASED, _biased),
}
