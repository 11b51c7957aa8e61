"""What a search saves: predicted seconds, multiply-adds or weights."""

from __future__ import annotations

import numpy as np

from onnx_upscale.arguments import check_known
from onnx_upscale.optimizer.analyze import Structure
from onnx_upscale.optimizer.load.attention import attention_work
from onnx_upscale.optimizer.load.layers import Layer, multiply_adds
from onnx_upscale.optimizer.plan import Plan
from onnx_upscale.optimizer.plan.cost import Costs, positions
from onnx_upscale.prices import Prices
from onnx_upscale.pruning.weights import WeightCount


class Gauge:
    """Predicted seconds.

    Args:
        structure: The structure of the model.
        prices: What work costs on the target.
    """

    def __init__(self, structure: Structure, prices: Prices) -> None:
        self.structure, self.prices = structure, prices
        self.costs = Costs(structure, prices)

    def total(self, plan: Plan) -> float:
        """What the emitted model of a plan takes."""
        return plan.seconds

    def layer(self, layer: Layer, there: int, kept: int, outputs: int, together: bool) -> float:
        """About what an ungrouped layer takes.

        Args:
            layer: The layer.
            there: Channels of the tensor that it reads.
            kept: Those of them that it needs: it reads a copy of these or all, whatever is faster.
            outputs: Channels that it makes.
            together: Whether those that it needs can lie side by side.

        Returns:
            An estimate; only differences mean something.
        """
        whole, copied = self._ways(layer, there, kept, outputs, together)
        return min(whole, copied)

    def _ways(
        self, layer: Layer, there: int, kept: int, outputs: int, together: bool
    ) -> tuple[float, float]:
        """Seconds of reading all and of reading a copy."""
        costs, counts = self.costs, self.prices.counts
        there, kept = (counts(count, layer.grain).aligned for count in (there, kept))
        outputs = counts(outputs, layer.grain).aligned
        whole = costs.layer(layer, there, outputs)
        if kept >= there:
            return whole, np.inf
        copy = costs.copy(
            layer.node.inputs[layer.data_slot], layer.data_axis, there, kept, together
        )
        return whole, costs.layer(layer, kept, outputs) + copy


class _Amounts(Gauge):
    """Something that a layer has for each pair of an input and an output channel."""

    def total(self, plan: Plan) -> float:
        """The sum over the layers of the emitted model."""
        total, layout = 0, plan.layout
        for facts in self.structure.facts:
            layer = self.structure.layers.get(facts.node.index)
            if layer is None:
                continue
            reading = plan.readers.get(facts.node.index)
            outputs = layer.outputs
            if facts.write is not None:
                outputs = len(layout.positions(facts.write.outputs))
            inputs = layer.inputs // layer.groups
            if reading is not None:
                inputs = len(reading.chosen)
            elif facts.read is not None:
                inputs = 0
            if layer.recurrence is not None:
                inputs += outputs
            total += self.per_pair(layer) * inputs * outputs
        return float(total)

    def layer(self, layer: Layer, there: int, kept: int, outputs: int, together: bool) -> float:
        """As many as the plan will likely compute."""
        whole, copied = self._ways(layer, there, kept, outputs, together)
        return float(self.per_pair(layer) * (kept if copied < whole else there) * outputs)

    def per_pair(self, layer: Layer) -> int:
        """How much there is for each pair of an input and an output channel."""
        raise NotImplementedError


class _MultiplyAdds(_Amounts):
    """Multiply-adds: those of layers, and of products of activations."""

    def total(self, plan: Plan) -> float:
        """The sum over the nodes of the emitted model, as its report counts them."""
        shapes = plan.program.shapes
        others = (
            facts.node.proto
            for facts in self.structure.facts
            if facts.node.index not in self.structure.layers
        )
        beside = sum(multiply_adds(node, shapes) + attention_work(node, shapes) for node in others)
        return super().total(plan) + beside

    def per_pair(self, layer: Layer) -> int:
        tensor, axis = layer.stepping
        places = positions(self.structure.graph, tensor, () if axis is None else (axis,))
        return layer.window * places


class _Weights(_Amounts):
    """The weights of the model, all its initializers."""

    def __init__(self, structure: Structure, prices: Prices) -> None:
        super().__init__(structure, prices)
        self._count = WeightCount(structure)

    def total(self, plan: Plan) -> float:
        """Those of the emitted model, as its report counts them."""
        return float(self._count.left(plan))

    def per_pair(self, layer: Layer) -> int:
        return layer.window


GAUGES: dict[str, type[Gauge]] = {
    "latency": Gauge,
    "macs": _MultiplyAdds,
    "params": _Weights,
}
"""What a goal can be a share of."""


def gauge_of(name: str, structure: Structure, prices: Prices) -> Gauge:
    """The gauge of a name.

    Raises:
        UsageError: There is none.
    """
    check_known("goal", name, GAUGES)
    return GAUGES[name](structure, prices)
