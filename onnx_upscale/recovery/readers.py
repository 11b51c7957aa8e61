"""Which readers are repaired: those that lose channels, and all that lies behind them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from onnx_upscale.optimizer.analyze import Analysis
from onnx_upscale.optimizer.analyze.weights import BoolArray
from onnx_upscale.optimizer.load.affine import addends
from onnx_upscale.optimizer.load.attention import MAKES_OPERANDS
from onnx_upscale.optimizer.load.graph import Graph, Use
from onnx_upscale.optimizer.load.layers import Layer
from onnx_upscale.optimizer.load.subgraphs import reads
from onnx_upscale.words import some

# The sums of a reader of so many columns take 2 GiB.
MOST_COLUMNS = 1 << 14
_OPERATORS = frozenset(
    {("", "Conv"), ("", "ConvTranspose"), ("", "Gemm"), ("", "MatMul"), MAKES_OPERANDS}
)


@dataclass(frozen=True)
class Reader:
    """A reader to repair.

    Attributes:
        layer: How it uses its weight.
        kept: Which input channels get new weights, shape (inputs,); the others get zeros.
        rows: Which output channels get new weights, shape (outputs,); the others stay as masked.
        bias: Where the constant is read that takes the difference of the means: its own bias, which
            may not be there yet, or what an Add behind it adds. None where there is no such place.
        level: How many readers to repair lie one behind the other before it.
    """

    layer: Layer
    kept: BoolArray
    rows: BoolArray
    bias: Use | None
    level: int

    @property
    def data(self) -> str:
        """The tensor that it reads."""
        return self.layer.node.inputs[self.layer.data_slot]

    @property
    def scales_only(self) -> bool:
        """Whether it is depthwise: each output channel is scaled as a whole."""
        layer = self.layer
        return layer.groups > 1 and layer.inputs == layer.groups and not layer.transposed


@dataclass(frozen=True)
class Found:
    """The readers to repair, and those that cannot be.

    Attributes:
        readers: In topological order.
        left: Titles of the others, by reason.
        levels: Per tensor that is not as in the dense model, how many readers to repair lie one
            behind the other before it.
    """

    readers: tuple[Reader, ...]
    left: dict[str, list[str]]
    levels: dict[str, int]

    @property
    def by_level(self) -> list[list[Reader]]:
        """The readers of each level, of which none lies behind another; the first level first."""
        every = sorted({reader.level for reader in self.readers})
        return [[each for each in self.readers if each.level == level] for level in every]


def find_readers(analysis: Analysis) -> Found:
    """Finds the readers whose inputs differ from those in the dense model.

    Args:
        analysis: Of the masked model.

    Returns:
        The readers.
    """
    graph, structure = analysis.graph, analysis.structure
    masked = {index for index, _ in graph.overrides}
    levels: dict[str, int] = {}
    readers: list[Reader] = []
    left: dict[str, list[str]] = {}
    for node in graph.nodes:
        before = [levels[name] for name in reads(node.proto) if name in levels]
        level = max(before, default=0)
        changed = bool(before) or node.index in masked
        layer = structure.layers.get(node.index)
        if layer is not None and changed:
            reader = _reader(analysis, layer, level)
            reading = layer.node.inputs[layer.data_slot]
            if reader.rows.any() and (reading in levels or _loses(analysis, layer)):
                reason = _why_not(graph, reader)
                if reason is None:
                    readers.append(reader)
                    level += 1
                else:
                    left.setdefault(reason, []).append(node.title)
        if changed:
            levels.update(dict.fromkeys(filter(None, node.outputs), level))
    return Found(tuple(readers), left, levels)


def _loses(analysis: Analysis, layer: Layer) -> bool:
    """Whether masks take input channels of a layer."""
    everything = np.ones(layer.outputs, bool)
    connected = analysis.structure.weights.connected(layer).any(1).ravel()
    return bool((connected & ~analysis.weights.reaching(layer, everything)).any())


def _reader(analysis: Analysis, layer: Layer, level: int) -> Reader:
    facts = analysis.structure.facts[layer.node.index]
    read, write = facts.read, facts.write
    made = None if write is None else write.outputs
    taken = read.inputs if read is not None else None if write is None else write.inputs
    live, known = np.ones(layer.outputs, bool), np.full(layer.inputs, np.nan)
    rows = live
    if made is not None:
        live = analysis.needs.labels[made]
        # What is known of a channel must stay true, so that all that follows from it does.
        rows = live & np.isnan(analysis.values[made])
    if taken is not None:
        known = analysis.values[taken] - layer.data_zero
    bias = _bias(analysis.graph, layer)
    absorbed = known == 0
    if bias is not None and read is not None and read.absorbs:
        absorbed = ~np.isnan(known)
    kept = analysis.weights.reaching(layer, live) & ~absorbed
    return Reader(layer, kept, rows, bias, level)


def _bias(graph: Graph, layer: Layer) -> Use | None:
    node, slot = layer.node, layer.bias_slot
    if layer.transposed:  # Near borders, and between windows, it adds up to something else.
        return None
    if slot is not None and not node.input(slot):
        return node.index, slot
    if slot is not None:
        constant = graph.value(node, slot) is not None
        return (node.index, slot) if constant and layer.bias_factor else None
    first = next(addends(graph, layer), None)
    if first is not None and node.outputs[0] in graph.nodes[first.use[0]].inputs:
        return first.use if graph.nodes[first.use[0]].op == "Add" else None
    return None


def _why_not(graph: Graph, reader: Reader) -> str | None:
    layer = reader.layer
    weight = graph.value(layer.node, layer.weight_slot)
    assert weight is not None
    if layer.node.operator not in _OPERATORS:
        return "how they see their input is not known"
    if _comes_from(graph, layer.node.inputs[layer.weight_slot], "DequantizeLinear"):
        return "their weights are quantized"
    if weight.dtype not in (np.float16, np.float32, np.float64):
        return "numpy has no such floats"
    if layer.product and layer.window > 1:
        return "their weights are batches of matrices"
    if reader.data in graph.constants:
        return "what they read is constant"
    if layer.inputs // layer.groups * (layer.window if not layer.transposed else 1) > MOST_COLUMNS:
        return "their windows hold too many values"
    return None


def _comes_from(graph: Graph, tensor: str, operator: str) -> bool:
    pending: list[str] = [tensor]
    while pending:
        producer = graph.producers.get(pending.pop())
        if producer is not None:
            if producer.op == operator:
                return True
            pending += producer.inputs
    return False


def explained(left: dict[str, list[str]]) -> Iterable[str]:
    """What was left as it is, as warnings."""
    for reason, titles in left.items():
        yield f"{some(titles, 3)}: not repaired, for {reason}"
