"""The layers that masks speak of: nodes that contract channels with a constant weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from onnx_upscale.optimizer.load.graph import Graph, Node, Use
from onnx_upscale.optimizer.load.values import Array


@dataclass(frozen=True)
class Layer:
    """How one Conv, ConvTranspose, Gemm or MatMul uses its weight.

    Attributes:
        node: The node.
        data_slot: Input slot of the activations.
        weight_slot: Input slot of the weight.
        bias_slot: Input slot of the bias, or None for an operator that has none.
        data_axis: Axis of the activations that is contracted.
        output_axis: Axis of the result that holds the output channels, or None if there is none.
        result_rank: How many axes the result has.
        weight_input_axis: Axis of the weight that the contraction runs over.
        weight_output_axis: Axis of the weight that makes output channels, or None.
        groups: Count of groups; each sees its own share of both sides.
        inputs: Count of input channels, over all groups.
        outputs: Count of output channels, over all groups.
    """

    node: Node
    data_slot: int
    weight_slot: int
    bias_slot: int | None
    data_axis: int
    output_axis: int | None
    result_rank: int
    weight_input_axis: int
    weight_output_axis: int | None
    groups: int
    inputs: int
    outputs: int

    @property
    def weight(self) -> Use:
        """Where the weight is read."""
        return self.node.index, self.weight_slot

    def by_group(self, weight: Array) -> Array:
        """The weight as (groups, outputs per group, inputs per group, everything else).

        Args:
            weight: The weight, as the node reads it.

        Returns:
            A view of it where numpy can make one.
        """
        axes = [
            axis for axis in (self.weight_output_axis, self.weight_input_axis) if axis is not None
        ]
        moved = np.moveaxis(weight, axes, range(len(axes)))
        if self.weight_output_axis is None:
            moved = moved[np.newaxis]
        outs, ins = self.outputs // self.groups, self.inputs // self.groups
        if self.node.op == "ConvTranspose":  # (outputs per group, groups x inputs per group, ...)
            grouped = moved.reshape(outs, self.groups, ins, -1)
            return np.moveaxis(grouped, 1, 0)
        return moved.reshape(self.groups, outs, ins, -1)


def _conv(graph: Graph, node: Node, shape: tuple[int, ...]) -> Layer | None:
    groups = int(node.attributes.get("group", 1))
    if len(shape) < 3 or groups < 1 or shape[0] % groups:
        return None
    return Layer(node, 0, 1, 2, 1, 1, len(shape), 1, 0, groups, shape[1] * groups, shape[0])


def _conv_transpose(graph: Graph, node: Node, shape: tuple[int, ...]) -> Layer | None:
    groups = int(node.attributes.get("group", 1))
    if len(shape) < 3 or groups < 1 or shape[0] % groups:
        return None
    return Layer(node, 0, 1, 2, 1, 1, len(shape), 0, 1, groups, shape[0], shape[1] * groups)


def _gemm(graph: Graph, node: Node, shape: tuple[int, ...]) -> Layer | None:
    if len(shape) != 2:
        return None
    into, out = (1, 0) if node.attributes.get("transB", 0) else (0, 1)
    data_axis = 0 if node.attributes.get("transA", 0) else 1
    return Layer(node, 0, 1, 2, data_axis, 1, 2, into, out, 1, shape[into], shape[out])


def _matmul(graph: Graph, node: Node, shape: tuple[int, ...]) -> Layer | None:
    weight_slot = 1 if graph.value(node, 1) is not None else 0
    data = graph.shapes.get(node.input(1 - weight_slot))
    result = graph.shapes.get(node.outputs[0])
    if data is None or result is None or not shape or not data:
        return None
    into = max(len(shape) - 2, 0) if weight_slot else len(shape) - 1
    data_axis = len(data) - 1 if weight_slot else max(len(data) - 2, 0)
    if len(shape) == 1:
        return Layer(
            node, 1 - weight_slot, weight_slot, None, data_axis, None, len(result), 0, None, 1,
            *shape, 1,
        )  # fmt: skip
    out = len(shape) - 1 if weight_slot else len(shape) - 2
    # A vector of data loses its axis in the result: the other one is then the last.
    output_axis = len(result) - 1 if weight_slot or len(data) == 1 else len(result) - 2
    if output_axis < 0:
        return None
    return Layer(
        node, 1 - weight_slot, weight_slot, None, data_axis, output_axis, len(result), into, out,
        1, shape[into], shape[out],
    )  # fmt: skip


_LAYERS: dict[str, Callable[[Graph, Node, tuple[int, ...]], Layer | None]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}


def layer_of(graph: Graph, node: Node) -> Layer | None:
    """How a node uses its weight, or None where it is no layer or its weight is not constant.

    Args:
        graph: The graph.
        node: Any node of it.

    Returns:
        The layer.
    """
    if node.domain or node.op not in _LAYERS:
        return None
    constants = [slot for slot in (0, 1) if graph.value(node, slot) is not None]
    if node.op != "MatMul":
        constants = [slot for slot in constants if slot == 1]
    if len(constants) != 1:
        return None
    value = graph.value(node, constants[0])
    if value is None or not value.size:
        return None
    return _LAYERS[node.op](graph, node, value.shape)


def layers(graph: Graph) -> Iterator[Layer]:
    """Every layer of a graph, in order."""
    for node in graph.nodes:
        layer = layer_of(graph, node)
        if layer is not None:
            yield layer


def is_layer_operator(node: Node) -> bool:
    """Whether masks may speak of such nodes at all."""
    return not node.domain and node.op in _LAYERS
