"""The copies that realizations ask for: Slice and Gather before readers, Pad behind writers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from onnx_upscale.optimizer.apply.surgery import Surgery
from onnx_upscale.optimizer.load.graph import IntArray, Node
from onnx_upscale.optimizer.plan import Select, Widen

_BYTES = (TensorProto.INT8, TensorProto.UINT8)
_SLICE_INPUTS_SINCE = 10
_PAD_INPUTS_SINCE = 11


class Copies:
    """Inserts copies; readers that want the same channels of a tensor share one."""

    def __init__(self, surgery: Surgery) -> None:
        self._surgery = surgery
        self._made: dict[tuple[str, int, bytes], gs.Variable] = {}

    def select(self, edit: Select) -> None:
        """Makes a node read a copy."""
        self._surgery.replace_tensor(edit.node.index, edit.slot, self.made(edit))

    def made(self, edit: Select) -> gs.Tensor:
        """The copy of what a node reads."""
        index, slot, axis = edit.node.index, edit.slot, edit.axis
        source = self._surgery.nodes[index].inputs[slot]
        key = (source.name, axis, edit.chosen.tobytes())
        if key not in self._made:
            maker = self._dequantizes(source.name)
            read = source if maker is None else self._surgery.nodes[maker.index].inputs[0]
            made = [select_node(self._surgery, read, axis, edit.chosen)]
            if maker is not None:
                made.append(self._dequantized(made[0].outputs[0], maker))
            self._surgery.before.setdefault(index, []).extend(made)
            self._made[key] = made[-1].outputs[0]
        return self._made[key]

    def _dequantizes(self, tensor: str) -> Node | None:
        """The node that makes a tensor of bytes, all with one scale.

        A copy comes before it, so that it stays right before a reader: onnxruntime makes one node
        of both.
        """
        graph = self._surgery.graph
        maker = graph.producers.get(tensor)
        if maker is None or maker.operator != ("", "DequantizeLinear"):
            return None
        scale = graph.value(maker, 1)
        alike = scale is not None and scale.size == 1
        return maker if alike and graph.types.get(maker.inputs[0]) in _BYTES else None

    def _dequantized(self, copy: gs.Variable, maker: Node) -> gs.Node:
        """A node that does to a copy what `maker` does to all of it."""
        surgery, stem = self._surgery, f"{copy.name}.dequantized"
        inputs = [copy, *surgery.nodes[maker.index].inputs[1:]]
        outputs = [surgery.variable(stem)]
        return surgery.node("DequantizeLinear", f"{stem}_node", inputs, outputs, **maker.attributes)

    def widen(self, edit: Widen) -> None:
        """Adds channels of zeros to what a writer makes."""
        layer = edit.layer
        assert layer.output_axis is not None
        surgery, rank = self._surgery, layer.result_rank
        pads = np.zeros(2 * rank, np.int64)
        pads[[layer.output_axis, rank + layer.output_axis]] = edit.before, edit.after
        stem = f"{layer.node.outputs[0]}.pad"
        if surgery.graph.opset >= _PAD_INPUTS_SINCE:
            inputs = [surgery.integers(f"{stem}.pads", pads)]
            surgery.insert_after(layer.node.index, "Pad", stem, inputs)
        else:
            surgery.insert_after(layer.node.index, "Pad", stem, [], pads=pads.tolist())


def select_node(
    surgery: Surgery, source: Any, axis: int, chosen: IntArray, target: Any = None
) -> gs.Node:
    """A new node that takes chosen places of an axis: a Slice if they are a range, else a Gather.

    Args:
        surgery: The graph.
        source: The tensor to copy from.
        axis: The axis.
        chosen: Places, shape (channels,).
        target: The tensor to write, or None for a new one.

    Returns:
        The node, not yet put in place.
    """
    start, end = int(chosen[0]), int(chosen[-1]) + 1
    if not np.array_equal(chosen, np.arange(start, end)):
        stem = f"{source.name}.gather"
        indices = surgery.integers(f"{stem}.indices", chosen)
        target = target if target is not None else surgery.variable(stem)
        return surgery.node("Gather", f"{stem}_node", [source, indices], [target], axis=axis)
    stem = f"{source.name}.slice"
    target = target if target is not None else surgery.variable(stem)
    if surgery.graph.opset < _SLICE_INPUTS_SINCE:
        bounds = {"axes": [axis], "starts": [start], "ends": [end]}
        return surgery.node("Slice", f"{stem}_node", [source], [target], **bounds)
    inputs = [surgery.integers(f"{stem}.bound", [value]) for value in (start, end, axis)]
    return surgery.node("Slice", f"{stem}_node", [source, *inputs], [target])
