"""Sites: layers that can get or give their channels in several ways, and what lies around them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from onnx_upscale.optimizer.load.graph import Graph
from onnx_upscale.optimizer.load.subgraphs import reads
from onnx_upscale.optimizer.plan import Plan, Preferred, Reading, Way, Writing
from onnx_upscale.optimizer.plan.cost import Costs
from onnx_upscale.optimizer.plan.realize import ways_to_read, ways_to_write

_MOST_TENSORS = 48
"""What a cutting begins with is at most about so many tensors away from the layer."""

_Ways: TypeAlias = "list[Reading] | list[Writing]"


@dataclass(frozen=True)
class Site:
    """A layer that has a choice.

    Attributes:
        index: The index of its node.
        reads: Whether it is the reader that has a choice, or else the writer.
        ways: What there is to choose from, what was planned first.
        seconds: What the layer takes as planned, by the prices.
        ends: The tensor at which its cutting ends, as the original model calls it.
        begins: The tensors with which its cutting begins.
    """

    index: int
    reads: bool
    ways: tuple[Way, ...]
    seconds: float
    ends: str
    begins: frozenset[str]

    def preferring(self, way: Way) -> Preferred:
        """The preference of one way here."""
        return Preferred({self.index: way}, {}) if self.reads else Preferred({}, {self.index: way})


def find_sites(plan: Plan, costs: Costs) -> list[Site]:
    """The sites of a model.

    A cutting has the layer and what stands between it and the layers that make what it reads: there
    the layout of tensors is decided, and what copies cost.

    Args:
        plan: The plan that `auto` made.
        costs: The prices that it went by.

    Returns:
        All of them, what takes longest first.
    """
    graph = plan.analysis.structure.graph
    borders = {
        _behind(graph, name)
        for index, writing in plan.writers.items()
        if writing.write.layer is not None and writing.write.layer.groups == 1
        for name in graph.nodes[index].outputs
    }
    found: list[Site] = []
    for index, reader, planned, ways, seconds in (*_readers(plan, costs), *_writers(plan, costs)):
        distinct = tuple(dict.fromkeys((planned.way, *(each.way for each in ways))))
        if len(distinct) > 1:
            ends = _behind(graph, graph.nodes[index].outputs[0])
            begins = _beginnings(graph, index, borders)
            found.append(Site(index, reader, distinct, seconds, ends, begins))
    return sorted(found, key=lambda each: -each.seconds)


_Choice: TypeAlias = "tuple[int, bool, Reading | Writing, _Ways, float]"


def _readers(plan: Plan, costs: Costs) -> Iterator[_Choice]:
    for index, reading in plan.readers.items():
        if reading.needs.any() and not reading.needs.all():
            made = plan.writers.get(index)
            outputs = reading.read.layer.outputs if made is None else len(made.positions)
            ways = ways_to_read(reading.read, reading.here, reading.needs, costs)
            yield index, True, reading, ways, reading.seconds(costs, outputs)


def _writers(plan: Plan, costs: Costs) -> Iterator[_Choice]:
    for index, writing in plan.writers.items():
        write, layer = writing.write, writing.write.layer
        here = plan.layout.positions(write.outputs)
        zero = plan.analysis.values[write.outputs[here]] == 0
        if layer is not None and len(here) and zero.any():
            read = plan.readers.get(index)
            inputs = layer.inputs if read is None else len(read.chosen)
            ways = ways_to_write(write, here, zero, costs)
            yield index, False, writing, ways, writing.seconds(costs, inputs)


def _behind(graph: Graph, tensor: str) -> str:
    """A tensor, or what it is quantized to: onnxruntime runs that and the layer as one."""
    reader = graph.only_reader(tensor)
    quantized = reader is not None and reader.operator == ("", "QuantizeLinear")
    return reader.outputs[0] if quantized and reader is not None else tensor


def _beginnings(graph: Graph, index: int, borders: Iterable[str]) -> frozenset[str]:
    """The tensors before a node that other layers make, or that are too far from it."""
    known = frozenset(borders)
    ahead = deque(reads(graph.nodes[index].proto))
    seen, found = set(ahead), set[str]()
    while ahead:
        tensor = ahead.popleft()
        maker = graph.producers.get(tensor)
        if maker is None or tensor in graph.constants:
            continue
        if tensor in known or len(seen) > _MOST_TENSORS:
            found.add(tensor)
            continue
        new = [name for name in reads(maker.proto) if name not in seen]
        seen.update(new)
        ahead += new
    return frozenset(found)
