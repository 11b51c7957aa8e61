"""Constants cut to the channels that remain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnx_upscale.optimizer.analyze.facts import Read, same_axis
from onnx_upscale.optimizer.apply.surgery import Surgery
from onnx_upscale.optimizer.apply.tied import gate_tied
from onnx_upscale.optimizer.load.graph import IntArray, Node, Use
from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.optimizer.plan import Plan, Shift

_LEFT_BY_FUSION = "gemm_input_shape"


@dataclass
class Cut:
    """What becomes of one constant as one node reads it.

    Attributes:
        takes: Positions to keep, by axis.
        values: A new value to start from, or None for the masked one.
    """

    takes: dict[int, IntArray] = field(default_factory=dict)
    values: Array | None = None

    def key(self) -> bytes:
        """Equal for cuts of the same constant that give the same result."""
        takes = [axis.to_bytes(2, "little") + p.tobytes() for axis, p in sorted(self.takes.items())]
        own = b"" if self.values is None else self.values.tobytes()
        return b"|".join([*takes, own])


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
            _collect(plan, facts.node.index, cuts)
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
        and not plan.edits.get(use[0])
    ]
    gated = gate_tied(surgery, plan.analysis.structure.layers, kept_whole, cuts)
    write_constants(surgery, {use: cut for use, cut in cuts.items() if use not in gated})


def _collect(plan: Plan, index: int, cuts: dict[Use, Cut]) -> None:
    graph, layout = plan.analysis.graph, plan.layout
    facts = plan.analysis.structure.facts[index]
    writer, reader = plan.writers.get(index), plan.readers.get(index)
    takes: list[tuple[int, int, IntArray]] = []
    for param in facts.params:
        value = graph.value(facts.node, param.slot)
        place = None if value is None else param.place(value)
        if place is not None:
            own = writer is not None and same_axis(param.labels, writer.write.outputs)
            positions = writer.positions if writer and own else param.kept(layout.positions)
            takes.append((param.slot, place, positions))
    if reader is not None:
        layer = reader.read.layer
        takes.append((layer.weight_slot, layer.weight_input_axis, reader.positions))
    if facts.grouped is not None:
        _cut_groups(plan, facts.grouped, cuts)
    for slot, axis, positions in takes:
        value = graph.value(facts.node, slot)
        assert value is not None
        if not np.array_equal(positions, np.arange(value.shape[axis])):
            cuts.setdefault((index, slot), Cut()).takes[axis] = positions


def _cut_groups(plan: Plan, read: Read, cuts: dict[Use, Cut]) -> None:
    """Takes from a grouped weight, group by group, the input channels that are left."""
    layer, graph = read.layer, plan.analysis.graph
    weight = graph.value(layer.node, layer.weight_slot)
    assert weight is not None
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
    values = weight.copy()
    rows = values.reshape(layer.groups, -1, *values.shape[1:])
    for group, own in zip(kept[:: counts[0]] // each, places, strict=True):
        rows[group, :, : len(own)] = rows[group][:, own]
    cut.values = values
    cut.takes[layer.weight_input_axis] = np.arange(counts[0])


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
    kind = weight.dtype if layer.quantization is None else np.dtype(np.int32)
    own = _rounded(edit.amounts[edit.positions], kind)
    if slot is not None:
        bias = surgery.constant(surgery.fresh_name(stem), own)
        surgery.replace_tensor(index, slot, bias)
        if layer.bias_factor != 1.0:
            surgery.nodes[index].attrs["beta"] = 1.0
        return
    assert layer.output_axis is not None
    own = own.reshape(-1, *(1,) * (layer.result_rank - 1 - layer.output_axis))
    # onnxruntime 1.32 does not load a product with an Add beside what its own fusion left behind.
    fused = graph.constants.is_initializer(_LEFT_BY_FUSION)
    constant = surgery.constant(surgery.fresh_name(stem), -own if fused else own)
    surgery.insert_after(index, "Sub" if fused else "Add", f"{stem}_node", [constant])


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
        for (index, slot), cut in self._cuts.items():
            node = self._surgery.graph.nodes[index]
            tensor = self._turned(node, slot, cut) or self._tensor(node, slot, cut)
            self._surgery.replace_tensor(index, slot, tensor)

    def _tensor(self, node: Node, slot: int, cut: Cut) -> gs.Tensor:
        # Masked constants may differ from node to node, so their content is part of the key.
        masked = (node.index, slot) in self._surgery.graph.overrides
        content = _content(self._result(node, slot, cut)) if masked else cut.key()
        key = (node.inputs[slot], content)
        if key not in self._made:
            self._made[key] = self._make(node, slot, cut)
        return self._made[key]

    def _turned(self, node: Node, slot: int, cut: Cut) -> gs.Tensor | None:
        """A weight that others read before it is transposed, as an embedding: there it is cut."""
        surgery, graph = self._surgery, self._surgery.graph
        source = graph.producers.get(node.inputs[slot])
        if source is None or source.op != "Transpose" or source.domain or cut.values is not None:
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
        value = cut.values if cut.values is not None else self._surgery.graph.value(node, slot)
        assert value is not None
        for axis, positions in cut.takes.items():
            value = value.take(positions, axis)
        return value

    def _make(self, node: Node, slot: int, cut: Cut) -> gs.Tensor:
        dequantized = self._requantize(node, slot, cut)
        if dequantized is not None:
            return dequantized
        name = self._free_name(node.inputs[slot])
        return self._surgery.constant(name, self._result(node, slot, cut))

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
        if source.attributes.get("block_size", 0):
            return None
        if override is not None and override.stays is not None:
            return None  # Zeros that are no whole slices.
        if not all(name in graph.constants for name in source.inputs if name):
            return None
        quantized = graph.constants[source.inputs[0]].copy()
        params = [graph.constants[name] if name else None for name in source.inputs[1:]]
        axis = int(source.attributes.get("axis", 1)) % max(quantized.ndim, 1)
        zero = params[1] if len(params) > 1 else None
        for zeroed_axis, indices in override.zeroed if override is not None else ():
            _zero_quantized(quantized, zero, axis, zeroed_axis, indices)
        for taken_axis, positions in cut.takes.items():
            quantized = quantized.take(positions, taken_axis)
            if taken_axis == axis:
                params = [
                    p.take(positions, 0) if p is not None and p.size > 1 else p for p in params
                ]
        stem = f"{source.inputs[0]}.cut"
        inputs = [surgery.constant(surgery.fresh_name(stem), quantized)]
        for name, param in zip(source.inputs[1:], params, strict=True):
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


def _zero_quantized(
    quantized: Array, zero: Array | None, axis: int, zeroed_axis: int, indices: IntArray
) -> None:
    """Writes the zero point, which stands for zero, over whole slices."""
    shape = [1] * quantized.ndim
    point = np.zeros((), quantized.dtype) if zero is None else zero
    if point.size > 1:
        shape[axis] = point.size
    full = np.broadcast_to(
        point.reshape(shape) if point.size > 1 else point.reshape(()), quantized.shape
    )
    where = (slice(None),) * zeroed_axis + (indices,)
    quantized[where] = full[where]
