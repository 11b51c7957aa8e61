"""The model under repair: the masked model, in which each reader has constants of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from onnx import numpy_helper

from onnx_upscale.optimizer.apply.emit import emit
from onnx_upscale.optimizer.apply.surgery import Surgery
from onnx_upscale.optimizer.apply.weights import Cut, write_constants
from onnx_upscale.optimizer.load.graph import Graph, Use
from onnx_upscale.optimizer.load.values import Array
from onnx_upscale.recovery.readers import Reader


class Repaired:
    """A model whose weights and biases can be replaced, reader by reader.

    Args:
        graph: The graph seen through its masks.
        readers: Those to repair.
    """

    def __init__(self, graph: Graph, readers: Sequence[Reader]) -> None:
        uses = _uses(readers)
        surgery = Surgery(graph)
        cuts = {use: Cut() for use in graph.overrides}
        for reader, use in uses:
            node = graph.nodes[use[0]]
            value = graph.value(node, use[1])
            if value is not None:
                own = value if use == reader.layer.weight else _spread(value, reader)
                cuts[use] = Cut(values=own)
        write_constants(surgery, cuts)
        taken: set[str] = set()
        for reader, (index, slot) in uses:
            if (index, slot) not in cuts:
                _add_bias(surgery, reader)
            elif surgery.nodes[index].inputs[slot].name in taken:
                name = surgery.fresh_name(f"{surgery.nodes[index].inputs[slot].name}.own")
                values = cuts[index, slot].values
                assert values is not None
                surgery.replace_tensor(index, slot, surgery.constant(name, values))
            taken.add(surgery.nodes[index].inputs[slot].name)
        self._names = {use: surgery.nodes[use[0]].inputs[use[1]].name for _, use in uses}
        self.model = emit(surgery, ()).model
        self._tensors = {tensor.name: tensor for tensor in self.model.graph.initializer}

    def value(self, use: Use) -> Array:
        """The constant at a place that belongs to a reader."""
        return numpy_helper.to_array(self._tensors[self._names[use]])

    def write(self, use: Use, values: Array) -> None:
        """Replaces such a constant by one of the same shape."""
        tensor = self._tensors[self._names[use]]
        made = numpy_helper.from_array(np.ascontiguousarray(values), tensor.name)
        tensor.ClearField("float_data")
        tensor.ClearField("double_data")
        tensor.ClearField("int32_data")
        tensor.raw_data = made.raw_data


def _uses(readers: Iterable[Reader]) -> list[tuple[Reader, Use]]:
    found = []
    for reader in readers:
        found.append((reader, reader.layer.weight))
        if reader.bias is not None:
            found.append((reader, reader.bias))
    return found


def _spread(bias: Array, reader: Reader) -> Array:
    """A bias with a value per output channel, where it has one for all of them."""
    layer = reader.layer
    assert reader.bias is not None
    if reader.bias[0] == layer.node.index:
        shape = np.broadcast_shapes(bias.shape, (layer.outputs,))
    else:
        shape = np.broadcast_shapes(bias.shape, along_outputs(layer.outputs, reader).shape)
    return np.broadcast_to(bias, shape)


def along_outputs(count: int, reader: Reader) -> Array:
    """Output channels, counted, in the shape in which the bias of a reader holds them."""
    layer, behind = reader.layer, 0
    assert reader.bias is not None
    if reader.bias[0] != layer.node.index and layer.output_axis is not None:
        behind = layer.result_rank - 1 - layer.output_axis
    return np.arange(count).reshape(-1, *(1,) * behind)


def _add_bias(surgery: Surgery, reader: Reader) -> None:
    layer = reader.layer
    assert reader.bias is not None
    weight = surgery.graph.value(layer.node, layer.weight_slot)
    assert weight is not None
    name = surgery.fresh_name(f"{layer.node.outputs[0]}.bias")
    bias = surgery.constant(name, np.zeros(layer.outputs, weight.dtype))
    surgery.replace_tensor(*reader.bias, bias)
    if layer.bias_factor != 1.0:
        surgery.nodes[layer.node.index].attrs["beta"] = 1.0
