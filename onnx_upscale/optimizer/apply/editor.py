"""One node of the emitted model, in the hands of its rewrite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper

from onnx_upscale.optimizer.analyze.rewrites import Step, Taken, Template, Transposed
from onnx_upscale.optimizer.apply.copies import select_node
from onnx_upscale.optimizer.apply.surgery import Surgery
from onnx_upscale.optimizer.load.graph import IntArray, Node


class NodeEditor:
    """What `analyze.rewrites.Editor` promises, on graphsurgeon's view of the graph.

    Attributes:
        node: The node as it was.
    """

    def __init__(self, surgery: Surgery, node: Node) -> None:
        self.node = node
        self._surgery, self._edited = surgery, surgery.nodes[node.index]

    @property
    def opset(self) -> int:
        """Version of the ONNX operator set."""
        return self._surgery.graph.opset

    @property
    def result(self) -> str:
        """The name of its first output, as it is now."""
        return str(self._edited.outputs[0].name)

    def attribute(self, name: str) -> Any:
        """An attribute as it is now, or None."""
        return self._edited.attrs.get(name, self.node.attributes.get(name))

    def set_attribute(self, name: str, value: Any) -> None:
        """Gives an attribute another value; None takes it away."""
        self._edited.attrs[name] = value

    def integers(self, slot: int) -> list[int]:
        """The constant integers at an input slot as they are now; empty where there are none."""
        inputs = self._edited.inputs
        if slot < len(inputs) and isinstance(getattr(inputs[slot], "values", None), np.ndarray):
            return [int(value) for value in inputs[slot].values]
        value = self._surgery.graph.known(self.node, slot)
        return [] if value is None else [int(entry) for entry in value.ravel()]

    def set_integers(self, slot: int, name: str, values: Sequence[int] | IntArray) -> None:
        """Puts constant integers at an input slot; the name is a proposal."""
        constant = self._surgery.integers(name, values)
        self._surgery.replace_tensor(self.node.index, slot, constant)

    def replace_sizes(self, slot: int, name: str, sizes: Template, scalar: bool = False) -> None:
        """Puts other sizes in place of some at an input slot; None leaves one as it is."""
        surgery, index = self._surgery, self.node.index
        kind = surgery.graph.types.get(self.node.inputs[slot]) or TensorProto.INT64
        shape = () if scalar else (len(sizes),)
        chosen = np.array([size is not None for size in sizes]).reshape(shape)
        numbers = np.array([size or 0 for size in sizes]).reshape(shape)
        numbers = numbers.astype(helper.tensor_dtype_to_np_dtype(kind))
        result = surgery.constant(surgery.fresh_name(name), numbers)
        if not chosen.all():
            flags = surgery.constant(surgery.fresh_name(f"{name}.fixed"), chosen)
            inputs = [flags, result, self._edited.inputs[slot]]
            result = surgery.variable(name)
            where = surgery.node("Where", f"{name}_node", inputs, [result])
            surgery.before.setdefault(index, []).append(where)
        surgery.replace_tensor(index, slot, result)

    def take_inputs(self, slots: Sequence[int]) -> None:
        """Leaves only some inputs, in another order."""
        self._edited.inputs = [self._edited.inputs[slot] for slot in slots]

    def take_outputs(self, outputs: Sequence[int]) -> None:
        """Leaves only some outputs, in another order."""
        self._edited.outputs = [self._edited.outputs[output] for output in outputs]

    def bypass(self) -> None:
        """Takes the node away where its readers may read its first input in place of its result."""
        graph, source, result = self._surgery.graph, self._edited.inputs[0], self._edited.outputs[0]
        if result.name in graph.outputs or result.name in graph.captured:
            return
        if source.name not in graph.constants:
            self._surgery.removed.add(self.node.index)
            for reader in list(result.outputs):
                reader.inputs = [source if tensor is result else tensor for tensor in reader.inputs]

    def read_as(self, reader: Node, slot: int) -> None:
        """Reads first what another node reads at some slot."""
        source = self._surgery.nodes[reader.index].inputs[slot]
        self._surgery.replace_tensor(self.node.index, 0, source)

    def select_input(self, slot: int, axis: int, chosen: IntArray) -> None:
        """Takes places of an axis of an input, before the node."""
        surgery, index = self._surgery, self.node.index
        copy = select_node(surgery, self._edited.inputs[slot], axis, chosen)
        surgery.before.setdefault(index, []).append(copy)
        surgery.replace_tensor(index, slot, copy.outputs[0])

    def gather_result(self, axis: int, chosen: IntArray) -> None:
        """Takes places of an axis of its first output, behind the node."""
        name = self.node.outputs[0]
        indices = self._surgery.integers(f"{name}.indices", chosen)
        self._surgery.insert_after(
            self.node.index, "Gather", f"{name}.gather_node", [indices], axis=axis
        )

    def replace_by(self, reader: Node, steps: Sequence[Step]) -> None:
        """Replaces the node by others in a row; the first reads what `reader` reads first."""
        surgery, index = self._surgery, self.node.index
        surgery.removed.add(index)
        source, result = surgery.nodes[reader.index].inputs[0], self._edited.outputs[0]
        self._edited.outputs.clear()
        for step in steps:
            target = result if step is steps[-1] else surgery.variable(f"{result.name}.part")
            surgery.after.setdefault(index, []).append(_made(surgery, step, source, target))
            source = target

    def replace_by_copies(self, axis: int, chosen: Mapping[int, IntArray]) -> None:
        """Replaces the node by copies of its first input: for each output, places of an axis."""
        surgery, index = self._surgery, self.node.index
        surgery.removed.add(index)
        source, targets = self._edited.inputs[0], list(self._edited.outputs)
        self._edited.outputs.clear()
        for output, places in chosen.items():
            copy = select_node(surgery, source, axis, places, targets[output])
            surgery.after.setdefault(index, []).append(copy)


def _made(surgery: Surgery, step: Step, source: Any, target: Any) -> gs.Node:
    if isinstance(step, Taken):
        return select_node(surgery, source, step.axis, step.places, target)
    stem = f"{target.name}.{'transpose' if isinstance(step, Transposed) else 'reshape'}_node"
    if isinstance(step, Transposed):
        return surgery.node("Transpose", stem, [source], [target], perm=list(step.order))
    sizes = surgery.integers(f"{target.name}.sizes", step.sizes)
    return surgery.node("Reshape", stem, [source, sizes], [target])
