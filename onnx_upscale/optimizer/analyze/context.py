"""What a rule sees of its node, and the few things it can say about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onnx_upscale.declared import Shape
from onnx_upscale.optimizer.analyze.facts import (
    Axes,
    Carry,
    Concatenation,
    Demand,
    Facts,
    Function,
    Grid,
    How,
    Param,
    Read,
    Tie,
    Write,
    same_axis,
)
from onnx_upscale.optimizer.analyze.groups import Together
from onnx_upscale.optimizer.analyze.labels import LabelPool
from onnx_upscale.optimizer.analyze.rewrites import Count, Rewrite, Template
from onnx_upscale.optimizer.analyze.sized_inputs import WHERE_SINCE, SizedInputs
from onnx_upscale.optimizer.analyze.sizes import Sizes
from onnx_upscale.optimizer.load.graph import Graph, IntArray, Node
from onnx_upscale.optimizer.load.layers import Layer
from onnx_upscale.optimizer.load.quantized import zero_of
from onnx_upscale.optimizer.load.recurrence import STATE_WEIGHT_SLOT
from onnx_upscale.optimizer.load.values import Array

# Each takes some dozens of bytes, and a few bytes of a model can ask for any number.
_MOST_CHANNELS = 1 << 24
_APART = Together()


class UnclearError(Exception):
    """A rule does not cover this use of its operator, so the node's axes are pinned."""


class Context:
    """One node on its way through its rule.

    Attributes:
        graph: The graph.
        node: The node.
        in_heads: Whether what it makes goes into a product of activations, with no layer between.
        together: The sides of grouped layers on which groups do not lose channels each by itself.
        inputs: Labelled axes by input slot.
        outputs: What was said of them, by output.
    """

    def __init__(
        self,
        graph: Graph,
        node: Node,
        pool: LabelPool,
        axes: Mapping[str, Axes],
        sizes: Mapping[str, Sizes],
        in_heads: bool = False,
        together: Together = _APART,
    ) -> None:
        self.graph = graph
        self.node = node
        self._pool = pool
        self._axes = axes
        self.in_heads = in_heads
        self.together = together
        self.inputs: dict[int, Axes] = {
            slot: axes[name] for slot, name in enumerate(node.inputs) if axes.get(name)
        }
        self.outputs: dict[int, dict[int, IntArray]] = {}
        self._params: list[Param] = []
        self._ties: list[Tie] = []
        self._grids: list[Grid] = []
        self._carries: list[Carry] = []
        self._demands: list[Demand] = []
        self._read: Read | None = None
        self._write: Write | None = None
        self._recurrence: Read | None = None
        self._concatenation: Concatenation | None = None
        self._grouped: Read | None = None
        self._group_labels: IntArray | None = None
        self._rewrites: list[Rewrite] = []
        self._sized = SizedInputs(graph, node, pool, axes, sizes)

    # What the node is.

    def has(self, slot: int) -> bool:
        """Whether an optional input is given."""
        return bool(self.node.input(slot))

    def axes(self, slot: int = 0) -> Axes:
        """The labelled axes of an input."""
        return self.inputs.get(slot, {})

    def axes_of(self, tensor: str) -> Axes:
        """The labelled axes of any tensor that is made before."""
        return self._axes.get(tensor, {})

    def roots(self, labels: IntArray) -> IntArray:
        """What stands for each channel and for all that are coupled with it so far."""
        return self._pool.roots(labels)

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute, or its default."""
        return self.node.attributes.get(name, default)

    def constant(self, slot: int) -> Array | None:
        """The value of an input that is known before run time."""
        return self.graph.value(self.node, slot)

    def constant_list(self, slot: int, attribute: str) -> list[Any] | None:
        """A list that is an input in newer operator sets and an attribute in older ones.

        Raises:
            UnclearError: It is an input that is not known before run time.
        """
        if attribute in self.node.attributes:
            value = self.node.attributes[attribute]
            return list(value) if isinstance(value, (list, tuple)) else [value]
        if not self.has(slot):
            return None
        known = self.graph.known(self.node, slot)
        if known is None:
            raise UnclearError(f"its {attribute} are not constant")
        return list(known.ravel().tolist())

    def shape(self, slot: int = 0) -> Shape:
        """The shape of an input.

        Raises:
            UnclearError: It is not known.
        """
        known = self.constant(slot)
        if known is not None:
            return known.shape
        return self._shape_of(self.node.input(slot))

    def output_shape(self, index: int = 0) -> Shape:
        """The shape of an output.

        Raises:
            UnclearError: It is not known.
        """
        return self._shape_of(self.node.outputs[index])

    def _shape_of(self, name: str) -> Shape:
        if name not in self.graph.shapes:
            raise UnclearError(f"the shape of '{name}' is not known")
        return self.graph.shapes[name]

    def used(self, output: int) -> bool:
        """Whether anybody reads an output."""
        if output >= len(self.node.outputs) or not self.node.outputs[output]:
            return False
        name = self.node.outputs[output]
        graph = self.graph
        return name in graph.readers or name in graph.outputs or name in graph.captured

    # What a rule can say.

    def move(self, axis: int, labels: IntArray, output: int = 0) -> None:
        """An output axis holds channels as they come in."""
        self.outputs.setdefault(output, {})[axis] = labels

    def make(self, axis: int, channels: int, output: int = 0) -> IntArray:
        """An output axis holds channels that are new."""
        labels = self.unbound(channels)
        self.move(axis, labels, output)
        return labels

    def pass_on(
        self,
        axis: int,
        labels: IntArray,
        how: How | str = How.NONE,
        slot: int = 0,
        output: int = 0,
        function: Function | None = None,
    ) -> IntArray:
        """An output axis holds new values of the same channels, one to one."""
        made = self.make(axis, len(labels), output)
        self.tie(made, labels)
        if how != How.NONE:
            carry = Carry(How(how), {slot: labels}, axis, made, function=function)
            self._carries.append(carry)
        return made

    def join(self, axis: int, parts: Sequence[IntArray]) -> IntArray:
        """An output axis holds new values, each of one channel of every part."""
        made = self.make(axis, len(parts[0]))
        self.tie(made, parts[0])
        for part in parts[1:]:
            if not same_axis(part, parts[0]):
                self.tie(part, parts[0])
        return made

    def carry(self, carry: Carry) -> None:
        """Known values pass in a way of their own."""
        self._carries.append(carry)

    def tie(self, flat: IntArray, part: IntArray, outer: int = 1, inner: int = 1) -> None:
        """Couples a flat axis with one factor of it, flat = outer x part x inner."""
        self._pool.couple(flat.reshape(outer, len(part), inner), part[:, np.newaxis])
        self._ties.append(Tie(flat, outer, part, inner))

    def grid(
        self, flat: IntArray, factors: Sequence[IntArray], splits: bool, ordered: bool = True
    ) -> None:
        """A flat axis is a grid of several axes that lose channels each by itself.

        Not ordered, it holds the channels of a single one, and both have an order of their own.
        """
        zero = zero_of(self.graph, self.node.inputs[0])
        place = len(self._carries)
        self._grids.append(Grid(flat, tuple(factors), splits, place, zero, ordered))

    def unbound(self, channels: int) -> IntArray:
        """Labels for channels of no tensor, such as the groups of a convolution.

        Raises:
            UnclearError: There are more of them than any model has.
        """
        if channels > _MOST_CHANNELS:
            raise UnclearError(f"an axis of {channels} channels is too long")
        return self._pool.fresh(channels)

    def param(self, slot: int, axis: int, labels: IntArray) -> None:
        """A constant input is indexed by channels."""
        self._params.append(Param(slot, axis, labels))

    def param_of_parts(self, slot: int, axis: int, parts: Sequence[IntArray]) -> None:
        """A constant input is indexed by the channels of several axes, one after the other."""
        self._params.append(Param(slot, axis, np.concatenate(parts), tuple(parts)))

    def need(self, slot: int, axis: int, reason: str, unless_zero: bool = False) -> None:
        """All channels of an input axis are needed, in any order."""
        self._demand(slot, axis, reason, ordered=False, unless_zero=unless_zero)

    def pin(self, slot: int, axis: int, reason: str) -> None:
        """All channels of an input axis are needed, in their original order."""
        self._demand(slot, axis, reason, ordered=True)

    def pin_others(self, slot: int, allowed: set[int], reason: str) -> None:
        """Pins the labelled axes of an input that a rule does not handle."""
        for axis in self.axes(slot):
            if axis not in allowed:
                self.pin(slot, axis, reason)

    def pin_part(self, slot: int, axis: int, labels: IntArray, reason: str) -> None:
        """Channels that a rule made of an input are all needed, in their original order."""
        tensor = self.node.inputs[slot]
        self._demands.append(Demand(tensor, slot, axis, labels, True, reason))

    def pin_before(self, tensor: str, axis: int, reason: str) -> None:
        """All channels of a tensor in front of others that the node stands for stay in place."""
        labels = self.axes_of(tensor)[axis]
        self._demands.append(Demand(tensor, -1, axis, labels, True, reason))

    def need_made(self, slot: int, axis: int, labels: IntArray, reason: str) -> None:
        """Channels that a rule made of an input are all needed, in any order."""
        tensor = self.node.inputs[slot]
        self._demands.append(Demand(tensor, slot, axis, labels, False, reason))

    def keep_groups(self, groups: IntArray) -> None:
        """No group leaves as a whole, for the same channels leave all of them."""
        self.need_made(0, 1, groups, "groups that lose the same channels")

    def _demand(
        self, slot: int, axis: int, reason: str, ordered: bool, unless_zero: bool = False
    ) -> None:
        labels, tensor = self.axes(slot)[axis], self.node.inputs[slot]
        self._demands.append(Demand(tensor, slot, axis, labels, ordered, reason, unless_zero))

    def contracts(
        self, layer: Layer, inputs: IntArray | None, outputs: IntArray | None, padded: bool
    ) -> None:
        """The node is a layer: a reader of one axis, and a writer of another (see `Contraction`).

        A grouped one is no reader: its input channels go with its output channels, by groups.
        """
        if inputs is not None and layer.groups == 1:
            self._read = Read(layer, inputs, outputs, padded)
        if outputs is not None:
            self._write = Write(layer, inputs, outputs, padded)

    def recurs(self, layer: Layer, units: IntArray) -> None:
        """The hidden units that a layer makes read each other, one step later."""
        state = self.constant(STATE_WEIGHT_SLOT)
        assert state is not None
        self._recurrence = Read(layer.between_units(state), units, units, padded=True)

    def contracts_in_groups(self, layer: Layer, inputs: IntArray, outputs: IntArray) -> None:
        """A grouped layer contracts what is there of each group; only zeros are absorbed."""
        self._grouped = Read(layer, inputs, outputs, padded=True)

    def contracts_pairs(
        self,
        left: IntArray,
        right: IntArray,
        axis: int,
        slots: tuple[int, int] = (0, 1),
        zeros: Function | None = None,
    ) -> None:
        """The node contracts an axis of one input with one of another.

        All pairs of channels are needed but for those of which one is zero; where that is not
        stored as zero, `zeros` says for which it is.
        """
        products = self.unbound(len(left))
        self.tie(products, left)
        self.tie(products, right)
        pair: dict[int, IntArray | None] = {slots[0]: left, slots[1]: right}
        self._carries.append(Carry(How.ZERO, pair, axis, products, function=zeros))
        reason = "contracted with another activation"
        tensor, slot = self.node.inputs[slots[0]], slots[0]
        self._demands.append(Demand(tensor, slot, axis, products, False, reason, unless_zero=True))

    def concatenates(self, concatenation: Concatenation) -> None:
        """The node lays parts of an axis side by side."""
        self._concatenation = concatenation

    def rewrite(self, rewrite: Rewrite) -> None:
        """The node itself changes with its channels."""
        self._rewrites.append(rewrite)

    def embeds(self, labels: IntArray) -> None:
        """The node looks rows up in a constant table."""
        self._write = Write(None, None, labels, padded=False)

    def counts_groups(self, labels: IntArray) -> None:
        """The attribute `group` is the count of these channels, one per group of a layer."""
        self._group_labels = labels
        self.rewrite(Count("group", labels))

    def resizes(self, slot: int, template: Template) -> None:
        """An input holds the output's shape; `template` says it as a constant.

        Raises:
            UnclearError: Some sizes stay, and no node of this operator set puts others beside them.
        """
        if None in template and self.graph.opset < WHERE_SINCE:
            raise UnclearError("its sizes are not constant")
        self._sized.templates[slot] = template

    def resizes_in_place(self, slot: int, after: Shape) -> None:
        """Like `resizes`, for an operator whose shape input must name every size.

        Where some size is known at run time only, nothing changes if the labelled ones follow by
        themselves: are read from an axis that holds the same channels.
        """
        known = tuple(size if isinstance(size, int) else None for size in after)
        shift = len(after) - len(self.shape())
        result = {axis + shift: labels for axis, labels in self.axes(0).items()}
        if None in known and self._sized.follows(slot, result):
            self._sized.adapting.add(slot)
            return
        if None in known and self.shape(slot) != (len(after),):
            raise UnclearError("its sizes are not constant")
        self.resizes(slot, known)

    def with_sizes(self, facts: Facts) -> Facts:
        """Facts with what becomes of sizes that this node uses in a way that nothing adapts."""
        return self._sized.unadapted(facts)

    # The outcome.

    def facts(self) -> Facts:
        """All that was said."""
        resizes = self._sized.resizes(self.outputs.get(0, {}))
        return Facts(
            node=self.node,
            inputs=self.inputs,
            outputs=self.outputs,
            unread=frozenset(
                output
                for output in range(len(self.node.outputs))
                if output not in self.outputs and not self.used(output)
            ),
            params=tuple(self._params),
            ties=tuple(self._ties),
            grids=tuple(self._grids),
            carries=tuple(self._carries),
            demands=tuple(each for each in self._demands if each.labels.size),
            read=self._read,
            write=self._write,
            recurrence=self._recurrence,
            concatenation=self._concatenation,
            grouped=self._grouped,
            group_labels=self._group_labels,
            rewrites=(*self._rewrites, *resizes),
        )

    def pinned_facts(self, reason: str) -> Facts:
        """The facts of a node that nothing is known about: its axes stay as they are."""
        self._sized.forget()
        return Facts(
            node=self.node,
            inputs=self.inputs,
            outputs={},
            demands=tuple(
                Demand(self.node.inputs[slot], slot, axis, labels, True, reason)
                for slot, axes in self.inputs.items()
                for axis, labels in axes.items()
            ),
        )
