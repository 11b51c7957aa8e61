"""The emitted model of a plan as a program, without emitting it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from onnx_upscale.optimizer.analyze import Analysis, Structure
from onnx_upscale.optimizer.analyze.facts import Facts
from onnx_upscale.optimizer.load.fused import runs_as
from onnx_upscale.optimizer.load.graph import Node
from onnx_upscale.optimizer.load.layers import Layer
from onnx_upscale.optimizer.plan.edits import (
    Convolve,
    Edit,
    PoolFirst,
    Select,
    Unblock,
    Widen,
)
from onnx_upscale.optimizer.plan.layout import Layout
from onnx_upscale.optimizer.plan.realizations import Writing
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
        self.shapes[name] = shape

    def add(
        self, facts: Facts, reads: Sequence[str], writing: Writing | None, edits: Sequence[Edit]
    ) -> None:
        """Takes one more node, with the copies before and behind it."""
        node, layer = facts.node, self._layers.get(facts.node.index)
        if node.index in self._done:
            return
        # What has no shape is constant, or has no channel left: nobody reads it.
        inputs = [name for name in reads if math.prod(self.shapes.get(name, (0,)))]
        outputs = tuple(name for name in node.outputs if name)
        for name in outputs:
            self.known(name)
        for edit in edits:
            if isinstance(edit, Select):
                source = node.inputs[edit.slot]
                copy = self._copy(source, edit)
                inputs = [copy if name == source else name for name in inputs]
        runs = layer is not None and node.inputs[layer.data_slot] in reads  # Else it is constant.
        if layer is not None and layer.is_inside and writing is not None and runs:
            inputs = self._inside(layer, inputs, outputs[0], len(writing.positions))
        narrow = outputs
        if writing is not None and any(isinstance(edit, Widen) for edit in edits):
            assert layer is not None
            narrow = self._narrowed(outputs[0], layer, len(writing.positions))
        groups = 1 if layer is None else layer.groups
        if facts.group_labels is not None:
            groups = len(self._layout.positions(facts.group_labels))
        step = _step(node, layer, tuple(inputs), narrow, groups)
        for edit in edits:
            if isinstance(edit, Unblock):
                step = step._replace(axis=step.axis - edit.rank)
            elif isinstance(edit, Convolve):
                channels = self.shapes[outputs[0]][1]
                step = step._replace(op="Conv", weighted=True, groups=channels)
            elif isinstance(edit, PoolFirst):
                step = self._pooled(step, edit.pool)
        self.steps.append(step)
        if narrow != outputs:
            assert layer is not None
            self.steps.append(Step("Pad", narrow, outputs, axis=layer.output_axis or 0))

    def _pooled(self, step: Step, pool: Node) -> Step:
        """Takes an average before a convolution that it comes behind."""
        (source,), result = step.inputs, pool.outputs[0]
        self.known(result)
        self._done.add(pool.index)
        batch, _, *places = self.shapes[result]
        name = f"{source}.pooled"
        self.shapes[name] = (batch, self.shapes[source][1], *places)
        self.steps.append(_step(pool, None, (source,), (name,), 1))
        return step._replace(inputs=(name,), outputs=(result,))

    def _inside(self, layer: Layer, inputs: Sequence[str], result: str, columns: int) -> list[str]:
        """Takes what a node makes inside as a product; gives what the node goes on with."""
        source, *others = inputs
        name, axis = f"{result}.inside", layer.data_axis
        shape = list(self.shapes[source])
        shape[axis] = columns
        self.shapes[name] = tuple(shape)
        step = Step("MatMul", (source,), (name,), axis=axis, made_axis=axis, weighted=True)
        self.steps.append(step)
        return [name, *others]

    def _copy(self, source: str, select: Select) -> str:
        axis = select.axis
        key = (source, axis, select.chosen.tobytes())
        if key not in self._copies:
            name = f"{source}.copy{len(self._copies)}"
            shape = list(self.shapes[source])
            shape[axis] = len(select.chosen)
            self.shapes[name], self._copies[key] = tuple(shape), name
            op = "Slice" if select.contiguous else "Gather"
            self.steps.append(Step(op, (source,), (name,), axis=axis))
        return self._copies[key]

    def _narrowed(self, output: str, layer: Layer, channels: int) -> tuple[str, ...]:
        shape = list(self.shapes[output])
        shape[layer.output_axis or 0] = channels
        self.shapes[f"{output}.narrow"] = tuple(shape)
        return (f"{output}.narrow",)


def _step(
    node: Node,
    layer: Layer | None,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    groups: int,
) -> Step:
    stride = math.prod(node.attributes.get("strides", ()))
    if layer is None:
        window = math.prod(node.attributes.get("kernel_shape", ()))
        axis = int(node.attributes.get("axis", 1))
        return Step(runs_as(node), inputs, outputs, axis=axis, window=window, stride=stride)
    return Step(
        "MatMul" if node.op == "Einsum" else runs_as(node),
        inputs,
        outputs,
        axis=layer.data_axis,
        made_axis=layer.output_axis or 0,
        weighted=True,
        window=layer.window,
        stride=stride,
        groups=groups,
        in_bytes=layer.in_bytes,
    )


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
    for facts, reads in structure.running:
        index = facts.node.index
        if not made.is_empty(facts):
            made.add(facts, reads, writers.get(index), edits.get(index, ()))
    return Program(tuple(made.steps), made.shapes)
