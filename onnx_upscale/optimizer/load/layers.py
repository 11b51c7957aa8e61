"""The layers that masks speak of: nodes that contract channels with a constant weight.

`Layer` is the one place that knows how a weight is laid out. Which operators can be layers stands
in `LAYER_OPERATORS`; those of `contractions`, `einsum`, `few_bits`, `fused`, `quantized` and
`recurrent` register themselves there with `layer_operator`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from onnx_upscale.declared import Shape
from onnx_upscale.grain import Grain
from onnx_upscale.optimizer.load.graph import Graph, IntArray, Node, Override, Use
from onnx_upscale.optimizer.load.in_bytes import computes_in_bytes
from onnx_upscale.optimizer.load.known import is_known
from onnx_upscale.optimizer.load.pointwise import Activation
from onnx_upscale.optimizer.load.quantization import Quantization
from onnx_upscale.optimizer.load.recurrence import STATE_WEIGHT_SLOT, Recurrence
from onnx_upscale.optimizer.load.scale_blocks import BlockCoding, ScaleBlocks, scale_blocks
from onnx_upscale.optimizer.load.sides import Side
from onnx_upscale.optimizer.load.values import Array

BoolArray: TypeAlias = "npt.NDArray[np.bool_]"

UNKNOWN_RANK = 0
"""The rank of a result of which no shape is known; no layer makes a single number."""


@dataclass(frozen=True)
class Layer:
    """How one node uses its weight.

    Attributes:
        node: The node.
        weight_shape: Shape of the weight.
        data_slot: Input slot of the activations.
        weight_slot: Input slot of the weight.
        bias_slot: Input slot of the bias, or None for an operator that has none.
        data_axis: Axis of the activations that is contracted.
        output_axis: Axis of the result that holds the output channels, or None if there is none, as
            where the node goes on with them (`is_inside`).
        result_rank: How many axes the result has; `UNKNOWN_RANK` where nobody knows, and axes are
            counted from the end.
        weight_input_axis: Axis of the weight that the contraction runs over.
        weight_output_axis: Axis of the weight that makes output channels, or None.
        groups: Count of groups; each sees its own share of both sides. Those of a weight lie along
            its first axis.
        product: Whether it is a matrix product, a convolution otherwise.
        transposed: Whether it is a convolution the other way round: each position of what it reads
            is spread over a window of what it makes, so that results near borders lack a part.
        sum_slot: Input slot of a tensor of the result's shape that is added to it, or None.
        activation: What the node makes of the sum at last, or None for the sum itself.
        quantization: What its whole numbers stand for, or None where it computes with real ones.
        coding: What the numbers of its weight stand for, where it makes real ones of them itself.
        scale_blocks: Which places of its weight leave together, as they share scales.
        recurrence: Its hidden units, which are its output channels, or None where it has none.
        in_bytes: Whether onnxruntime computes it with 8-bit numbers.
    """

    node: Node
    weight_shape: tuple[int, ...]
    data_slot: int
    weight_slot: int
    bias_slot: int | None
    data_axis: int
    output_axis: int | None
    result_rank: int
    weight_input_axis: int
    weight_output_axis: int | None
    groups: int = 1
    product: bool = True
    transposed: bool = False
    sum_slot: int | None = None
    activation: Activation | None = None
    quantization: Quantization | None = dataclasses.field(default=None, compare=False)
    coding: BlockCoding | None = dataclasses.field(default=None, compare=False)
    scale_blocks: ScaleBlocks | None = None
    recurrence: Recurrence | None = None
    in_bytes: bool = False

    @cached_property
    def inputs(self) -> int:
        """Count of input channels, over all groups."""
        return self.weight_shape[self.weight_input_axis] * (1 if self.transposed else self.groups)

    @cached_property
    def outputs(self) -> int:
        """Count of output channels, over all groups."""
        if self.weight_output_axis is None:
            return 1
        if self.recurrence is not None:
            return self.recurrence.units
        return self.weight_shape[self.weight_output_axis] * (self.groups if self.transposed else 1)

    @cached_property
    def weight(self) -> Use:
        """Where the weight is read."""
        return self.node.index, self.weight_slot

    @cached_property
    def window(self) -> int:
        """How many weights there are between an input and an output channel."""
        pairs = self.inputs * self.outputs // self.groups
        return math.prod(self.weight_shape) // max(pairs, 1)

    @cached_property
    def grain(self) -> Grain:
        """How many channels at once its kernels work on: several in convolutions of images."""
        if self.product or self.transposed or len(self.weight_shape) != 4:
            return Grain.CHANNEL
        if self.quantization is not None and self.quantization.made is None:
            return Grain.CHANNEL  # Sums of whole numbers, which nothing rounds.
        return Grain.BYTES if self.in_bytes else Grain.BLOCK

    @property
    def is_inside(self) -> bool:
        """Whether its node goes on with its output channels, so that no tensor holds them."""
        return self.output_axis is None and self.weight_output_axis is not None

    @property
    def is_closed(self) -> bool:
        """Whether more is fused into it, so that nothing behind it counts as a part of it."""
        fused = self.sum_slot is not None or self.activation is not None
        return fused or self.recurrence is not None

    @property
    def factor(self) -> float:
        """What the contraction is multiplied by, before a bias is added."""
        if self.quantization is not None:
            return 1.0
        return float(self.node.attributes.get("alpha", 1.0))

    @property
    def bias_factor(self) -> float:
        """What the bias is multiplied by."""
        return float(self.node.attributes.get("beta", 1.0))

    @property
    def data_zero(self) -> float:
        """What a channel that adds nothing is known to hold."""
        return 0.0 if self.quantization is None else self.quantization.data_zero

    @property
    def per_output(self) -> tuple[int, ...]:
        """Input slots, after the weight's, of what has one value per output channel, or one."""
        bias = () if self.bias_slot is None else (self.bias_slot,)
        return bias if self.quantization is None else (*bias, *self.quantization.slots)

    def factors(self, weight: Array) -> Array:
        """What a weight is multiplied with data as: zero where nothing passes."""
        return self.real(weight) if self.quantization is None else self.quantization.centred(weight)

    def real(self, weight: Array) -> Array:
        """What a weight stands for."""
        if self.coding is not None:
            return self.coding.real(weight)
        return weight if self.quantization is None else self.quantization.real(weight)

    @cached_property
    def together(self) -> int:
        """How many adjacent input channels can leave only together."""
        blocks = self.scale_blocks
        return 1 if blocks is None or blocks.axis != self.weight_input_axis else blocks.size

    def with_whole_blocks(self, inputs: BoolArray) -> BoolArray:
        """Flags of input channels, where any of those that leave together sets all of them."""
        if self.together == 1:
            return inputs
        found: BoolArray = inputs.reshape(-1, self.together).any(1).repeat(self.together)
        return found

    def kind_of_sums(self, weight: Array) -> np.dtype[Any]:
        """The type of what it adds up, and of its bias."""
        if self.quantization is not None:
            return np.dtype(np.int32)
        return weight.dtype if self.coding is None else self.coding.scale.dtype

    @property
    def stepping(self) -> tuple[str, int | None]:
        """The tensor, and its axis of channels, at each of whose places the whole window works."""
        if self.transposed or self.recurrence is not None or self.is_inside:
            return self.node.inputs[self.data_slot], self.data_axis
        return self.node.outputs[0], self.output_axis

    def channels(self, side: Side) -> int:
        """How many channels a side has, over all groups."""
        return self.inputs if side is Side.INPUT else self.outputs

    def by_group(self, weight: Array) -> Array:
        """The weight as (groups, outputs per group, inputs per group, everything else).

        Args:
            weight: The weight, as the node reads it.

        Returns:
            A view of it where numpy can make one.
        """
        into, out = self.weight_input_axis, self.weight_output_axis
        if self.recurrence is not None:
            return self.recurrence.by_unit(weight)[np.newaxis]
        if out is None:
            weight, into, out = weight[np.newaxis], into + 1, 0
        rows, columns = (into, out) if self.transposed else (out, into)
        moved = np.moveaxis(weight, (rows, columns), (0, 1))
        return split_groups(moved, self.groups, self.transposed)

    def between_units(self, weight: Array) -> Layer:
        """The layer that hidden units are to those of the next step.

        Args:
            weight: What they are multiplied with.
        """
        return dataclasses.replace(self, weight_slot=STATE_WEIGHT_SLOT, weight_shape=weight.shape)

    def zeroed(self, weight: Override, side: Side, channels: IntArray) -> Override:
        """The weight with all that belongs to some channels of a side zeroed.

        Args:
            weight: The weight, perhaps masked already.
            side: The side.
            channels: The channels, counted over all groups.
        """
        axis = self.weight_input_axis if side is Side.INPUT else self.weight_output_axis
        assert axis is not None
        if self.quantization is not None:
            weight = dataclasses.replace(weight, blank=self.quantization.weight_zero)
        if self.coding is not None:
            weight = dataclasses.replace(weight, blank=self.coding.blank(self.inputs))
        if self.recurrence is not None and side is Side.OUTPUT:
            own = self.recurrence.rows(self.weight_slot, channels)
            return dataclasses.replace(weight, zeroed=(*weight.zeroed, (axis, own)))
        per_group = self.weight_shape[axis]
        if per_group == self.channels(side):
            return dataclasses.replace(weight, zeroed=(*weight.zeroed, (axis, channels)))
        # No whole slices: positions along the second axis, group by group.
        rows, columns, *window = self.weight_shape
        stays = np.ones((self.groups, rows // self.groups, columns), bool)
        group, position = np.divmod(channels, per_group)
        stays[group, :, position] = False
        stays = stays.reshape(rows, columns, *(1,) * len(window))
        stays = stays if weight.stays is None else stays & weight.stays
        return dataclasses.replace(weight, stays=stays)


def split_groups(weight: Array, groups: int, transposed: bool) -> Array:
    """A weight as (groups, outputs per group, inputs per group, everything else).

    Args:
        weight: Of shape (outputs, inputs per group, ...); if `transposed`, (inputs, outputs per
            group, ...).
        groups: Count of groups.
        transposed: Which of both it is.
    """
    rows, columns = weight.shape[:2]
    grouped = weight.reshape(groups, rows // groups, columns, -1)
    return grouped.swapaxes(1, 2) if transposed else grouped


LayerRule: TypeAlias = "Callable[[Graph, Node, int, tuple[int, ...]], Layer | None]"
"""From a graph, a node, and slot and shape of its constant weight, to how it uses that."""

Sizes: TypeAlias = Sequence[int]
Work: TypeAlias = "Callable[[Mapping[str, Any], Sizes, Sizes, Sizes], int]"
"""Multiply-adds, from the attributes and the shapes of data, weight and result."""


@dataclass(frozen=True)
class LayerOperator:
    """An operator whose nodes are layers where their weight is constant.

    Attributes:
        rule: How a node uses its weight.
        work: The multiply-adds of a node, whether its weight is constant or not.
        weight_slots: Input slots that the weight can be in.
        operands: The two input slots that are multiplied.
    """

    rule: LayerRule
    work: Work
    weight_slots: tuple[int, ...]
    operands: tuple[int, int] = (0, 1)


LAYER_OPERATORS: dict[tuple[str, str], LayerOperator] = {}


def layer_operator(
    operator: str,
    work: Work,
    weight_slots: tuple[int, ...] = (1,),
    domain: str = "",
    operands: tuple[int, int] = (0, 1),
) -> Callable[[LayerRule], LayerRule]:
    """Registers an operator whose nodes can be layers.

    Args:
        operator: Name of its type.
        work: Its multiply-adds, such as `product_work`.
        weight_slots: Input slots that the weight can be in.
        domain: Its domain.
        operands: The two input slots that are multiplied.

    Returns:
        A decorator for the function that reads a node; it leaves the function as it is.
    """

    def register(function: LayerRule) -> LayerRule:
        LAYER_OPERATORS[domain, operator] = LayerOperator(function, work, weight_slots, operands)
        return function

    return register


def layer_of(graph: Graph, node: Node) -> Layer | None:
    """How a node uses its weight, or None where it is no layer or its weight is not constant.

    Args:
        graph: The graph, which remembers it.
        node: Any node of it.

    Returns:
        The layer.
    """
    if node.index not in graph.layers:
        graph.layers[node.index] = _find_layer(graph, node)
    found: Layer | None = graph.layers[node.index]
    return found


def _find_layer(graph: Graph, node: Node) -> Layer | None:
    operator = LAYER_OPERATORS.get((node.domain, node.op))
    if operator is None:
        return None
    constants = [slot for slot in operator.weight_slots if graph.is_constant(node, slot)]
    if len(constants) == 2 and node.outputs[0] not in graph.constants:
        constants = constants[1:]  # A layer on a constant: the second is its weight.
    if len(constants) != 1:
        return None
    value = graph.value(node, constants[0])
    if value is None or not value.size:
        return None
    layer = operator.rule(graph, node, constants[0], value.shape)
    return None if layer is None else _with_scale_blocks(graph, _with_kernels(graph, layer))


def _with_kernels(graph: Graph, layer: Layer) -> Layer:
    """A layer, and whether it is computed in bytes."""
    slots = layer.data_slot, layer.weight_slot
    whole = layer.quantization is not None
    if whole or computes_in_bytes(graph, layer.node, slots, layer.product):
        return dataclasses.replace(layer, in_bytes=True)
    return layer


def _with_scale_blocks(graph: Graph, layer: Layer) -> Layer:
    """A layer, and in which blocks a DequantizeLinear makes its weight."""
    maker = graph.producers.get(layer.node.input(layer.weight_slot))
    if layer.groups > 1 or maker is None or maker.operator != ("", "DequantizeLinear"):
        return layer
    size = int(maker.attributes.get("block_size", 0))
    if not size:
        return layer
    axis = int(maker.attributes.get("axis", 1)) % len(layer.weight_shape)
    blocks = scale_blocks(axis, layer.weight_shape[axis], size)
    return dataclasses.replace(layer, scale_blocks=blocks)


def layers(graph: Graph) -> Iterator[Layer]:
    """Every layer of a graph, in order."""
    for node in graph.nodes:
        layer = layer_of(graph, node)
        if layer is not None:
            yield layer


def is_layer_operator(node: Node) -> bool:
    """Whether masks may speak of such nodes at all."""
    return (node.domain, node.op) in LAYER_OPERATORS


def work_reads(node: onnx.NodeProto) -> tuple[str, ...]:
    """The tensors whose shapes tell the multiply-adds of a node; none for what is no layer."""
    operator = LAYER_OPERATORS.get((node.domain, node.op_type))
    if operator is None or len(node.input) <= max(operator.operands):
        return ()
    one, other = operator.operands
    return node.input[one], node.input[other], next(filter(None, node.output), "")


def multiply_adds(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int:
    """The multiply-adds of a node.

    Args:
        node: Any node.
        shapes: Shapes by tensor name.

    Returns:
        How many; none for what is no layer, or where a size is not known.
    """
    operator = LAYER_OPERATORS.get((node.domain, node.op_type))
    known = [shapes.get(name) for name in work_reads(node)]
    if operator is None or not known or not all(map(is_known, known)):
        return 0
    data, weight, made = (
        [size for size in shape or () if isinstance(size, int)] for shape in known
    )
    if not data or not weight:
        return 0
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    return operator.work(attributes, data, weight, made)
