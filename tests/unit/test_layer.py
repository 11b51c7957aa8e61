"""A layer knows its weight: where channels are in it, what zeroing them means, what it computes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_upscale
from build import Array, Net, input_values, run, weight_shape
from onnx_upscale.optimizer.analyze.rules import RULES
from onnx_upscale.optimizer.analyze.rules.layers import matmul
from onnx_upscale.optimizer.analyze.rules.table import rule
from onnx_upscale.optimizer.apply import masked_model
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.load.contractions import product_work
from onnx_upscale.optimizer.load.graph import Graph, Node, Override
from onnx_upscale.optimizer.load.layers import (
    LAYER_OPERATORS,
    Layer,
    layer_operator,
    layers,
    multiply_adds,
)
from onnx_upscale.optimizer.load.sides import Side
from onnx_upscale.optimizer.verify import wiring

MICROSOFT, FUSED = "com.microsoft", "TransposeMatMul"

# The operator, the shapes of data and weight, its attributes, the slot of the weight.
LAYERS: dict[str, tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any], int]] = {
    "convolution": ("Conv", (1, 6, 5, 5), (4, 6, 3, 3), {}, 1),
    "grouped convolution": ("Conv", (1, 6, 5, 5), (4, 3, 3, 3), {"group": 2}, 1),
    "transposed convolution": ("ConvTranspose", (1, 6, 5, 5), (6, 4, 3, 3), {}, 1),
    "grouped, transposed": ("ConvTranspose", (1, 6, 5, 5), (6, 2, 3, 3), {"group": 2}, 1),
    "Gemm": ("Gemm", (3, 6), (6, 4), {}, 1),
    "Gemm, both transposed": ("Gemm", (6, 3), (4, 6), {"transA": 1, "transB": 1}, 1),
    "MatMul": ("MatMul", (2, 3, 6), (6, 4), {}, 1),
    "MatMul from the left": ("MatMul", (2, 6, 3), (4, 6), {}, 0),
    "MatMul by a batch": ("MatMul", (2, 3, 6), (2, 6, 4), {}, 1),
    "MatMul by a vector": ("MatMul", (2, 3, 6), (6,), {}, 1),
}


def _net(name: str, weight: Array | None = None) -> Any:
    op, data, shape, attributes, slot = LAYERS[name]
    net = Net(17, x=data)
    weight = net.random(*shape) if weight is None else weight
    operands = ("x", weight) if slot else (weight, "x")
    return net.model(net(op, *operands, name="layer", **attributes)), weight


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("side", Side)
def test_zeroing_a_side_is_ignoring_or_losing_its_channels(name: str, side: Side) -> None:
    model, weight = _net(name)
    (layer,) = layers(load(model).graph)
    if side is Side.OUTPUT and layer.output_axis is None:
        pytest.skip("it has no output channels")
    channels = np.array([0, layer.channels(side) - 1])
    masked, _ = _net(name, layer.zeroed(Override(weight), side, channels).values)
    values = input_values(model)
    ignored = {"x": values["x"].copy()}
    if side is Side.INPUT:
        np.moveaxis(ignored["x"], layer.data_axis, 0)[channels] = 0
    (wanted,) = run(model, ignored)
    if side is Side.OUTPUT:
        assert layer.output_axis is not None
        np.moveaxis(wanted, layer.output_axis, 0)[channels] = 0
    (found,) = run(masked, values)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_by_group_has_the_weights_between_two_channels(name: str) -> None:
    model, weight = _net(name)
    (layer,) = layers(load(model).graph)
    grouped = layer.by_group(weight)
    per_group = (layer.outputs // layer.groups, layer.inputs // layer.groups)
    assert grouped.shape == (layer.groups, *per_group, layer.window)
    for side in Side if layer.output_axis is not None else (Side.INPUT,):
        for channel in range(layer.channels(side)):
            zeroed = layer.zeroed(Override(weight), side, np.array([channel])).values
            gone = layer.by_group(zeroed) == 0
            group, position = divmod(channel, layer.channels(side) // layer.groups)
            expected = np.zeros(grouped.shape, bool)
            expected[
                (group, slice(None), position) if side is Side.INPUT else (group, position)
            ] = 1
            np.testing.assert_array_equal(gone, expected)


@pytest.mark.parametrize("name", LAYERS)
def test_multiply_adds_are_pairs_of_channels_times_window_and_places(name: str) -> None:
    graph = load(_net(name)[0]).graph
    (layer,) = layers(graph)
    tensor, axis = layer.stepping
    sizes = [size for at, size in enumerate(graph.shapes[tensor]) if at != axis]
    places = math.prod(size for size in sizes if isinstance(size, int))
    pairs = layer.inputs * layer.outputs // layer.groups
    # A batch of matrices is that many weights for each pair, but a place meets one of them.
    window = 1 if layer.product else layer.window
    assert multiply_adds(layer.node.proto, graph.shapes) == pairs * window * places


def _fused(graph: Graph, node: Node, slot: int, shape: tuple[int, ...]) -> Layer | None:
    """onnxruntime's TransposeMatMul: alpha x data x weight."""
    rank = len(graph.shapes[node.inputs[0]])
    if len(shape) != 2 or node.attributes.get("transA", 0):
        return None
    into, out = (1, 0) if node.attributes.get("transB", 0) else (0, 1)
    return Layer(node, shape, 0, 1, None, rank - 1, rank - 1, rank, into, out)


@pytest.fixture
def transpose_matmul() -> Iterator[None]:
    """TransposeMatMul is a layer for as long as a test runs."""
    with (
        mock.patch.dict(LAYER_OPERATORS),
        mock.patch.dict(RULES),
        mock.patch.object(wiring, "PRODUCTS", wiring.PRODUCTS | {(MICROSOFT, FUSED)}),
    ):
        layer_operator(FUSED, product_work, domain=MICROSOFT)(_fused)
        rule(FUSED, MICROSOFT)(matmul)
        yield
    assert (MICROSOFT, FUSED) not in {*LAYER_OPERATORS, *RULES}


def _with_fused(transposed: int) -> onnx.ModelProto:
    net = Net(17, x=(2, 6))
    one = net("Relu", net("Gemm", "x", net.random(6, 8), net.random(8), name="one"))
    weight = net.constant(net.random(*((8, 8)[::-1] if transposed else (8, 8))), "weight")
    middle = net(FUSED, one, weight, name="middle", domain=MICROSOFT, alpha=0.5, transB=transposed)
    net.declare(middle, (2, 8))
    last = net("MatMul", net("Relu", middle), net.random(8, 3), name="last")
    result = helper.make_tensor_value_info(last, TensorProto.FLOAT, (2, 3))
    graph = helper.make_graph(net.nodes, "net", net.inputs, [result], net.initializers)
    graph.value_info.extend(net.value_info)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


@pytest.mark.parametrize("strategy", ["auto", "upscale", "gather", "constrained"])
@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.usefixtures("transpose_matmul")
def test_a_new_layer_operator_takes_a_registration_and_a_rule(
    strategy: Any, transposed: int
) -> None:
    model = _with_fused(transposed)
    masks = {"weight": {"input": [1, 5], "output": [0, 2, 3]}, "one": {"output": [6]}}
    document = {"version": 1, "masks": masks}
    result = onnx_upscale.optimize(model, document, strategy=strategy)  # It verifies as well.
    assert weight_shape(result.model, "middle") == (5, 5)
    values = input_values(model)
    masked = run(masked_model(load(model, document).graph), values)
    np.testing.assert_allclose(run(result.model, values)[0], masked[0], rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("transpose_matmul")
def test_what_a_new_layer_operator_reads_may_be_absorbed() -> None:
    model = _with_fused(0)
    (first,) = (each for each in model.graph.initializer if list(each.dims) == [6, 8])
    weight = numpy_helper.to_array(first).copy()
    weight[:, [2, 4]] = 0  # Their bias is all that is left of them.
    first.CopyFrom(numpy_helper.from_array(weight, first.name))
    result = onnx_upscale.optimize(model)
    assert weight_shape(result.model, "middle") == (6, 8)
    values = input_values(model)
    wanted = run(model, values)
    np.testing.assert_allclose(run(result.model, values)[0], wanted[0], rtol=1e-5, atol=1e-5)


def test_without_its_registration_an_operator_is_no_layer() -> None:
    with pytest.raises(onnx_upscale.MaskError, match="no channels to mask"):
        load(_with_fused(0), {"version": 1, "masks": {"middle": {"input": [1]}}})
