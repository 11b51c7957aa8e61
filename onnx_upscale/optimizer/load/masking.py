"""The masked model: masks laid over the weights of the layers they name."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_upscale.errors import MaskError
from onnx_upscale.optimizer.load.affine import Addend, addends
from onnx_upscale.optimizer.load.formats import made_for_a_machine
from onnx_upscale.optimizer.load.graph import Graph, IntArray, Node, Override, Use
from onnx_upscale.optimizer.load.layers import (
    LAYER_OPERATORS,
    UNKNOWN_RANK,
    Layer,
    is_layer_operator,
    layer_of,
)
from onnx_upscale.optimizer.load.masks import Mask
from onnx_upscale.optimizer.load.recurrence import Recurrence
from onnx_upscale.optimizer.load.sides import Side
from onnx_upscale.optimizer.load.unmaskable import why_no_layer, why_not_found


@dataclass(frozen=True)
class LayerMask:
    """The pruned channels of one side of one layer."""

    layer: Layer
    side: Side
    pruned: IntArray


def resolve_masks(
    graph: Graph, masks: Iterable[Mask], others: Callable[[], Iterable[str]] = tuple
) -> tuple[LayerMask, ...]:
    """Finds the layers that masks speak of.

    Args:
        graph: The graph.
        masks: Masks as read from a file.
        others: Gives more names of layers, for those who look for one that is not there.

    Returns:
        One mask per layer and side named.

    Raises:
        MaskError: A key names nothing, or the mask does not fit what it names.
    """
    names = Names(graph, others)
    resolved = []
    for mask in masks:
        for node in names.nodes(mask):
            if not is_layer_operator(node):
                raise mask.error(
                    f"node '{node.title}' is a {node.op}, which has no channels to mask{names.hint}"
                )
            layer = layer_of(graph, node)
            # What is added behind a layer can be told only by its axis of output channels.
            if layer is None or (mask.side is Side.OUTPUT and layer.result_rank == UNKNOWN_RANK):
                raise mask.error(why_no_layer(graph, node))
            if mask.side is Side.OUTPUT and layer.weight_output_axis is None:
                raise mask.error(f"node '{node.title}' has no output channels")
            channels = layer.channels(mask.side)
            resolved.append(LayerMask(layer, mask.side, mask.pruned(channels)))
    return tuple(resolved)


class Names:
    """What a key can name: an initializer, a node, or a tensor; first match in that order.

    Args:
        graph: The graph.
        others: As for `resolve_masks`.
    """

    def __init__(self, graph: Graph, others: Callable[[], Iterable[str]] = tuple) -> None:
        self._graph, self._others, self._by_name = graph, others, graph.named

    @property
    def hint(self) -> str:
        """What to add to an error, where the model is in a format without layers."""
        why = made_for_a_machine(node.proto for node in self._graph.nodes)
        return f"; {why}" if why else ""

    def is_weight(self, name: str) -> bool:
        """Whether it is an initializer."""
        return self._graph.constants.is_initializer(name)

    def knows(self, name: str) -> bool:
        """Whether anything has this name."""
        return self.is_weight(name) or name in self._by_name or name in self._graph.producers

    def nodes(self, mask: Mask) -> Sequence[Node]:
        """The nodes that a mask speaks of.

        Raises:
            MaskError: There are none.
        """
        key = mask.name or mask.key
        if self.is_weight(key):
            found = self.using(key)
            if not found:
                *others, last = (operator for _, operator in LAYER_OPERATORS)
                known = f"{', '.join(others)} or {last}"
                raise mask.error(f"no {known} uses this as its weight{self.hint}")
            return found
        if key in self._by_name:
            return self._by_name[key]
        if key in self._graph.producers:
            return [self._graph.producers[key]]
        reason = why_not_found(self._graph, key)
        if reason is not None:
            raise mask.error(reason)
        closest = self._closest(mask.key)
        raise MaskError(f"mask '{key}': no such layer in the model{closest}{self.hint}")

    def using(self, name: str) -> list[Node]:
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

    def layers(self) -> Iterator[str]:
        """The names of layers."""
        for node in self._graph.nodes:
            layer = layer_of(self._graph, node)
            if layer is not None:
                names = (node.input(layer.weight_slot), node.proto.name, node.outputs[0])
                yield from filter(None, names)

    def _closest(self, key: str) -> str:
        candidates = dict.fromkeys((*self.layers(), *self._others()))
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
        if mask.side is Side.INPUT:
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
                f"node '{self._graph.nodes[use[0]].title}': input {use[1]} is not constant"
            )
        return Override(value)

    def zero_inputs(self, layer: Layer, channels: IntArray) -> None:
        """A layer ignores some input channels."""
        self._zero_weight(layer, Side.INPUT, channels)

    def zero_outputs(self, layer: Layer, channels: IntArray) -> None:
        """Some output channels are zero when they reach the activation."""
        self._zero_weight(layer, Side.OUTPUT, channels)
        for addend in addends(self._graph, layer):
            self._zero_entries(addend, layer.outputs, channels)
        if layer.recurrence is not None:
            for slot in layer.recurrence.blocks.keys() - {layer.weight_slot}:
                self._zero_units(layer, layer.recurrence, slot, channels)

    def _zero_weight(self, layer: Layer, side: Side, channels: IntArray) -> None:
        weight = self._override(layer.weight)
        self.overrides[layer.weight] = layer.zeroed(weight, side, channels)

    def _zero_units(self, layer: Layer, recurrence: Recurrence, slot: int, units: IntArray) -> None:
        use = layer.node.index, slot
        before = self._override(use)
        zeroed = (*before.zeroed, (1, recurrence.rows(slot, units)))
        self.overrides[use] = dataclasses.replace(before, zeroed=zeroed)

    def _zero_entries(self, addend: Addend, count: int, channels: IntArray) -> None:
        """Zeroes entries of a vector over channels, which is made one where it is a scalar."""
        before = self._override(addend.use)
        values, axis = before.original, addend.place(before.original)
        if addend.start is None and (axis < 0 or values.shape[axis] != count):
            trailing = (1,) * (addend.rank - addend.axis - 1)
            shape = np.broadcast_shapes(values.shape, (count, *trailing))
            values = np.broadcast_to(values, shape)
            before, axis = Override(values), addend.place(values)
        zeroed = (*before.zeroed, (axis, channels + (addend.start or 0)))
        blank = np.array(addend.blank, values.dtype)
        self.overrides[addend.use] = dataclasses.replace(before, zeroed=zeroed, blank=blank)
