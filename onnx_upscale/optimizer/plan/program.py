"""The emitted model of a plan as a program, without emitting it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx_upscale.optimizer.analyze import Analysis, Structure
from onnx_upscale.optimizer.analyze.facts import Facts
from onnx_upscale.optimizer.analyze.steps import step_of
from onnx_upscale.optimizer.load.graph import Node
from onnx_upscale.optimizer.load.layers import Layer
from onnx_upscale.optimizer.plan.edits import (
    Convolve,
    Edit,
    PoolFirst,
    Select,
    SelectParts,
    Unblock,
    Widen,
)
from onnx_upscale.optimizer.plan.layout import Layout
from onnx_upscale.optimizer.plan.writings import Writing
from onnx_upscale.prices import Program, Step


class _Program:
    """Steps so far, and the shapes of what they make."""

    def __init__(self, structure: Structure, layout: Layout) -> None:
        self.steps: list[Step] = []
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._sizes, self._layers, self._layout = structure.graph.counted, structure.layers, layout
        self._copies: dict[tuple[str, int, bytes], str] = {}
        self._done: set[int] = set()  # Nodes that were taken before their turn.
        self._counts = layout.counts(structure)
        # What is not in it is constant, or has no channel left: nobody reads it.
        self._there: set[str] = set()
        self._empty = {name for name, own in self._counts.items() if 0 in own.values()}

    def is_empty(self, facts: Facts) -> bool:
        """Whether nothing that a node makes has a channel left."""
        if not self._empty or not facts.outputs:
            return False
        names = enumerate(facts.node.outputs)
        return all(name in self._empty for i, name in names if name and i not in facts.unread)

    def known(self, name: str) -> None:
        """Takes down the shape of a tensor in its layout."""
        counts, shape = self._counts.get(name), self._sizes.get(name, ())
        if counts:
            # A rule may know the axes of a tensor whose shape nobody inferred.
            sizes = [*shape, *[1] * (max(counts) + 1 - len(shape))]
            for axis, count in counts.items():
                sizes[axis] = count
            shape = tuple(sizes)
        self._take(name, shape)

    def _take(self, name: str, shape: tuple[int, ...]) -> None:
        self.shapes[name] = shape
        if 0 not in shape:
            self._there.add(name)

    def add(self, facts: Facts, step: Step, writing: Writing | None, edits: Sequence[Edit]) -> None:
        """Takes one more node, with the copies before and behind it."""
        node, layer = facts.node, self._layers.get(facts.node.index)
        if node.index in self._done:
            return
        outputs, inputs = step.outputs, step.inputs
        if not self._there.issuperset(inputs):
            inputs = tuple(name for name in inputs if name in self._there)
        for name in outputs:
            self.known(name)
        for edit in edits:
            if isinstance(edit, Select):
                source = node.inputs[edit.slot]
                copy = self._copy(source, edit.parts[0] if isinstance(edit, SelectParts) else edit)
                inputs = tuple(copy if name == source else name for name in inputs)
        # Else it is constant.
        runs = layer is not None and node.inputs[layer.data_slot] in step.inputs
        if layer is not None and layer.is_inside and writing is not None and runs:
            inputs = self._inside(layer, inputs, outputs[0], len(writing.positions))
        narrow = outputs
        if writing is not None and any(isinstance(edit, Widen) for edit in edits):
            assert layer is not None
            narrow = self._narrowed(outputs[0], layer, len(writing.positions))
        if inputs is not step.inputs or narrow is not outputs:
            step = step._replace(inputs=inputs, outputs=narrow)
        if facts.group_labels is not None:
            step = step._replace(groups=len(self._layout.positions(facts.group_labels)))
        for edit in edits:
            if isinstance(edit, Unblock):
                step = step._replace(axis=step.axis - edit.rank)
            elif isinstance(edit, Convolve):
                channels = self.shapes[outputs[0]][1]
                step = step._replace(op="Conv", weighted=True, groups=channels)
            elif isinstance(edit, PoolFirst):
                step = self._pooled(step, edit.pool)
            elif isinstance(edit, SelectParts):
                step = self._in_parts(step, self._copy(node.inputs[edit.slot], edit.parts[1]))
        self.steps.append(step)
        if narrow is not outputs:
            assert layer is not None
            self.steps.append(Step("Pad", narrow, outputs, axis=layer.output_axis or 0))

    def _in_parts(self, step: Step, second: str) -> Step:
        """Takes a layer that reads one copy, and it once more for another; gives their sum."""
        (result,) = step.outputs
        for name, inputs in ((f"{result}.first", step.inputs), (f"{result}.second", (second,))):
            self._take(name, self.shapes[result])
            self.steps.append(step._replace(inputs=inputs, outputs=(name,)))
        return Step("Add", (f"{result}.first", f"{result}.second"), step.outputs)

    def _pooled(self, step: Step, pool: Node) -> Step:
        """Takes an average before a convolution that it comes behind."""
        (source,), result = step.inputs, pool.outputs[0]
        self.known(result)
        self._done.add(pool.index)
        batch, _, *places = self.shapes[result]
        name = f"{source}.pooled"
        self._take(name, (batch, self.shapes[source][1], *places))
        self.steps.append(step_of(pool, None, (source,))._replace(outputs=(name,)))
        return step._replace(inputs=(name,), outputs=(result,))

    def _inside(
        self, layer: Layer, inputs: tuple[str, ...], result: str, columns: int
    ) -> tuple[str, ...]:
        """Takes what a node makes inside as a product; gives what the node goes on with."""
        source, *others = inputs
        name, axis = f"{result}.inside", layer.data_axis
        shape = list(self.shapes[source])
        shape[axis] = columns
        self._take(name, tuple(shape))
        step = Step("MatMul", (source,), (name,), axis=axis, made_axis=axis, weighted=True)
        self.steps.append(step)
        return (name, *others)

    def _copy(self, source: str, select: Select) -> str:
        axis = select.axis
        key = (source, axis, select.chosen.tobytes())
        if key not in self._copies:
            name = f"{source}.copy{len(self._copies)}"
            shape = list(self.shapes[source])
            shape[axis] = len(select.chosen)
            self._take(name, tuple(shape))
            self._copies[key] = name
            op = "Slice" if select.contiguous else "Gather"
            self.steps.append(Step(op, (source,), (name,), axis=axis))
        return self._copies[key]

    def _narrowed(self, output: str, layer: Layer, channels: int) -> tuple[str, ...]:
        shape = list(self.shapes[output])
        shape[layer.output_axis or 0] = channels
        self._take(f"{output}.narrow", tuple(shape))
        return (f"{output}.narrow",)


def program(
    analysis: Analysis,
    layout: Layout,
    writers: Mapping[int, Writing],
    edits: Mapping[int, Sequence[Edit]],
) -> Program:
    """What a plan's emitted model does, node by node.

    Args:
        analysis: What the plan rests on.
        layout: Its layout.
        writers: Its writers, by node index.
        edits: What changes on edges, by node index.

    Returns:
        The nodes, copies included.
    """
    structure = analysis.structure
    graph = structure.graph  # Shapes are all that matters here, and masks cost copies of weights.
    made = _Program(structure, layout)
    for value in graph.model.graph.input:
        made.known(value.name)
    for facts, step in structure.running:
        index = facts.node.index
        if not made.is_empty(facts):
            made.add(facts, step, writers.get(index), edits.get(index, ()))
    return Program(tuple(made.steps), made.shapes)
