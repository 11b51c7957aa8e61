"""The masked model: masks laid over the weights of the layers they name."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from onnx_upscale.errors import MaskError
from onnx_upscale.optimizer.load.graph import Graph, IntArray, Node, Override, Use
from onnx_upscale.optimizer.load.layers import Layer, is_layer_operator, layer_of
from onnx_upscale.optimizer.load.masks import Mask
from onnx_upscale.optimizer.load.values import Array


@dataclass(frozen=True)
class LayerMask:
    """The pruned channels of one side of one layer."""

    layer: Layer
    side: str
    pruned: IntArray


def resolve_masks(graph: Graph, masks: Iterable[Mask]) -> tuple[LayerMask, ...]:
    """Finds the layers that masks speak of.

    Args:
        graph: The graph.
        masks: Masks as read from a file.

    Returns:
        One mask per layer and side named.

    Raises:
        MaskError: A key names nothing, or the mask does not fit what it names.
    """
    names = _Names(graph)
    resolved = []
    for mask in masks:
        for node in names.nodes(mask):
            if not is_layer_operator(node):
                raise mask.error(
                    f"node '{node.label}' is a {node.op}, which has no channels to mask"
                )
            layer = layer_of(graph, node)
            if layer is None:
                raise mask.error(
                    f"the weight of node '{node.label}' ({node.op}) is not constant, "
                    "or the shapes it works on are not known"
                )
            if mask.side == "output" and layer.output_axis is None:
                raise mask.error(f"node '{node.label}' has no output channels")
            channels = layer.inputs if mask.side == "input" else layer.outputs
            resolved.append(LayerMask(layer, mask.side, mask.pruned(channels)))
    return tuple(resolved)


class _Names:
    """What a key can name: an initializer, a node, or a tensor; first match in that order."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._by_name: dict[str, list[Node]] = {}
        for node in graph.nodes:
            if node.proto.name:
                self._by_name.setdefault(node.proto.name, []).append(node)

    def nodes(self, mask: Mask) -> list[Node]:
        key = mask.key
        if self._graph.constants.is_initializer(key):
            found = self._readers_of_weight(key)
            if not found:
                raise mask.error("no Conv, ConvTranspose, Gemm or MatMul uses this as its weight")
            return found
        if key in self._by_name:
            return self._by_name[key]
        if key in self._graph.producers:
            return [self._graph.producers[key]]
        raise MaskError(f"mask '{key}': no such layer in the model{self._closest(key)}")

    def _readers_of_weight(self, name: str) -> list[Node]:
        """Layers whose weight is the initializer, or is made from it before run time."""
        graph = self._graph
        found: dict[int, Node] = {}
        pending = [name]
        while pending:
            tensor = pending.pop()
            for index, slot in graph.readers.get(tensor, ()):
                node = graph.nodes[index]
                layer = layer_of(graph, node)
                if layer is not None and slot == layer.weight_slot:
                    found[index] = node
                else:
                    pending += [out for out in node.outputs if out and out in graph.constants]
        return [found[index] for index in sorted(found)]

    def _closest(self, key: str) -> str:
        graph = self._graph
        candidates: dict[str, None] = {}
        for node in graph.nodes:
            layer = layer_of(graph, node)
            if layer is not None:
                names = (node.input(layer.weight_slot), node.proto.name, node.outputs[0])
                candidates.update(dict.fromkeys(name for name in names if name))
        close = difflib.get_close_matches(key, candidates, n=3, cutoff=0.4)
        close = close or list(candidates)[:3]
        return f"; closest: {', '.join(close)}" if close else " (it has no layers to mask)"


def mask_graph(graph: Graph, masks: Iterable[LayerMask]) -> Graph:
    """Lays masks over a graph: the masked slices of its constants read as zero.

    Args:
        graph: The graph.
        masks: Which channels of which layers are pruned.

    Returns:
        A graph with the same nodes and other constants.
    """
    overlay = _Overlay(graph)
    for mask in masks:
        if mask.side == "input":
            overlay.zero_inputs(mask.layer, mask.pruned)
        else:
            overlay.zero_outputs(mask.layer, mask.pruned)
    return graph.masked(overlay.overrides)


class _Overlay:
    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.overrides: dict[Use, Override] = dict(graph.overrides)

    def _override(self, use: Use) -> Override:
        if use in self.overrides:
            return self.overrides[use]
        value = self._graph.value(self._graph.nodes[use[0]], use[1])
        if value is None:
            raise MaskError(
                f"node '{self._graph.nodes[use[0]].label}': input {use[1]} is not constant"
            )
        return Override(value)

    def _zero(self, use: Use, axis: int, indices: IntArray) -> None:
        before = self._override(use)
        zeroed = (*before.zeroed, (axis, indices))
        self.overrides[use] = dataclasses.replace(before, zeroed=zeroed)

    def _zero_in_groups(self, layer: Layer, channels: IntArray, per_group: int) -> None:
        """Zeroes what is no whole slice: positions along the second axis, group by group."""
        before = self._override(layer.weight)
        rows, columns, *window = before.original.shape
        stays = np.ones((layer.groups, rows // layer.groups, columns), bool)
        group, position = np.divmod(channels, per_group)
        stays[group, :, position] = False
        stays = stays.reshape(rows, columns, *(1,) * len(window))
        stays = stays if before.stays is None else stays & before.stays
        self.overrides[layer.weight] = dataclasses.replace(before, stays=stays)

    def zero_inputs(self, layer: Layer, channels: IntArray) -> None:
        """A layer ignores some input channels."""
        if layer.groups == 1 or layer.node.op == "ConvTranspose":
            self._zero(layer.weight, layer.weight_input_axis, channels)
        else:
            self._zero_in_groups(layer, channels, layer.inputs // layer.groups)

    def zero_outputs(self, layer: Layer, channels: IntArray) -> None:
        """Some output channels are zero when they reach the activation."""
        if layer.groups == 1 or layer.node.op == "Conv":
            assert layer.weight_output_axis is not None
            self._zero(layer.weight, layer.weight_output_axis, channels)
        else:
            self._zero_in_groups(layer, channels, layer.outputs // layer.groups)
        if layer.bias_slot is not None and layer.node.input(layer.bias_slot):
            self._zero_entries((layer.node.index, layer.bias_slot), layer.outputs, 1, 0, channels)
        self._zero_affine(layer, channels)

    def _zero_entries(self, use: Use, count: int, rank: int, axis: int, channels: IntArray) -> None:
        """Zeroes entries of a vector over channels, which is made one where it is a scalar."""
        values = self._override(use).original
        position = values.ndim - (rank - axis)
        if position < 0 or values.shape[position] != count:
            trailing = (1,) * (rank - axis - 1)
            shape = np.broadcast_shapes(values.shape, (count, *trailing))
            values = np.broadcast_to(values, shape)
            position = values.ndim - (rank - axis)
            self.overrides[use] = Override(values)
        self._zero(use, position, channels)

    def _zero_affine(self, layer: Layer, channels: IntArray) -> None:
        graph, tensor = self._graph, layer.node.outputs[0]
        axis, rank = layer.output_axis, layer.result_rank
        while axis is not None:
            uses = graph.readers.get(tensor, ())
            if len(uses) != 1 or tensor in graph.outputs or tensor in graph.captured:
                return
            node, slot = graph.nodes[uses[0][0]], uses[0][1]
            if node.domain:
                return
            if node.op == "BatchNormalization" and slot == 0 and axis == 1:
                if (
                    node.attributes.get("training_mode", 0)
                    or len([o for o in node.outputs if o]) > 1
                ):
                    return
                if any(graph.value(node, index) is None for index in (1, 2)):
                    return
                for index in (1, 2):
                    self._zero_entries((node.index, index), layer.outputs, 1, 0, channels)
            elif node.op in ("Add", "Mul") and _is_per_channel(
                graph.value(node, 1 - slot), rank, axis, layer.outputs
            ):
                if node.op == "Add":
                    use = (node.index, 1 - slot)
                    self._zero_entries(use, layer.outputs, rank, axis, channels)
            else:
                return
            tensor = node.outputs[0]


def _is_per_channel(value: Array | None, rank: int, axis: int, channels: int) -> bool:
    """Whether a constant is a scalar, or has one value per channel of an axis."""
    if value is None or value.ndim > rank:
        return False
    position = axis - (rank - value.ndim)
    others = [size for index, size in enumerate(value.shape) if index != position]
    return all(size == 1 for size in others) and (
        position < 0 or value.shape[position] in (1, channels)
    )
