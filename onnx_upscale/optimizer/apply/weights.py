"""Constants cut to the channels that remain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnx_upscale.optimizer.analyze.facts import Read, same_axis
from onnx_upscale.optimizer.apply.dequantized import Dequantized, along_rows
from onnx_upscale.optimizer.apply.surgery import Surgery
from onnx_upscale.optimizer.apply.tied import gate_tied
from onnx_upscale.optimizer.load.graph import IntArray, Node, Use, taken
from onnx_upscale.optimizer.load.layers import Layer
from onnx_upscale.optimizer.load.packed import MATRIX, PRODUCT_OF_BITS, SIZES, packed
from onnx_upscale.optimizer.load.scale_blocks import whole_blocks
from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.optimizer.plan import Plan, Shift


@dataclass
class Cut:
    """What becomes of one constant as one node reads it.

    Attributes:
        takes: Positions to keep, by axis.
        values: A new value to start from, or None for the masked one.
        own: Per place of the first axis, which of the second to keep; before all others.
    """

    takes: dict[int, IntArray] = field(default_factory=dict)
    values: Array | None = None
    own: IntArray | None = None

    def key(self) -> bytes:
        """Equal for cuts of the same constant that give the same result."""
        takes = [axis.to_bytes(2, "little") + p.tobytes() for axis, p in sorted(self.takes.items())]
        arrays = (b"" if each is None else each.tobytes() for each in (self.values, self.own))
        return b"|".join([*takes, *arrays])


def cut_weights(surgery: Surgery, plan: Plan, live: Iterable[int]) -> None:
    """Gives every node that remains the constants that fit its new layout.

    Args:
        surgery: The graph.
        plan: The plan.
        live: Indices of the nodes that remain.
    """
    graph = surgery.graph
    cuts: dict[Use, Cut] = {use: Cut() for use in graph.overrides}
    live = set(live)
    for facts in plan.analysis.structure.facts:
        if facts.node.index in live:
            collect_cuts(plan, facts.node.index, cuts)
    cuts = {use: cut for use, cut in cuts.items() if use[0] in live}
    for edits in plan.edits.values():
        for edit in edits:
            if isinstance(edit, Shift):
                _shift(surgery, edit, cuts)
    kept_whole = [
        use
        for use, cut in cuts.items()
        if use in graph.overrides
        and not cut.takes
        and cut.values is None
        and cut.own is None
        and not plan.edits.get(use[0])
    ]
    gated = gate_tied(surgery, plan.analysis.structure.layers, kept_whole, cuts)
    write_constants(surgery, {use: cut for use, cut in cuts.items() if use not in gated})


def collect_cuts(plan: Plan, index: int, cuts: dict[Use, Cut]) -> None:
    """Finds what a plan leaves of the constants that a node reads.

    Args:
        plan: The plan.
        index: Of a node that remains.
        cuts: Those that lose something are added.
    """
    graph, layout = plan.analysis.graph, plan.layout
    facts = plan.analysis.structure.facts[index]
    writer, reader = plan.writers.get(index), plan.readers.get(index)
    takes: list[tuple[int, int, IntArray]] = []
    for param in facts.params:
        value = graph.original(facts.node, param.slot)
        place = None if value is None else param.place(value)
        if place is not None:
            own = writer is not None and same_axis(param.labels, writer.write.outputs)
            positions = writer.positions if writer and own else param.kept(layout.positions)
            takes.append((param.slot, place, positions))
    if reader is not None:
        layer = reader.read.layer
        takes.append((layer.weight_slot, layer.weight_input_axis, reader.positions))
        takes += _scales(layer, reader.positions)
    if facts.grouped is not None:
        _cut_groups(plan, facts.grouped, cuts)
    for slot, axis, positions in takes:
        value = graph.original(facts.node, slot)
        assert value is not None
        if not np.array_equal(positions, np.arange(value.shape[axis])):
            cuts.setdefault((index, slot), Cut()).takes[axis] = positions


def _scales(layer: Layer, positions: IntArray) -> list[tuple[int, int, IntArray]]:
    """What is left of scales that a node is told block by block, as slot, axis and places."""
    in_order = np.array_equal(positions, np.arange(layer.inputs))
    if layer.coding is None or layer.scale_blocks is None or in_order:
        return []
    blocks = whole_blocks(positions, layer.together)
    assert blocks is not None
    return [(slot, layer.weight_input_axis, blocks) for slot in layer.coding.slots]


def _cut_groups(plan: Plan, read: Read, cuts: dict[Use, Cut]) -> None:
    """Takes from a grouped weight, group by group, the input channels that are left."""
    layer = read.layer
    each = layer.inputs // layer.groups
    kept = plan.layout.positions(read.inputs)
    groups, counts = np.unique(kept // each, return_counts=True)
    if not len(kept) or np.array_equal(kept, np.arange(layer.inputs)):
        return
    places = (kept % each).reshape(len(groups), counts[0])
    cut = cuts.setdefault(layer.weight, Cut())
    if (places == places[0]).all():
        cut.takes[layer.weight_input_axis] = places[0]
        return
    own = np.zeros((layer.groups, counts[0]), np.int64)
    own[kept[:: counts[0]] // each] = places
    cut.own = own.repeat(layer.outputs // layer.groups, axis=0)


def _shift(surgery: Surgery, edit: Shift, cuts: dict[Use, Cut]) -> None:
    """Adds to a bias, or behind a layer that has none."""
    layer, graph = edit.layer, surgery.graph
    index, slot = layer.node.index, layer.bias_slot
    weight = graph.value(layer.node, layer.weight_slot)
    assert weight is not None
    stem = f"{layer.node.outputs[0]}.bias"
    if slot is not None and layer.node.input(slot):
        bias = graph.value(layer.node, slot)
        assert bias is not None
        cut = cuts.setdefault((index, slot), Cut())
        cut.values = _rounded(bias + edit.amounts / layer.bias_factor, bias.dtype)
        cut.takes[cut.values.ndim - 1] = edit.positions
        return
    own = _rounded(edit.amounts[edit.positions], layer.kind_of_sums(weight))
    if slot is not None:
        bias = surgery.constant(surgery.fresh_name(stem), own)
        surgery.replace_tensor(index, slot, bias)
        if layer.bias_factor != 1.0:
            surgery.nodes[index].attrs["beta"] = 1.0
        return
    assert layer.output_axis is not None
    own = own.reshape(-1, *(1,) * (layer.result_rank - 1 - layer.output_axis))
    constant = surgery.constant(surgery.fresh_name(stem), own)
    surgery.insert_after(index, "Add", f"{stem}_node", [constant])


def _rounded(values: Array, kind: np.dtype[Any]) -> Array:
    # Sums of whole numbers wrap around, as those of the layer do.
    return (
        np.rint(values).astype(np.int64).astype(kind) if kind.kind == "i" else values.astype(kind)
    )


def write_constants(surgery: Surgery, cuts: Mapping[Use, Cut]) -> None:
    """Makes nodes read cut constants in place of the original ones.

    Args:
        surgery: The graph.
        cuts: What becomes of each constant; masks are laid over it in any case.
    """
    _Writer(surgery, cuts).write()


class _Writer:
    """Puts cut constants into the graph; a name that nobody else reads is used again."""

    def __init__(self, surgery: Surgery, cuts: Mapping[Use, Cut]) -> None:
        self._surgery, self._cuts = surgery, cuts
        self._made: dict[tuple[str, bytes], gs.Tensor] = {}
        self._taken: set[str] = set()

    def write(self) -> None:
        # What is made once for several nodes stands before the first of them.
        for (index, slot), cut in sorted(self._cuts.items(), key=lambda each: each[0]):
            node = self._surgery.graph.nodes[index]
            tensor = self._turned(node, slot, cut) or self._tensor(node, slot, cut)
            self._surgery.replace_tensor(index, slot, tensor)
            if node.operator == PRODUCT_OF_BITS and slot == MATRIX:
                lengths = {axis: len(positions) for axis, positions in cut.takes.items()}
                sizes = {SIZES[axis]: length for axis, length in lengths.items()}
                self._surgery.nodes[index].attrs.update(sizes)

    def _tensor(self, node: Node, slot: int, cut: Cut) -> gs.Tensor:
        # Masked constants may differ from reader to reader, so their content is part of the key.
        graph = self._surgery.graph
        masked = (node.index, slot) in graph.overrides and len(graph.readers[node.inputs[slot]]) > 1
        values = self._result(node, slot, cut) if masked else None
        key = (node.inputs[slot], cut.key() if values is None else _content(values))
        if key not in self._made:
            self._made[key] = self._make(node, slot, cut, values)
        return self._made[key]

    def _turned(self, node: Node, slot: int, cut: Cut) -> gs.Tensor | None:
        """A weight that others read before it is transposed, as an embedding: there it is cut."""
        surgery, graph = self._surgery, self._surgery.graph
        source = graph.producers.get(node.inputs[slot])
        if source is None or source.op != "Transpose" or source.domain:
            return None
        if cut.values is not None or cut.own is not None:
            return None
        stored = source.inputs[0]
        uses = [use for use in graph.readers[stored] if use in self._cuts]
        uses = [use for use in uses if self._cuts[use].values is None]
        if not uses or not graph.constants.is_initializer(stored):
            return None
        cut_here = self._result(node, slot, cut)
        order = source.attributes.get("perm", tuple(reversed(range(cut_here.ndim))))
        for index, place in uses:
            other = graph.nodes[index]
            if np.array_equal(
                self._result(other, place, self._cuts[index, place]).transpose(order), cut_here
            ):
                output = surgery.variable(f"{node.inputs[slot]}.cut")
                tensor = self._tensor(other, place, self._cuts[index, place])
                clone = surgery.node("Transpose", f"{output.name}_node", [tensor], [output])
                clone.attrs["perm"] = list(order)
                surgery.before.setdefault(node.index, []).insert(0, clone)
                return output
        return None

    def _result(self, node: Node, slot: int, cut: Cut) -> Array:
        graph = self._surgery.graph
        override = graph.overrides.get((node.index, slot))
        if cut.values is None and cut.own is None and override is not None:
            return override.taken(cut.takes)
        value = cut.values if cut.values is not None else graph.value(node, slot)
        assert value is not None
        if cut.own is not None:
            value = along_rows(value, cut.own)
        return taken(value, cut.takes)

    def _make(self, node: Node, slot: int, cut: Cut, values: Array | None) -> gs.Tensor:
        dequantized = self._requantize(node, slot, cut)
        if dequantized is not None:
            return dequantized
        name = node.inputs[slot]
        values = self._result(node, slot, cut) if values is None else values
        if node.operator == PRODUCT_OF_BITS:
            stored = self._surgery.graph.constants[name]
            values = packed(node.attributes, slot, values, stored)
        return self._surgery.constant(self._free_name(name), values)

    def _free_name(self, name: str) -> str:
        """The constant's own name if every reader of it gets a new one, else another."""
        graph = self._surgery.graph
        own = (
            graph.constants.is_initializer(name)
            and name not in self._taken
            and name not in graph.outputs
            and name not in graph.captured
            and all(
                use in self._cuts or use[0] in self._surgery.removed for use in graph.readers[name]
            )
        )
        if own:
            self._taken.add(name)
            return name
        return self._surgery.fresh_name(f"{name}.cut")

    def _requantize(self, node: Node, slot: int, cut: Cut) -> gs.Tensor | None:
        """Cuts a quantized weight in front of its DequantizeLinear, so that it stays quantized."""
        surgery, graph = self._surgery, self._surgery.graph
        source = graph.producers.get(node.inputs[slot])
        if cut.values is not None or source is None or source.op != "DequantizeLinear":
            return None
        override = graph.overrides.get((node.index, slot))
        if not all(name in graph.constants for name in source.inputs if name):
            return None
        whole = Dequantized.of(
            source, [graph.constants[name] if name else None for name in source.inputs]
        )
        left = whole if override is None else whole.zeroed(override.zeroed, override.stays)
        cut_down = left.rearranged(cut.own)
        cut_down = None if cut_down is None else cut_down.taken(cut.takes)
        if cut_down is None:
            return None
        stem = f"{source.inputs[0]}.cut"
        inputs = [surgery.constant(surgery.fresh_name(stem), cut_down.numbers)]
        for name, param in zip(source.inputs[1:], (cut_down.scale, cut_down.zero), strict=False):
            empty = gs.Variable.empty()
            inputs.append(
                empty
                if param is None
                else surgery.constant(surgery.fresh_name(f"{name}.cut"), param)
            )
        output = surgery.variable(f"{node.inputs[slot]}.cut")
        clone = surgery.node("DequantizeLinear", f"{output.name}_node", inputs, [output])
        clone.attrs.update(source.attributes)
        surgery.before.setdefault(node.index, []).insert(0, clone)
        return output


def _content(values: Array) -> bytes:
    # The shape belongs to it: zeros cut to 1 x 3 and to 3 x 1 are the same bytes.
    return repr(values.shape).encode() + values.tobytes()
