"""The layers and copies of a graph, put to the prices of a target."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import cache, cached_property

from onnx import TensorProto, helper

from onnx_upscale.grain import Grain
from onnx_upscale.optimizer.analyze import Structure
from onnx_upscale.optimizer.analyze.approaches import Approach
from onnx_upscale.optimizer.load.fused import runs_as
from onnx_upscale.optimizer.load.graph import Graph, Node
from onnx_upscale.optimizer.load.in_bytes import is_of_bytes
from onnx_upscale.optimizer.load.layers import Layer
from onnx_upscale.prices import (
    BOUNDS,
    REORDERS,
    CopyWork,
    Counts,
    Kernel,
    LayerWork,
    Prices,
    byte_convolution,
    passing_family,
    works_on_blocks,
)


def positions(graph: Graph, tensor: str, without: Collection[int]) -> int:
    """How many positions a tensor has along all but some axes."""
    sizes = enumerate(graph.counted.get(tensor, ()))
    return math.prod(size for axis, size in sizes if axis not in without and size > 0)


def element_bytes(graph: Graph, tensor: str) -> int:
    """Size of one element of a tensor, as it is kept until somebody computes with it."""
    if is_of_bytes(graph, tensor):
        return 1
    return _item_bytes(graph.types.get(tensor, TensorProto.FLOAT) or TensorProto.FLOAT)


@cache
def _item_bytes(kind: int) -> int:
    return int(helper.tensor_dtype_to_np_dtype(kind).itemsize) or 1


class Costs:
    """Prices of one target for the layers of one graph, and what they were found to be.

    Args:
        structure: The structure of the graph.
        prices: The prices.
    """

    def __init__(self, structure: Structure, prices: Prices) -> None:
        self.structure, self._graph, self.prices = structure, structure.graph, prices
        self._layers: dict[tuple[int, int, int, bool], float] = {}
        self._parts: dict[tuple[int, int, int, int], float] = {}
        self._sites: dict[int, tuple[int, int, int]] = {}
        self._copies: dict[tuple[str, int, int, int, bool, int | None], float] = {}
        self._counts: dict[tuple[int, Grain], Counts] = {}
        self._liked: dict[tuple[int, int], tuple[int, ...]] = {}

    def layer(self, layer: Layer, inputs: int, outputs: int, plain: bool = False) -> float:
        """One ungrouped layer with given channel counts.

        Args:
            layer: The layer.
            inputs: Input channels that it reads.
            outputs: Output channels that it makes.
            plain: Whether what it reads is plain whatever is planned (`is_plain`).

        Returns:
            Seconds.
        """
        key = layer.node.index, inputs, outputs, plain
        found = self._layers.get(key)
        if found is None:
            found = self._layers[key] = self._layer(layer, inputs, outputs, plain)
        return found

    def _layer(self, layer: Layer, inputs: int, outputs: int, plain: bool) -> float:
        work = self._work(layer, inputs, outputs, plain)
        pool = self.structure.poolings.get(layer.node.index)
        if pool is None:
            return self.prices.layer(work)
        return min(self._either_first(layer, pool, work))

    def _work(self, layer: Layer, inputs: int, outputs: int, plain: bool) -> LayerWork:
        index = layer.node.index
        if index not in self._sites:
            self._sites[index] = self._site(layer)
        places, item_bytes, stride = self._sites[index]
        window = layer.window
        if layer.recurrence is not None:  # One product with all gates, units read units.
            inputs, outputs, window = inputs + outputs, outputs * window, 1
        return LayerWork(
            layer.product,
            inputs,
            outputs,
            places,
            window,
            item_bytes,
            stride,
            plain,
            index in self._bounded,
            layer.grain,
            layer.in_bytes,
        )

    def in_parts(self, layer: Layer, first: int, rest: int, outputs: int) -> float:
        """One ungrouped convolution in two, the second of which adds its sums to the others.

        Args:
            layer: The layer.
            first: Input channels that the first reads.
            rest: Those that the second reads.
            outputs: Output channels that both make.

        Returns:
            Seconds.
        """
        key = layer.node.index, first, rest, outputs
        found = self._parts.get(key)
        if found is None:
            work = self._work(layer, first, outputs, plain=False)
            parts = work, work._replace(inputs=rest, bounded=False)
            added = self.prices.kernel(Kernel("fused", outputs, outputs, work.places))
            found = self._parts[key] = added + sum(map(self.prices.layer, parts))
        return found

    def whole_blocks(self, layer: Layer, channels: int) -> int:
        """How many channels are whole blocks of a layer that can be computed in parts; else 0."""
        tensor = layer.node.inputs[layer.data_slot]
        if layer.node.index not in self.structure.parted or not self.reorders(tensor):
            return 0
        return channels - channels % self.counts(1, Grain.BLOCK).whole

    def depthwise(self, layer: Layer, channels: int) -> float:
        """A depthwise convolution of 8-bit numbers with some of its channels.

        Returns:
            Seconds.
        """
        places, _, stride = self._site(layer)
        return self.prices.kernel(
            byte_convolution(channels, channels, places, layer.window, stride, channels)
        )

    def pools_first(self, layer: Layer, inputs: int, outputs: int) -> bool:
        """Whether the average behind a layer (`Structure.poolings`) costs less before it."""
        places, item_bytes, stride = self._site(layer)
        work = LayerWork(False, inputs, outputs, places, 1, item_bytes, stride)
        behind, before = self._either_first(layer, self.structure.poolings[layer.node.index], work)
        return before < behind

    def counts(self, least: int, grain: Grain) -> Counts:
        """Counts that layers like (`Prices.counts`)."""
        key = least, grain
        found = self._counts.get(key)
        if found is None:
            found = self._counts[key] = self.prices.counts(least, grain)
        return found

    def liked(self, layer: Layer, needed: int) -> tuple[int, ...]:
        """How many channels a layer had better read that needs so many."""
        key = layer.node.index, needed
        found = self._liked.get(key)
        if found is None:
            counts = self.counts(needed, layer.grain)
            pools = layer.node.index in self.structure.poolings
            liked = (counts.aligned, counts.whole) if pools else (counts.aligned,)
            found = tuple(count + -count % layer.together for count in liked)
            self._liked[key] = found
        return found

    def _either_first(self, layer: Layer, pool: Node, work: LayerWork) -> tuple[float, float]:
        """Seconds of a pointwise convolution and the average behind it, and of these in turn."""
        places = positions(self._graph, pool.outputs[0], (layer.data_axis,))
        after = work._replace(places=places, plain=False)
        behind = self.prices.layer(work) + self._pool(pool, work.outputs, False)
        return behind, self._pool(pool, work.inputs, work.plain) + self.prices.layer(after)

    def _pool(self, pool: Node, channels: int, plain: bool) -> float:
        source, made = pool.inputs[0], pool.outputs[0]
        before, places = (positions(self._graph, name, (1,)) for name in (source, made))
        window, stride = (
            math.prod(pool.attributes.get(name, ())) for name in ("kernel_shape", "strides")
        )
        reorders = self.reorders(source)
        blocked = not reorders or self.counts(channels, Grain.BLOCK).whole == channels
        family, price = "pool" if blocked else "pool_plain", self.prices.kernel
        seconds = price(Kernel(family, channels, channels, places, window, stride))
        if reorders and blocked == plain:
            seconds += price(Kernel(REORDERS[not blocked], channels, channels, before))
        if not blocked:
            seconds += price(Kernel(REORDERS[0], channels, channels, places))
        return seconds

    def _site(self, layer: Layer) -> tuple[int, int, int]:
        """What the work of a layer depends on besides its counts: places, bytes, stride."""
        tensor, axis = layer.stepping
        places = positions(self._graph, tensor, () if axis is None else (axis,))
        stride = math.prod(layer.node.attributes.get("strides", ()))
        return places, element_bytes(self._graph, tensor), stride

    def copy(
        self,
        tensor: str,
        axis: int,
        source: int,
        channels: int,
        contiguous: bool = True,
        reordered: int | None = None,
    ) -> float:
        """A copy of `channels` channels out of (or into) a tensor of `source` channels.

        Args:
            tensor: The tensor.
            axis: The axis that holds the channels.
            source: How many it has.
            channels: How many are copied.
            contiguous: Whether they are a range.
            reordered: How many are reordered for this copy alone; None for all of them.

        Returns:
            Seconds.
        """
        key = tensor, axis, source, channels, contiguous, reordered
        found = self._copies.get(key)
        if found is None:
            found = self._copies[key] = self._copy(*key)
        return found

    def _copy(
        self,
        tensor: str,
        axis: int,
        source: int,
        channels: int,
        contiguous: bool,
        reordered: int | None,
    ) -> float:
        places = positions(self._graph, tensor, (axis,))
        last = axis == len(self._graph.shapes.get(tensor, ())) - 1
        item_bytes = element_bytes(self._graph, tensor)
        return self.prices.copy(
            CopyWork(source, channels, places, contiguous, last, item_bytes, reordered)
        )

    @property
    def approaches(self) -> Mapping[int, Approach]:
        """What stands before readers and works for them alone, by the index of their node."""
        return self.structure.approaches

    def reorders(self, tensor: str) -> bool:
        """Whether a tensor has a blocked layout besides the plain one."""
        four = len(self._graph.shapes.get(tensor, ())) == 4 and not is_of_bytes(self._graph, tensor)
        single = self._graph.types.get(tensor, TensorProto.FLOAT) == TensorProto.FLOAT
        return four and single and self.prices.layouts > 1

    def is_plain(self, tensor: str) -> bool:
        """Whether a tensor is in the plain layout whatever is planned.

        That is so if it is made plain, or somebody who reads it wants it plain.
        """
        return tensor in self._plain

    @cached_property
    def _bounded(self) -> frozenset[int]:
        """The convolutions right behind which values are bounded, by the index of their node."""
        graph, found = self._graph, set[int]()
        for index, layer in self.structure.layers.items():
            reader = graph.only_reader(layer.node.outputs[0])
            if reader is not None and runs_as(layer.node) == "Conv" and reader.op in BOUNDS:
                found.add(index)
        return frozenset(found)

    @cached_property
    def _plain(self) -> set[str]:
        """The tensors with two layouts that nodes touch which do not work on blocks."""
        found: set[str] = set()
        for node in self._graph.nodes:
            if not self._blockable(node):
                found.update(node.inputs, node.outputs)
        return set(filter(self.reorders, found))

    def _blockable(self, node: Node) -> bool:
        graph = self._graph
        operator = runs_as(node)
        if works_on_blocks(operator, alike=False, behind_convolution=False):
            return True
        names = [name for name in node.inputs if name and name not in graph.constants]
        alike = len(names) > 1 and len({graph.shapes.get(name) for name in names}) == 1
        maker = graph.producers.get(names[0]) if len(names) == 1 else None
        convolution = maker is not None and runs_as(maker) == "Conv"
        alone = len(names) == 1 and len(graph.readers[names[0]]) == 1
        return works_on_blocks(operator, alike, convolution and alone)

    def saved(self, approach: Approach, channels: int, left: int) -> float:
        """What the nodes of an approach take less for `left` channels than for `channels`."""
        seconds, scaled, price = 0.0, False, self.prices.kernel
        for node, operands, places in zip(
            approach.nodes, approach.operands, approach.places, strict=True
        ):
            if not (scaled and node.op == "Relu"):  # A part of what scales.
                family = passing_family(node.op, operands)
                seconds += price(Kernel(family, channels, channels, places))
                seconds -= price(Kernel(family, left, left, places))
            scaled = node.op == "BatchNormalization"
        return seconds

    def copied_bytes(self, tensor: str, axis: int, channels: int) -> int:
        """Bytes that a copy of some channels writes."""
        places = positions(self._graph, tensor, (axis,))
        return channels * places * element_bytes(self._graph, tensor)
