"""The structure of a graph: what follows from its nodes alone, whatever masks prune.

Every node's rule is run, in order; what they say is collected once per model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from onnx_upscale.optimizer.analyze.across import Across, find_across
from onnx_upscale.optimizer.analyze.all_axes import AllAxes, find_all_axes
from onnx_upscale.optimizer.analyze.approaches import Approach, find_approaches
from onnx_upscale.optimizer.analyze.bands import Band
from onnx_upscale.optimizer.analyze.context import Context, UnclearError
from onnx_upscale.optimizer.analyze.facts import (
    Axes,
    Concatenation,
    Demand,
    Facts,
    Grid,
    Read,
    Tie,
)
from onnx_upscale.optimizer.analyze.groups import Together, find_together
from onnx_upscale.optimizer.analyze.heads import nodes_in_heads
from onnx_upscale.optimizer.analyze.idioms import Idioms, find_idioms
from onnx_upscale.optimizer.analyze.in_step import free_bands
from onnx_upscale.optimizer.analyze.labels import LabelPool, Tally, distinct
from onnx_upscale.optimizer.analyze.parts import find_parted
from onnx_upscale.optimizer.analyze.poolings import find_poolings
from onnx_upscale.optimizer.analyze.rules import NO_RULE, RULES, UNRULED
from onnx_upscale.optimizer.analyze.segments import Segment, find_segments
from onnx_upscale.optimizer.analyze.sizes import Sizes, trace_sizes
from onnx_upscale.optimizer.analyze.steps import step_of
from onnx_upscale.optimizer.analyze.weights import BoolArray, Weights
from onnx_upscale.optimizer.load.graph import Graph, IntArray, Node
from onnx_upscale.optimizer.load.layers import Layer, layers
from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.prices.program import Step

_OLDEST_OPSET = 7


@dataclass(frozen=True)
class HeadOrder:
    """An order of channels that differs from head to head.

    Attributes:
        heads: The roots of the heads.
        channels: The roots of the places of a head, each of which holds other channels; they stand
            side by side wherever they stand.
        order: What it was that lies in each place, shape (heads, channels).
        flats: The roots of the axes that are split into these heads, or made of them.
    """

    heads: IntArray
    channels: IntArray
    order: IntArray
    flats: IntArray

    def view(self, value: Array, axes: Mapping[int, IntArray]) -> Array:
        """A tensor in this order.

        Args:
            value: The tensor.
            axes: The roots of its labelled axes.
        """
        heads = [axis for axis, roots in axes.items() if np.array_equal(roots, self.heads)]
        mine = [axis for axis, roots in axes.items() if (roots == self.channels[0]).any()]
        if not heads or not mine:
            return value
        turned = np.moveaxis(value, (heads[0], mine[0]), (0, 1)).copy()
        order = self.order.reshape(*self.order.shape, *[1] * (value.ndim - 2))
        for start in np.flatnonzero(axes[mine[0]] == self.channels[0]).tolist():
            own = turned[:, start : start + len(self.channels)]
            own[...] = np.take_along_axis(own, order, 1)
        return np.moveaxis(turned, (0, 1), (heads[0], mine[0]))


@dataclass(frozen=True)
class Structure:
    """Labels of a whole graph, and what each node does with them.

    Attributes:
        graph: The graph, without masks.
        facts: What is known of each node, in order.
        axes: The labelled axes of every tensor that has some.
        demands: Every demand: of nodes, of graph outputs, of subgraphs.
        roots: Per label, its root: equal for coupled channels.
        weights: The non-zero weights of each layer.
        head_orders: Where heads have orders of their own.
        crossed: Products that are zero in every head, as one of their factors is.
    """

    graph: Graph
    facts: tuple[Facts, ...]
    axes: dict[str, Axes]
    demands: tuple[Demand, ...]
    roots: IntArray
    weights: Weights
    head_orders: tuple[HeadOrder, ...] = ()
    crossed: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))

    @cached_property
    def layers(self) -> Mapping[int, Layer]:
        """The layers by the index of their node, those that no rule could make sense of as well."""
        return {layer.node.index: layer for layer in layers(self.graph)}

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The closed sets of coupled axes, in the order in which the model first touches them."""
        return find_segments(self.roots, self.axes, self.facts, self.demands)

    @cached_property
    def segment_of(self) -> IntArray:
        """Per label the number of its segment."""
        found = np.zeros(len(self.roots), np.int64)
        for segment in self.segments:
            found[segment.roots] = segment.id
        return found[self.roots]

    @cached_property
    def with_whole_heads(self) -> Structure:
        """The same, where the channels of a head are coupled: what can leave only as one is one.

        Of each grid, the slowest axis of which something may leave takes the others along.
        """
        if not self.grids:
            return self
        pool = LabelPool()
        pool.fresh(len(self.roots))
        pool.couple(np.arange(len(self.roots)), self.roots)
        for grid in self.grids:
            free = (
                axis for axis, factor in enumerate(grid.factors) if not self.demanded[factor].all()
            )
            axis = next(free, 0)
            cells = np.moveaxis(grid.flat.reshape(grid.shape), axis, -1)
            pool.couple(cells, grid.factors[axis])
        return replace(self, roots=pool.all_roots())

    @cached_property
    def free_bands(self) -> tuple[Band, ...]:
        """Channels of heads whose order may differ from head to head."""
        return free_bands(self)

    @cached_property
    def demanded(self) -> BoolArray:
        """Per root, whether a node, an output or a subgraph needs its channel; never changed."""
        found = np.zeros(len(self.roots), bool)
        for demand in self.demands:
            found[self.roots[demand.labels]] = True
        return found

    @cached_property
    def approaches(self) -> Mapping[int, Approach]:
        """What stands before a reader and works for it alone, by the index of its node."""
        return find_approaches(self.graph, self.facts, self.axes, self.roots)

    @cached_property
    def poolings(self) -> Mapping[int, Node]:
        """The averages that may come before a pointwise convolution, by the index of its node."""
        return find_poolings(self.graph, self.layers)

    @cached_property
    def parted(self) -> frozenset[int]:
        """The layers that can be computed in two parts, by the index of their node."""
        return find_parted(self.graph, self.layers)

    @cached_property
    def growing(self) -> tuple[tuple[Segment, ...], Tally]:
        """The segments that can keep a channel more, and the sets of one after the other.

        In a grid one more channel would be a whole slice more.
        """
        found = tuple(each for each in self.segments if not each.in_grid)
        return found, Tally([each.roots[own.places] for each in found for own in each.sets])

    @cached_property
    def across(self) -> Across:
        """What is on the other side of the layers around each segment."""
        return find_across(self.segments)

    @cached_property
    def running(self) -> tuple[tuple[Facts, Step], ...]:
        """The nodes that run, each as it does where no channel leaves."""
        found: list[tuple[Facts, Step]] = []
        constants = self.graph.constants
        for facts in self.facts:
            node = facts.node
            if not all(name in constants for name in node.outputs if name):
                reads = tuple(name for name in node.inputs if name not in constants)
                found.append((facts, step_of(node, self.layers.get(node.index), reads)))
        return tuple(found)

    @cached_property
    def ties(self) -> tuple[Tie, ...]:
        """The ties that a layout may break: axes that hold the same channels are laid out alike."""
        ties = (tie for facts in self.facts for tie in facts.ties)
        return tuple(tie for tie in ties if not tie.outer == tie.inner == 1)

    @cached_property
    def concatenations(self) -> tuple[Concatenation, ...]:
        """The Concats that a layout may break; of some parts of another one, only that other.

        What keeps all parts of a Concat together keeps some of them together, unless channels
        come twice.
        """
        found: list[Concatenation] = []
        larger: list[frozenset[bytes]] = []
        laid = [facts.concatenation for facts in self.facts if facts.concatenation is not None]
        for each in sorted(laid, key=lambda each: -len(each.parts)):
            parts = frozenset(self.roots[part].tobytes() for part in each.parts)
            once = len(distinct(self.roots[each.whole])) == len(each.whole)
            if each.fixed or not once or not any(parts <= others for others in larger):
                found.append(each)
                larger += [parts] if once else []
        return tuple(found)

    @cached_property
    def backward(self) -> tuple[tuple[Read, IntArray | None, IntArray], ...]:
        """The readers from the last to the first, with the roots that each makes and reads."""
        roots = self.roots
        return tuple(
            (read, None if read.outputs is None else roots[read.outputs], roots[read.inputs])
            for read in (facts.read or facts.grouped for facts in reversed(self.facts))
            if read is not None
        )

    @cached_property
    def asked(self) -> tuple[tuple[Read, IntArray | None, IntArray], ...]:
        """All readers in the order in which needs are asked: hidden units of each other first."""
        found = (facts.recurrence for facts in reversed(self.facts))
        between = ((read, self.roots[read.inputs]) for read in found if read is not None)
        return (*((read, units, units) for read, units in between), *self.backward)

    @cached_property
    def asked_early(self) -> tuple[tuple[Read, IntArray], ...]:
        """The readers that make what they, or others that are asked after them, read.

        So it is where branches meet: more of it may be needed than was when they were asked.
        """
        read_after, found = np.zeros(len(self.roots), bool), []
        for read, made, inputs in reversed(self.asked):
            read_after[inputs] = True
            if made is not None and read_after[made].any():
                found.append((read, made))
        return tuple(found)

    @cached_property
    def different_axes(self) -> tuple[Tally, Mapping[str, Mapping[int, int]]]:
        """The axes that hold different channels, and which of these each axis is like."""
        number: dict[bytes, int] = {}
        found: list[IntArray] = []
        like: dict[str, dict[int, int]] = {name: {} for name in self.axes}
        for name, axes in self.axes.items():
            for axis, labels in axes.items():
                like[name][axis] = number.setdefault(self.roots[labels].tobytes(), len(found))
                if len(number) > len(found):
                    found.append(labels)
        return Tally(found), like

    @cached_property
    def all_axes(self) -> AllAxes:
        """The axes of all tensors, one behind the other."""
        axes = (labels for own in self.axes.values() for labels in own.values())
        return find_all_axes(self.roots, self.segments, axes)

    @cached_property
    def named_axes(self) -> Mapping[bytes, tuple[tuple[str, int], ...]]:
        """By the bytes of its labels, the axes of tensors that are this one."""
        found: dict[bytes, list[tuple[str, int]]] = {}
        for name, axes in self.axes.items():
            for axis, labels in axes.items():
                found.setdefault(labels.tobytes(), []).append((name, axis))
        return {labels: tuple(named) for labels, named in found.items()}

    @cached_property
    def grids(self) -> tuple[Grid, ...]:
        """All grids, in the order of the model; their labels stand for roots."""
        roots = self.roots
        return tuple(
            replace(grid, flat=roots[grid.flat], factors=tuple(roots[f] for f in grid.factors))
            for facts in self.facts
            for grid in facts.grids
        )

    @cached_property
    def measured(self) -> tuple[IntArray, ...]:
        """The roots of axes of which a node wants no more than the size, as Shape does."""
        return tuple(
            self.roots[labels]
            for facts in self.facts
            if facts.read is None and not facts.outputs
            for axes in facts.inputs.values()
            for labels in axes.values()
        )


def find_structure(graph: Graph) -> Structure:
    """Labels the axes of every tensor.

    Args:
        graph: The graph; masks that it may be seen through do not matter.

    Returns:
        The labels, and what each node does with them.
    """
    graph = graph.masked({})
    sizes, movers = trace_sizes(graph)
    in_heads = nodes_in_heads(graph)
    idioms = find_idioms(graph, sizes)
    together = Together()
    while True:
        structure = _label(graph, sizes, movers, in_heads, idioms, together)
        more = find_together(structure.facts, structure.axes, structure.roots, structure.demands)
        if together | more == together:
            return structure
        together |= more


def _label(
    graph: Graph,
    sizes: Mapping[str, Sizes],
    movers: Collection[int],
    in_heads: Collection[int],
    idioms: Idioms,
    together: Together,
) -> Structure:
    """Runs every rule.

    Args:
        graph: The graph.
        sizes: Which sizes the entries of shape vectors are.
        movers: The nodes that only move sizes.
        in_heads: The nodes before products of activations.
        idioms: Nodes that stand for others.
        together: The sides of grouped layers on which groups do not lose channels each by itself.
    """
    pool, axes = LabelPool(), dict[str, Axes]()
    all_facts: list[Facts] = []
    demands: list[Demand] = []
    for node in graph.nodes:
        known = all(name in graph.constants for name in node.outputs if name)
        if known or node.index in idioms.inside:
            all_facts.append(Facts(node, {}, {}))
            continue
        context = Context(graph, node, pool, axes, sizes, node.index in in_heads, together)
        rule = idioms.rules.get(node.index, RULES.get((node.domain, node.op)))
        try:
            if graph.opset < _OLDEST_OPSET:
                raise UnclearError(f"operator set {graph.opset} is older than {_OLDEST_OPSET}")
            if rule is None:
                raise UnclearError(UNRULED.get((node.domain, node.op), NO_RULE))
            rule(context)
            facts = context.facts()
        except UnclearError as unclear:
            facts = context.pinned_facts(f"{node.op}: {unclear}")
        if node.index not in movers and node.index not in idioms.rules:
            facts = context.with_sizes(facts)
        all_facts.append(facts)
        demands += facts.demands
        for output, labelled in facts.outputs.items():
            axes[node.outputs[output]] = labelled
    demands += _demands_from_outside(graph, axes, sizes)
    roots = pool.all_roots()
    return Structure(graph, tuple(all_facts), axes, tuple(demands), roots, Weights(graph))


def _demands_from_outside(
    graph: Graph, axes: dict[str, Axes], sizes: Mapping[str, Sizes]
) -> Iterator[Demand]:
    reasons = {name: "captured by a subgraph" for name in graph.captured}
    reasons.update(dict.fromkeys(graph.outputs, "graph output"))
    for name, reason in reasons.items():
        for axis, labels in axes.get(name, {}).items():
            yield Demand(name, -1, axis, labels, True, reason)
        for size in sizes.get(name, ()):
            measured = axes.get(size.tensor, {}).get(size.axis) if size else None
            if size is not None and measured is not None:
                reason = f"its size is a {reason}" if name in graph.outputs else reason
                yield Demand(size.tensor, -1, size.axis, measured, True, reason)
