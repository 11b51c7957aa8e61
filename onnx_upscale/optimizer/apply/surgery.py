"""The graph under the knife: graphsurgeon's view of it, with new nodes kept apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import numpy_helper
from onnx_graphsurgeon.ir.tensor import LazyValues

from onnx_upscale.optimizer.load.graph import Graph
from onnx_upscale.optimizer.load.subgraphs import all_names, names_captured
from onnx_upscale.optimizer.load.values import Array


def fresh_name(stem: str, taken: set[str]) -> str:
    """A name that is not taken; now it is."""
    name, number = stem, 0
    while name in taken or not name:
        number += 1
        name = f"{stem}.{number}"
    taken.add(name)
    return name


class Surgery:
    """Nodes and tensors of a model, ready to be changed.

    graphsurgeon sees the wiring alone: names, inputs and outputs. Attributes and weights that
    nobody touches stay where they are, in the model, so that nothing can be lost on the way.

    Args:
        graph: The graph.
        taken: Names that something in the model has, where the graph is not all of it; those of new
            nodes and tensors are added.

    Attributes:
        nodes: Per original node, its editable counterpart; its `attrs` hold only what is changed.
        before: Per original node, the new nodes to run before it.
        after: Per original node, the new nodes to run after it.
        removed: Indices of original nodes to leave out.
        bodies: Per original node, by attribute, the new graphs in place of its own.
        constants: New initializers, for those of these graphs that read them.
    """

    def __init__(self, graph: Graph, taken: set[str] | None = None) -> None:
        self.graph = graph
        wiring = onnx.ModelProto(ir_version=8, opset_import=graph.model.opset_import)
        wiring.graph.name = "wiring"
        wiring.graph.node.extend(
            onnx.NodeProto(
                op_type=node.proto.op_type,
                domain=node.proto.domain,
                name=str(node.index),
                input=node.inputs,
                output=node.outputs,
            )
            for node in graph.nodes
        )
        self.nodes: list[gs.Node] = list(gs.import_onnx(wiring).nodes)
        self.before: dict[int, list[gs.Node]] = {}
        self.after: dict[int, list[gs.Node]] = {}
        self.removed: set[int] = set()
        self.bodies: dict[int, dict[str, onnx.GraphProto]] = {}
        self.constants: list[onnx.TensorProto] = []
        self._taken = all_names(graph.model.graph) if taken is None else taken
        self._shared: dict[tuple[str, bytes], gs.Constant] = {}

    def fresh_name(self, stem: str) -> str:
        """A name that nothing in the model has."""
        return fresh_name(stem, self._taken)

    def constant(self, name: str, values: Array) -> gs.Constant:
        """A new constant under a name that must be free to use."""
        # numpy_helper packs the types that numpy lacks; graphsurgeon would not. A scalar stays one.
        laid = np.asarray(values, order="C")
        return gs.Constant(name, LazyValues(numpy_helper.from_array(laid, name)))

    def integers(self, stem: str, values: Sequence[int] | Array) -> gs.Constant:
        """A new constant of int64, shared with any of the same value."""
        array = np.asarray(values, np.int64)
        key = (str(array.shape), array.tobytes())
        if key not in self._shared:
            self._shared[key] = self.constant(self.fresh_name(stem), array)
        return self._shared[key]

    def variable(self, stem: str) -> gs.Variable:
        """A new tensor."""
        return gs.Variable(self.fresh_name(stem))

    def node(
        self, op: str, stem: str, inputs: list[Any], outputs: list[Any], **attributes: Any
    ) -> gs.Node:
        """A new node of the ONNX operator set."""
        return gs.Node(op, self.fresh_name(stem), attributes, inputs, outputs)

    def insert_after(
        self, index: int, op: str, stem: str, inputs: Sequence[Any], **attributes: Any
    ) -> None:
        """Puts a new node behind what a node makes, and behind all that was put there before.

        Args:
            index: The original node; its first output is meant.
            op: Operator of the new node.
            stem: Start of its name.
            inputs: Its inputs after the first.
            attributes: Its attributes.
        """
        behind = self.after.setdefault(index, [])
        last = behind[-1] if behind else self.nodes[index]
        result = last.outputs[0]
        raw = self.variable(f"{result.name}.{op.lower()}_input")
        last.outputs[0] = raw
        behind.append(self.node(op, stem, [raw, *inputs], [result], **attributes))

    def replace_tensor(self, index: int, slot: int, tensor: Any) -> None:
        """Makes a node read another tensor, adding input slots where there are too few."""
        node = self.nodes[index]
        while len(node.inputs) <= slot:
            node.inputs.append(gs.Variable.empty())
        node.inputs[slot] = tensor

    def captured(self, index: int) -> set[str]:
        """What the graphs of a node will read from outside."""
        found, made = set[str](), self.bodies.get(index, {})
        for attribute in self.graph.nodes[index].proto.attribute:
            own = [made.get(attribute.name, attribute.g)] if attribute.HasField("g") else []
            found = found.union(*map(names_captured, (*own, *attribute.graphs)))
        return found

    def in_order(self) -> list[tuple[int | None, gs.Node]]:
        """All nodes that remain, in an order that runs, with their original indices (or None)."""
        ordered: list[tuple[int | None, gs.Node]] = []
        for index, node in enumerate(self.nodes):
            ordered += [(None, new) for new in self.before.get(index, ())]
            if index not in self.removed:
                ordered.append((index, node))
            ordered += [(None, new) for new in self.after.get(index, ())]
        return ordered
