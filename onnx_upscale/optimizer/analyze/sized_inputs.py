"""Inputs of a node that hold sizes, and what becomes of them where channels leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from onnx import TensorProto

from onnx_upscale.optimizer.analyze.facts import Axes, Demand, Facts
from onnx_upscale.optimizer.analyze.labels import LabelPool
from onnx_upscale.optimizer.analyze.rewrites import Frozen, Resize, Template
from onnx_upscale.optimizer.analyze.sizes import Sizes
from onnx_upscale.optimizer.load.graph import Graph, IntArray, Node

# Types that hold sizes exactly: a mantissa of 24 bits is enough for those of any channels.
_SIZES = (TensorProto.INT64, TensorProto.INT32, TensorProto.FLOAT, TensorProto.DOUBLE)
WHERE_SINCE = 9
"""The operator set from which on a node puts sizes beside others."""


class SizedInputs:
    """The inputs of one node that hold sizes.

    Args:
        graph: The graph.
        node: The node.
        pool: The labels.
        axes: The labelled axes of tensors.
        sizes: Where the entries of vectors come from.

    Attributes:
        templates: What a rule says of an input that holds the output's shape, by slot.
        adapting: Slots whose sizes follow by themselves.
    """

    def __init__(
        self,
        graph: Graph,
        node: Node,
        pool: LabelPool,
        axes: Mapping[str, Axes],
        sizes: Mapping[str, Sizes],
    ) -> None:
        self._graph, self._node, self._pool = graph, node, pool
        self._axes, self._sizes = axes, sizes
        self.templates: dict[int, Template] = {}
        self.adapting: set[int] = set()

    def follows(self, slot: int, result: Mapping[int, IntArray]) -> bool:
        """Whether the sizes of all labelled axes are read from axes that hold the same channels.

        Args:
            slot: The input that holds them.
            result: The labelled axes of what they are the shape of.
        """
        left = dict(result)
        for axis, source in enumerate(self._measured(slot)):
            own = left.pop(axis, None)
            if source is None and own is None:
                continue
            if source is None or own is None:
                return False
            if not np.array_equal(self._pool.roots(source), self._pool.roots(own)):
                return False
        return not left

    def resizes(self, made: Mapping[int, IntArray]) -> list[Resize]:
        """What writes the sizes of the templates anew.

        Args:
            made: The labelled axes of the output.
        """
        return [self._resize(slot, made) for slot in self.templates]

    def _resize(self, slot: int, made: Mapping[int, IntArray]) -> Resize:
        measured = dict(enumerate(self._measured(slot)))
        template = tuple(
            len(labels) if size is None and (labels := measured.get(place)) is not None else size
            for place, size in enumerate(self.templates[slot])
        )
        return Resize(slot, template, made, tuple(m for m in measured.values() if m is not None))

    def _measured(self, slot: int) -> list[IntArray | None]:
        """The labels of the axes that the entries of an input are the sizes of."""
        return [
            None if size is None else self._axes.get(size.tensor, {}).get(size.axis)
            for size in self._sizes.get(self._node.input(slot), ())
        ]

    def unadapted(self, facts: Facts) -> Facts:
        """Facts with what becomes of sizes that the node uses in a way that nothing adapts.

        They stay what they were: either they are put back before the node reads them, or the axes
        must stay as well.
        """
        demands: list[Demand] = []
        frozen: list[Frozen] = []
        for slot, name in enumerate(self._node.inputs):
            if slot in self.templates or slot in self.adapting:
                continue
            measured = self._measured(slot)
            shape = self._graph.shapes.get(name)
            if all(labels is None for labels in measured):
                continue
            whole = all(labels is not None for labels in measured)
            fits = shape in ((), (len(measured),)) and self._graph.types.get(name) in _SIZES
            if fits and (whole or self._graph.opset >= WHERE_SINCE):
                frozen.append(Frozen(slot, tuple(measured), scalar=shape == ()))
                continue
            for size, labels in zip(self._sizes[name], measured, strict=True):
                if size is not None and labels is not None:
                    reason = f"its size is used by {self._node.op}"
                    demands.append(Demand(size.tensor, -1, size.axis, labels, True, reason))
        return replace(
            facts,
            demands=(*facts.demands, *demands),
            rewrites=(*frozen, *facts.rewrites),  # A rule may change what was put back.
        )

    def forget(self) -> None:
        """Takes back what a rule said that does not cover the node after all."""
        self.templates.clear()
        self.adapting.clear()
