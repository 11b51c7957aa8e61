"""Whole numbers that stand for real ones: encodings, masks on them, and what they are named by."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnx_upscale
from build import Net, input_values, run
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.load.encoding import Encoding
from onnx_upscale.optimizer.load.layers import layers, multiply_adds

ENCODING = Encoding(np.array(0.5, np.float32), np.array(10, np.uint8))


def test_an_encoding_decodes_by_hand() -> None:
    np.testing.assert_array_equal(ENCODING.decode(np.array([10, 12, 0])), [0, 1, -5])


def test_an_encoding_rounds_clips_and_leaves_open_what_is_in_doubt() -> None:
    encoded = ENCODING.encode(np.array([0.0, 0.6, -100.0, 1000.0, 0.25, np.nan]))
    np.testing.assert_array_equal(encoded, [10, 11, 0, 255, np.nan, np.nan])


def test_encodings_are_the_same_if_type_scale_and_zero_point_are() -> None:
    signed = Encoding(ENCODING.scale, np.array(10, np.int8))
    assert ENCODING.same_as(Encoding(np.array([0.5], np.float32), np.array([10], np.uint8)))
    assert not ENCODING.same_as(signed)
    assert not ENCODING.same_as(Encoding(np.array(0.25, np.float32), ENCODING.zero))


def _model(name: str = "layer", scale: Any = None) -> onnx.ModelProto:
    """x (2, 3) as whole numbers, times a matrix (3, 2) of zero point 7; all by hand."""
    net = Net(17, x=(2, 3))
    one, zero = np.array(0.5, np.float32), np.array(128, np.uint8)
    weight = net.constant(np.array([[8, 7], [7, 9], [5, 6]], np.uint8), "weight")
    point = np.array(7, np.uint8)
    data = net("QuantizeLinear", "x", one, zero)
    scale = one if scale is None else scale
    made = net("QLinearMatMul", data, scale, zero, weight, one, point, one, zero, name=name)
    result = net("DequantizeLinear", made, one, zero)
    graph = helper.make_graph(net.nodes, "net", net.inputs, [], net.initializers)
    graph.output.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, (2, 2)))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_masked_weight_holds_its_zero_point() -> None:
    document = {"version": 1, "masks": {"weight": {"input": [1], "output": [0]}}}
    graph = load(_model(), document).graph
    (layer,) = layers(graph)
    masked = graph.value(layer.node, layer.weight_slot)
    np.testing.assert_array_equal(masked, [[7, 7], [7, 7], [7, 6]])


@pytest.mark.parametrize("key", ["weight", "layer", "layer.0"])
def test_layers_are_named_by_weight_node_and_result(key: str) -> None:
    model, x = _model(), np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    document = {"version": 1, "masks": {key: {"input": [2]}}}
    result = onnx_upscale.optimize(model, document, strategy="gather")
    # Steps of 0.5 times steps of 0.5: [[1 0] [0 2]] / 2, all of it exact.
    (made,) = run(result.model, {"x": x})
    np.testing.assert_array_equal(made, x[:, :2] @ [[0.5, 0], [0, 1.0]])


def test_multiply_adds_are_those_of_the_real_layer() -> None:
    graph = load(_model()).graph
    (layer,) = layers(graph)
    assert multiply_adds(layer.node.proto, graph.shapes) == 2 * 3 * 2


def test_a_scale_that_only_a_run_shows_leaves_the_layer_whole() -> None:
    net = Net(17, s=())
    model = _model(scale="s")
    model.graph.input.append(net.inputs[0])
    with pytest.raises(onnx_upscale.MaskError, match="not constant"):
        onnx_upscale.optimize(model, {"version": 1, "masks": {"layer": {"input": [2]}}})
    result = onnx_upscale.optimize(model, verify=False)
    assert result.model.graph.node == model.graph.node


def test_pruning_and_repair_leave_whole_numbers_alone() -> None:
    model = _model()
    samples = [input_values(model, seed) for seed in range(8)]
    document = {"version": 1, "masks": {"weight": {"input": [1]}}}
    recovered = onnx_upscale.recover(model, document, samples)
    assert recovered.model.graph.node == model.graph.node
    with pytest.raises(onnx_upscale.UsageError):
        onnx_upscale.prune(model, samples, macs=0.5)
