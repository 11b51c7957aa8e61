"""A read-only view of an ONNX graph: nodes, shapes, constants, and who reads what."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from onnx_upscale.declared import Shape
from onnx_upscale.optimizer.load.arithmetic import sizes_of
from onnx_upscale.optimizer.load.packed import PRODUCT_OF_BITS, unpacked
from onnx_upscale.optimizer.load.subgraphs import names_read, subgraphs
from onnx_upscale.optimizer.load.tensors import Sizes, Tensors
from onnx_upscale.optimizer.load.values import Array, Constants

Use: TypeAlias = "tuple[int, int]"
"""A node's index and the slot of one of its inputs."""

IntArray: TypeAlias = "npt.NDArray[np.int64]"


@dataclass(frozen=True)
class Node:
    """One node of the graph, with its attributes decoded."""

    index: int
    proto: onnx.NodeProto
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    @property
    def operator(self) -> tuple[str, str]:
        """Its domain and type."""
        return self.domain, self.op

    @property
    def title(self) -> str:
        """How messages call this node: its name, or else its first output."""
        return self.proto.name or next((name for name in self.outputs if name), f"#{self.index}")

    def input(self, slot: int) -> str:
        """The tensor at an input slot, or an empty name where an optional input is left out."""
        return self.inputs[slot] if slot < len(self.inputs) else ""


@dataclass(frozen=True)
class Override:
    """A masked constant as one node sees it.

    Attributes:
        original: The constant without masks.
        zeroed: Its masked slices, as (axis, indices).
        stays: What else is masked, where slices cannot tell: flags that broadcast with it, or None.
        blank: What stands for zero, in a shape that broadcasts with it.
    """

    original: Array
    zeroed: tuple[tuple[int, IntArray], ...] = ()
    stays: npt.NDArray[np.bool_] | None = None
    blank: Array | int = 0

    @cached_property
    def values(self) -> Array:
        """The constant with zeros where it is masked."""
        values = self.original.copy()
        blank = np.broadcast_to(self.blank, values.shape)
        for axis, indices in self.zeroed:
            where = (slice(None),) * axis + (indices,)
            values[where] = blank[where]
        if self.stays is not None:
            gone = ~np.broadcast_to(self.stays, values.shape)
            values[gone] = blank[gone]
        return values

    def taken(self, takes: Mapping[int, IntArray]) -> Array:
        """What is left of `values`; what leaves is neither copied nor masked first.

        Args:
            takes: Positions to keep, by axis.
        """
        if self.stays is not None or np.ndim(self.blank):
            return taken(self.values, takes)
        zeroed = [
            (axis, np.flatnonzero(np.isin(takes[axis], indices)) if axis in takes else indices)
            for axis, indices in self.zeroed
        ]
        cut = replace(self, original=taken(self.original, takes), zeroed=tuple(zeroed))
        return cut.values if any(len(indices) for _, indices in zeroed) else cut.original


def taken(values: Array, takes: Mapping[int, IntArray]) -> Array:
    """Some places of an array, by axis."""
    for axis in sorted(takes):  # What is outermost moves in the longest pieces.
        values = values.take(takes[axis], axis)
    return values


@dataclass(frozen=True)
class Graph:
    """The main graph of a model, as it is or seen through masks.

    Attributes:
        model: The model as it was read; never changed.
        nodes: Its nodes in topological order.
        tensors: The shapes and types of its tensors.
        constants: Tensors with a value known before run time.
        overrides: Masked constants, by the node and slot that read them.
        layers: What `layer_of` found out, by the index of the node.
    """

    model: onnx.ModelProto
    nodes: tuple[Node, ...]
    tensors: Tensors
    constants: Constants
    overrides: Mapping[Use, Override] = field(default_factory=dict)
    layers: dict[int, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """The shape of each tensor where that is known; sizes that only a run shows are texts."""
        return self.tensors.shapes

    @property
    def counted(self) -> Mapping[str, tuple[int, ...]]:
        """The same with a number for every size, where work is counted (`Tensors.counted`)."""
        return self.tensors.counted

    @property
    def types(self) -> Mapping[str, int]:
        """The element type of each tensor (`TensorProto.DataType`) where that is known."""
        return self.tensors.types

    @cached_property
    def opset(self) -> int:
        """Version of the ONNX operator set."""
        return next((o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")), 1)

    @cached_property
    def readers(self) -> Mapping[str, tuple[Use, ...]]:
        """The uses of each tensor as a node input in the main graph."""
        found: dict[str, list[Use]] = {}
        for node in self.nodes:
            for slot, name in enumerate(node.inputs):
                if name:
                    found.setdefault(name, []).append((node.index, slot))
        return {name: tuple(uses) for name, uses in found.items()}

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """The node that makes each tensor."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    @cached_property
    def named(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes of each name; more than one where names are not unique."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            if node.proto.name:
                found.setdefault(node.proto.name, []).append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    @cached_property
    def overridable(self) -> frozenset[str]:
        """Initializers that are graph inputs too, and so, from IR version 4 on, only defaults."""
        return _overridable(self.model)

    @cached_property
    def outputs(self) -> frozenset[str]:
        """Names of the graph's outputs."""
        return frozenset(value.name for value in self.model.graph.output)

    @cached_property
    def captured(self) -> Mapping[str, int]:
        """Tensors that subgraphs (If, Loop, Scan) read, by the node they belong to.

        A few more than they read from outside, which is safe.
        """
        found: dict[str, int] = {}
        for node in self.nodes:
            for subgraph in subgraphs(node.proto):
                found.update(dict.fromkeys(names_read(subgraph), node.index))
        return found

    def only_use(self, tensor: str) -> Use | None:
        """The one place where a tensor is read; None if there are others, or none."""
        uses = self.readers.get(tensor, ())
        seen = tensor in self.outputs or tensor in self.captured
        return uses[0] if len(uses) == 1 and not seen else None

    def only_reader(self, tensor: str) -> Node | None:
        """The node that alone reads a tensor, in one place."""
        use = self.only_use(tensor)
        return None if use is None else self.nodes[use[0]]

    def masked(self, overrides: Mapping[Use, Override]) -> Graph:
        """The same graph seen through masks; all that is known of its wiring stays known."""
        seen = copy.copy(self)
        object.__setattr__(seen, "overrides", overrides)
        object.__setattr__(seen, "layers", {})
        return seen

    def value(self, node: Node, slot: int) -> Array | None:
        """The constant at an input slot as this node sees it, masks included, or None.

        One that is packed is seen as the numbers in it.
        """
        override = self.overrides.get((node.index, slot))
        return self.original(node, slot) if override is None else override.values

    def original(self, node: Node, slot: int) -> Array | None:
        """What `value` gives, without masks."""
        override = self.overrides.get((node.index, slot))
        if override is not None:
            return override.original
        stored = self.constants.get(node.input(slot))
        if stored is None or node.operator != PRODUCT_OF_BITS:
            return stored
        return unpacked(node.attributes, slot, stored)

    def is_constant(self, node: Node, slot: int) -> bool:
        """Whether there is a constant at an input slot."""
        return (node.index, slot) in self.overrides or node.input(slot) in self.constants

    def known(self, node: Node, slot: int) -> Array | None:
        """What `value` gives, or else what follows from shapes: no weight, but bounds and axes."""
        value = self._known(node, slot)
        return None if value is None or value.dtype == object else value

    def entries(self, node: Node, slot: int) -> list[int | None] | None:
        """The whole numbers at an input slot; None for one that only a run shows."""
        value = self._known(node, slot)
        if value is None or value.dtype.kind not in "Oiu":
            return None
        return [size if isinstance(size, int) else None for size in sizes_of(value)]

    def _known(self, node: Node, slot: int) -> Array | None:
        value = self.value(node, slot)
        return self.tensors.values.get(node.input(slot)) if value is None else value


def _overridable(model: onnx.ModelProto) -> frozenset[str]:
    if model.ir_version < 4:
        return frozenset()
    inputs = {value.name for value in model.graph.input}
    return frozenset(tensor.name for tensor in model.graph.initializer if tensor.name in inputs)


def build_graph(model: onnx.ModelProto, sizes: Sizes | None = None, runs: bool = True) -> Graph:
    """Makes the view of a model.

    Args:
        model: The model, its nodes in topological order; it must not be changed afterwards.
        sizes: Shapes of some inputs, at which the model runs if its shapes show no other way.
        runs: Whether it may run for that at all.

    Returns:
        The graph, without masks.
    """
    nodes = tuple(
        Node(
            index=index,
            proto=proto,
            op=proto.op_type,
            domain="" if proto.domain == "ai.onnx" else proto.domain,
            inputs=tuple(proto.input),
            outputs=tuple(proto.output),
            attributes={
                attribute.name: helper.get_attribute_value(attribute)
                for attribute in proto.attribute
                if not attribute.ref_attr_name and not attribute.HasField("g")
            },
        )
        for index, proto in enumerate(model.graph.node)
    )
    overridable = _overridable(model)
    initializers = {t.name: t for t in model.graph.initializer if t.name not in overridable}
    producers = {name: node.proto for node in nodes for name in node.outputs if name}
    constants = Constants(initializers, producers, list(model.opset_import))
    return Graph(model, nodes, Tensors(model, sizes, runs), constants)
