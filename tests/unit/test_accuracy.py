"""Products of whole numbers in verification: exact on every processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_upscale.optimizer.verify.accuracy import at_full_accuracy
from onnx_upscale.running import Session

ROWS, DEPTH, WIDTH = 3, 32, 5
Values = npt.NDArray[Any]


def product(operator: str, constants: dict[str, Values], inputs: list[str], made: int) -> Any:
    """A model of one node that reads `x`, (3, 32), and makes `y`."""
    shape = [ROWS, DEPTH, 1, 1] if "Conv" in operator else [ROWS, DEPTH]
    microsoft = operator == "QGemm"
    node = helper.make_node(
        operator, inputs, ["y"], domain="com.microsoft" if microsoft else "", name="product"
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("y", made, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def weights(zero: int = 0) -> Values:
    """Large numbers of one sign, so that sums of two products do not fit into 16 bits."""
    rng = np.random.default_rng(zero)
    return rng.integers(100, 128, (DEPTH, WIDTH)).astype(np.int8)


STATIC = ["x", "one", "x_zero", "w", "scale", "w_zero", "y_scale", "y_zero"]
CASES = {
    "QLinearMatMul": (STATIC, TensorProto.UINT8),
    "QLinearConv": (STATIC, TensorProto.UINT8),
    "QGemm": ([*STATIC[:6], "", "y_scale", "y_zero"], TensorProto.UINT8),
    "MatMulInteger": (["x", "w", "x_zero", "w_zero"], TensorProto.INT32),
    "ConvInteger": (["x", "w", "x_zero", "w_zero"], TensorProto.INT32),
}


@pytest.mark.parametrize("zero", [0, 7])
@pytest.mark.parametrize("operator", CASES)
def test_signed_weights_are_multiplied_exactly(operator: str, zero: int) -> None:
    inputs, made = CASES[operator]
    w = weights(zero)
    laid = w.T.reshape(WIDTH, DEPTH, 1, 1) if "Conv" in operator else w
    every: dict[str, Any] = {
        "one": np.float32(1),
        "x_zero": np.uint8(3),
        "w": laid,
        "scale": np.float32(1),
        "w_zero": np.int8(zero),
        "y_scale": np.float32(5000),
        "y_zero": np.uint8(0),
    }
    constants = {name: np.asarray(every[name]) for name in inputs if name in every}
    model = product(operator, constants, inputs, made)
    x = np.random.default_rng(1).integers(200, 256, (ROWS, DEPTH)).astype(np.uint8)
    fed = x.reshape(ROWS, DEPTH, 1, 1) if "Conv" in operator else x
    sums = (x.astype(np.int64) - 3) @ (w.astype(np.int64) - zero)
    wanted = sums if made == TensorProto.INT32 else np.rint(sums / 5000)
    exact = at_full_accuracy(model)
    found = Session(exact, optimized=False).run({"x": fed})["y"].reshape(ROWS, WIDTH)
    np.testing.assert_array_equal(found, wanted)
    unsigned = {each.name: each for each in exact.graph.initializer}
    slots = [name for name in exact.graph.node[0].input if name.endswith("_unsigned")]
    assert len(slots) == 2
    assert all(unsigned[name].data_type == TensorProto.UINT8 for name in slots)


def test_a_zero_point_that_is_left_out_is_raised_as_well() -> None:
    model = product("MatMulInteger", {"w": weights()}, ["x", "w"], TensorProto.INT32)
    x = np.full((ROWS, DEPTH), 255, np.uint8)
    found = Session(at_full_accuracy(model), optimized=False).run({"x": x})["y"]
    np.testing.assert_array_equal(found, x.astype(np.int64) @ weights().astype(np.int64))


def test_others_stay_as_they_are() -> None:
    unsigned = product(
        "MatMulInteger", {"w": weights().astype(np.uint8)}, ["x", "w"], TensorProto.INT32
    )
    assert at_full_accuracy(unsigned) is unsigned
    # A zero point that is computed cannot be raised here.
    computed = product("MatMulInteger", {"w": weights()}, ["x", "w", "", "z"], TensorProto.INT32)
    assert at_full_accuracy(computed) is computed


def test_signed_data_needs_signed_weights() -> None:
    constants: dict[str, Values] = {
        "one": np.asarray(np.float32(1)),
        "x_zero": np.asarray(np.int8(3)),
        "w": weights(),
        "w_zero": np.asarray(np.int8(0)),
    }
    inputs = ["x", "one", "x_zero", "w", "one", "w_zero", "one", "x_zero"]
    model = product("QLinearMatMul", constants, inputs, TensorProto.INT8)
    assert at_full_accuracy(model) is model


def test_the_model_is_not_changed() -> None:
    model = product("MatMulInteger", {"w": weights()}, ["x", "w"], TensorProto.INT32)
    before = onnx.ModelProto()
    before.CopyFrom(model)
    at_full_accuracy(model)
    assert model == before
