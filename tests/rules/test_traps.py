"""One test per trap of the design: each is named after it, and fails without its handling.

Most models hold their zeros in the weights, without masks: then the model itself is what the
emitted one must equal, and nothing of the package takes part in saying so.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_upscale
from build import Floats, Net, assert_close, input_values, run, weight_shape

STRATEGIES = ("auto", "upscale", "gather")
GONE = [1, 4, 5]
KEPT = [0, 2, 3, 6, 7]


def assert_equal(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every strategy keeps the function of a model; gives what the last one emitted."""
    inputs = input_values(model)
    wanted = run(model, inputs)
    for strategy in STRATEGIES:
        emitted = onnx_upscale.optimize(model, strategy=strategy, verify=False).model
        onnx.checker.check_model(emitted, full_check=True)
        assert list(emitted.graph.output) == list(model.graph.output)
        # As numpy's own floats: the results may be of a type that it lacks.
        got = [each.astype(np.float64) for each in run(emitted, inputs)]
        assert_close([each.astype(np.float64) for each in wanted], got)
    return emitted


def pruned(net: Net, *shape: int, axis: int = 0, gone: list[int] | None = None) -> Floats:
    """A weight with some slices of zeros."""
    values = net.random(*shape)
    values[(slice(None),) * axis + (GONE if gone is None else gone,)] = 0
    return values


def writer(net: Net, data: str = "x", size: int = 4, gone: list[int] | None = None) -> str:
    """A Conv with eight output channels, some of them zero."""
    return net(
        "Conv", data, pruned(net, 8, size, 1, 1, gone=gone), pruned(net, 8, gone=gone), name="write"
    )


def reader(
    net: Net, data: str, kernel: int = 1, channels: int = 8, pad: int = 0, few: bool = False
) -> str:
    weight = net.random(3, channels, kernel, kernel)
    if few:
        weight[:, GONE] = 0
    return net("Conv", data, weight, name="read", pads=[pad] * 4)


def declare(model: onnx.ModelProto, shape: tuple[int, ...]) -> None:
    """Gives the first output a type that shape inference does not find."""
    output = model.graph.output[0]
    output.CopyFrom(helper.make_tensor_value_info(output.name, TensorProto.FLOAT, shape))


def net_4d(opset: int = 17) -> Net:
    return Net(opset, x=(2, 4, 5, 5))


@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize(
    "op",
    ["Sigmoid", "HardSigmoid", "Softplus", "Exp", "Cos", "Clip", "Add", "BatchNormalization",
     "InstanceNormalization", "Pow", "Relu"],
)  # fmt: skip
def test_trap_01_f_of_zero_is_not_zero(op: str, pad: int) -> None:
    net: Any = net_4d()
    extra: dict[str, list[Any]] = {
        "Clip": [np.float32(0.5), np.float32(2)],
        "Add": [net.random(8, 1, 1)],
        "BatchNormalization": [*net.random(3, 8), np.abs(net.random(8))],
        "InstanceNormalization": [*net.random(2, 8)],
        "Pow": [np.float32(0)],
    }
    made = net(op, writer(net), *extra.get(op, []))
    emitted = assert_equal(net.model(reader(net, made, 3, pad=pad)))
    # Without padding the bias takes the constants up; with it only zeros can go.
    leaves = pad == 0 or op == "Relu"
    expected = len(KEPT) if leaves else 8
    assert weight_shape(emitted, "read")[1] == expected


@pytest.mark.parametrize(
    "border",
    ["Conv", "AveragePool", "Pad", "LpPool", "ConvTranspose", "depthwise ConvTranspose", "Resize"],
)
def test_trap_02_borders_mix_into_constant_channels(border: str) -> None:
    net: Any = net_4d()
    made = net("Sigmoid", writer(net))
    pool: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1] * 4}
    if border == "Conv":
        made = net("Conv", made, net.random(8, 8, 3, 3), pads=[1] * 4)
    elif border == "AveragePool":
        made = net("AveragePool", made, count_include_pad=1, **pool)
    elif border == "Pad":
        made = net("Pad", made, net.ints(0, 0, 1, 1, 0, 0, 1, 1))
    elif border == "LpPool":
        made = net("LpPool", made, **pool)
    elif border == "ConvTranspose":
        made = net("ConvTranspose", made, net.random(8, 8, 3, 3), strides=[2, 2])
    elif border == "depthwise ConvTranspose":
        made = net("ConvTranspose", made, net.random(8, 1, 3, 3), strides=[2, 2], group=8)
    else:
        roi = np.array([0, 0, -0.5, -0.5, 1, 1, 1.5, 1.5], np.float32)
        how = {"extrapolation_value": 7.0, "coordinate_transformation_mode": "tf_crop_and_resize"}
        made = net("Resize", made, roi, np.array([1, 1, 2, 2], np.float32), mode="linear", **how)
    assert_equal(net.model(reader(net, made)))


@pytest.mark.parametrize(
    "op", ["LayerNormalization", "GroupNormalization", "LRN", "Softmax", "ReduceMean", "ReduceL2",
           "LpNormalization", "ArgMax"],
)  # fmt: skip
def test_trap_03_norms_mix_channels(op: str) -> None:
    net: Any = net_4d(21)
    made = net("Add", writer(net), np.full((1, 8, 1, 1), 0.5, np.float32))
    if op == "LayerNormalization":
        made = net("Transpose", made, perm=[0, 2, 3, 1])
        made = net(op, made, net.random(8), net.random(8))
        assert_equal(net.model(net("MatMul", made, pruned(net, 8, 3))))
        return
    if op == "GroupNormalization":
        made = net(op, made, net.random(8), net.random(8), num_groups=2)
    elif op == "ArgMax":
        made = net(op, made, axis=1)
        assert_equal(net.model(made))
        return
    elif op.startswith("Reduce"):
        made = net(op, made, net.ints(1))
    else:
        how: dict[str, Any] = {"size": 3, "alpha": 0.5} if op == "LRN" else {"axis": 1}
        made = net(op, made, **how)
    reduced = op.startswith("Reduce")
    model = net.model(reader(net, made, channels=1 if reduced else 8, few=not reduced))
    # Shape inference knows nothing of some of them, and what has no shape is pinned in any case.
    shape = (2, 1 if reduced else 8, 5, 5)
    value = helper.make_tensor_value_info(made, TensorProto.FLOAT, shape)
    model.graph.value_info.append(value)
    declare(model, (2, 3, 5, 5))
    assert_equal(model)


@pytest.mark.parametrize(
    "hidden", ["Constant", "Identity", "Cast", "Transpose", "Reshape", "DequantizeLinear",
               "ConstantOfShape", "shared", "input"],
)  # fmt: skip
def test_trap_04_weights_behind_nodes_or_shared_or_listed_as_inputs(hidden: str) -> None:
    net: Any = net_4d()
    values = pruned(net, 8, 4, 1, 1)
    if hidden == "Constant":
        weight = net(hidden, value=numpy_helper.from_array(values))
    elif hidden == "Cast":
        weight = net("Cast", values.astype(np.float16), to=TensorProto.FLOAT)
    elif hidden == "Transpose":
        weight = net(hidden, values.transpose(1, 0, 3, 2), perm=[1, 0, 3, 2])
    elif hidden == "Reshape":
        weight = net(hidden, values.ravel(), net.ints(8, 4, 1, 1))
    elif hidden == "DequantizeLinear":
        quantized = np.round(values * 50).astype(np.int8)
        weight = net(hidden, quantized, np.float32(0.02), np.int8(0))
    elif hidden == "ConstantOfShape":
        weight = net(hidden, net.ints(8, 4, 1, 1), value=helper.make_tensor("v", 1, [1], [0.5]))
    elif hidden == "Identity":
        weight = net(hidden, values)
    else:
        weight = net.constant(values, "weight")
    made = net("Relu", net("Conv", "x", weight, name="write"))
    if hidden == "shared":
        # The same weight reads eight and makes eight channels; only one of its readers is cut.
        shared = net.constant(net.random(8, 8, 1, 1), "shared")
        made = net("Add", net("Conv", made, shared), net("Conv", net("Conv", made, shared), shared))
    weight_read = net.random(3, 8, 1, 1)
    weight_read[:, [0, 3]] = 0
    model = net.model(net("Conv", made, weight_read, name="read"))
    if hidden == "input":
        model.ir_version = 3
        stored = model.graph.initializer
        model.graph.input.extend(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            for tensor in stored
        )
        emitted = onnx_upscale.optimize(model, strategy="gather").model
        onnx.checker.check_model(emitted, full_check=True)
        dims = {tensor.name: tuple(tensor.dims) for tensor in emitted.graph.initializer}
        assert dims["weight"] == (3, 4, 1, 1)
        for value in emitted.graph.input[1:]:
            assert tuple(d.dim_value for d in value.type.tensor_type.shape.dim) == dims[value.name]
        return
    emitted = assert_equal(model)
    left = {"ConstantOfShape": 6, "shared": 6}.get(hidden, 3)
    if hidden != "DequantizeLinear":
        assert weight_shape(emitted, "read")[1] == left


@pytest.mark.parametrize("twice", ["Add", "Concat", "Swish", "output"])
def test_trap_05_a_tensor_read_twice(twice: str) -> None:
    net: Any = net_4d()
    made = net("Relu", writer(net))
    inner = made
    if twice in ("Add", "Concat"):
        made = net(twice, made, made, **({"axis": 1} if twice == "Concat" else {}))
    elif twice == "Swish":
        made = net("Mul", made, net("Sigmoid", made))
    channels = 16 if twice == "Concat" else 8
    weight = net.random(3, channels, 1, 1)
    weight[:, [0, channels - 2]] = 0
    outputs = [net("Conv", made, weight, name="read"), *([inner] if twice == "output" else [])]
    emitted = assert_equal(net.model(*outputs))
    assert weight_shape(emitted, "write")[0] == (
        8 if twice == "output" else 5 if channels > 8 else 3
    )


@pytest.mark.parametrize("how", ["Reshape", "Expand", "chain", "number"])
def test_trap_06_shape_arithmetic(how: str) -> None:
    net: Any = net_4d()
    made = net("Relu", writer(net))
    if how == "Reshape":
        made = net("Reshape", made, net.ints(2, 8, 25))
    elif how == "Expand":
        made = net("Expand", net("GlobalAveragePool", made), net.ints(2, 8, 4, 3))
        made = net("Reshape", made, net.ints(2, 8, 12))
    elif how == "chain":
        sizes = net("Gather", net("Shape", made), net.ints(0, 1))
        made = net("Reshape", made, net("Concat", sizes, net.ints(-1), axis=0))
    else:  # The channel count takes part in the result.
        count = net("Cast", net("Gather", net("Shape", made), np.int64(1)), to=TensorProto.FLOAT)
        made = net("Reshape", net("Div", made, count), net.ints(2, 8, -1))
    assert_equal(net.model(net("MatMul", pruned(net, 3, 8, axis=1), made)))


@pytest.mark.parametrize("where", ["chain", "residual", "concat", "all"])
@pytest.mark.parametrize("side", ["input", "output"])
def test_trap_07_no_channel_left(where: str, side: str) -> None:
    net: Any = net_4d()
    everything = list(range(8))
    gone = everything if side == "output" else []
    made = net("Sigmoid", writer(net, gone=gone))
    weight = pruned(net, 4, 8, 1, 1, axis=1, gone=[] if side == "output" else everything)
    made = net("Conv", made, weight, net.random(4))
    if where == "residual":
        made = net("Add", "x", made)
    elif where == "concat":
        made = net("Concat", made, "x", axis=1)
    elif where == "all":
        made = net("Conv", made, np.zeros((2, 4, 1, 1), np.float32))
    assert_equal(net.model(net("Relu", made)))


@pytest.mark.parametrize("opset", [7, 9, 10, 11, 13, 18, 21])
def test_trap_08_attribute_or_input_by_opset(opset: int) -> None:
    net: Any = net_4d(opset)
    made = net("Relu", writer(net))
    if opset >= 10:
        made = net("Slice", made, net.ints(1), net.ints(8), net.ints(1))
    else:
        made = net("Slice", made, axes=[1], starts=[1], ends=[8])
    if opset >= 13:
        one, other = net.nodes_of("Split", made, net.ints(3, 4), outputs=2, axis=1)
    else:
        one, other = net.nodes_of("Split", made, outputs=2, axis=1, split=[3, 4])
    made = net("Concat", other, one, axis=1)
    if opset >= 11:
        made = net("Pad", made, net.ints(0, 0, 0, 1, 0, 0, 1, 0))
        made = net("Clip", made, np.float32(-0.5), np.float32(3))
    else:
        made = net("Clip", net("Pad", made, pads=[0, 0, 0, 1, 0, 0, 1, 0]), min=-0.5, max=3.0)
    if opset in (7, 9):
        scales = np.array([1, 1, 2, 2], np.float32)
        given = [scales] if opset == 9 else []
        how = {} if opset == 9 else {"scales": scales.tolist()}
        made = net("Upsample", made, *given, mode="nearest", **how)
    if opset >= 18:
        made = net("ReduceMean", made, net.ints(2), keepdims=0)
    else:
        made = net("ReduceMean", made, axes=[2], keepdims=0)
    made = net("Unsqueeze", made, net.ints(2)) if opset >= 13 else net("Unsqueeze", made, axes=[2])
    made = net("Squeeze", made, net.ints(2)) if opset >= 13 else net("Squeeze", made, axes=[2])
    assert_equal(net.model(net("MatMul", net.random(3, 7), made)))


def test_trap_09_stale_value_info_and_name_clashes() -> None:
    net: Any = net_4d()
    made = net("Relu", writer(net), name="relu")
    # The names that a Gather in front of a reader would like to have.
    clash = net("Neg", "x", name=f"{made}.gather")
    net.nodes[-1].output[0] = clash = f"{made}.gather"
    reads = []
    for gone in ([0, 3], [2, 6, 7]):
        reads.append(net("Conv", made, pruned(net, 3, 8, 1, 1, axis=1, gone=gone)))
    model = net.model(*reads, clash)
    info = helper.make_tensor_value_info(made, TensorProto.FLOAT, (2, 8, 5, 5))
    model.graph.value_info.append(info)
    emitted = assert_equal(model)
    names = [name for node in emitted.graph.node for name in node.output]
    assert len(names) == len(set(names))
    assert "Gather" in {node.op_type for node in emitted.graph.node}
    recorded = {value.name: value for value in emitted.graph.value_info}
    assert recorded[made].type.tensor_type.shape.dim[1].dim_value == len(KEPT)


@pytest.mark.parametrize("op", ["If", "Loop", "Scan"])
def test_trap_09_subgraphs_capture_outer_names(op: str) -> None:
    net: Any = net_4d()
    made = net("Relu", writer(net))
    shape = (2, 8, 5, 5)

    def info(name: str, kind: int = TensorProto.FLOAT, dims: tuple[int, ...] = shape) -> Any:
        return helper.make_tensor_value_info(name, kind, dims)

    state = net.constant(np.ones(shape, np.float32))
    twice = helper.make_node("Mul", ["carried", made], ["next"])
    if op == "If":
        branch = helper.make_graph(
            [helper.make_node("Neg", [made], ["branch"])], "branch", [], [info("branch")]
        )
        out = net("If", np.bool_(True), then_branch=branch, else_branch=branch)
    elif op == "Loop":
        body = helper.make_graph(
            [helper.make_node("Identity", ["go"], ["on"]), twice], "body",
            [info("i", TensorProto.INT64, ()), info("go", TensorProto.BOOL, ()), info("carried")],
            [info("on", TensorProto.BOOL, ()), info("next")],
        )  # fmt: skip
        out = net("Loop", net.constant(np.int64(2)), np.bool_(True), state, body=body)
    else:
        body = helper.make_graph(
            [twice, helper.make_node("Identity", ["step"], ["out"])], "body",
            [info("carried"), info("step", dims=(4, 5, 5))],
            [info("next"), info("out", dims=(4, 5, 5))],
        )  # fmt: skip
        out = net.nodes_of("Scan", state, "x", outputs=2, body=body, num_scan_inputs=1)[0]
    model = net.model(net("Identity", out), reader(net, made))
    declare(model, shape)
    emitted = assert_equal(model)
    assert weight_shape(emitted, "write")[0] == 8


def test_trap_09_local_functions() -> None:
    net: Any = net_4d()
    model = net.model(writer(net))
    model.graph.node.add(
        op_type="Double", domain="local", input=[model.graph.output[0].name], output=["doubled"]
    )
    model.graph.output[0].name = "doubled"
    twice = helper.make_node("Add", ["a", "a"], ["b"])
    model.functions.append(
        helper.make_function(
            "local", "Double", ["a"], ["b"], [twice], [helper.make_opsetid("", 17)]
        )
    )
    model.opset_import.append(helper.make_opsetid("local", 1))
    emitted = assert_equal(model)
    assert not emitted.functions
    assert [node.op_type for node in emitted.graph.node] == ["Conv", "Add"]


@pytest.mark.parametrize("both", [True, False])
def test_trap_10_contraction_axes_of_two_activations_are_coupled(both: bool) -> None:
    net: Any = Net(17, x=(2, 5, 6))
    one = net("MatMul", "x", pruned(net, 6, 8, axis=1), name="one")
    gone = GONE if both else [0, 2]
    other = net("MatMul", "x", pruned(net, 6, 8, axis=1, gone=gone), name="other")
    made = net("MatMul", one, net("Transpose", other, perm=[0, 2, 1]))
    emitted = assert_equal(net.model(net("Softmax", made)))
    shapes = weight_shape(emitted, "one"), weight_shape(emitted, "other")
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("kind", ["bfloat16", "float8_e4m3fn", "int4", "float16"])
def test_trap_11_types_that_numpy_lacks(kind: str) -> None:
    net: Any = net_4d(21)
    dtype = np.dtype(getattr(ml_dtypes, kind, np.float16))
    values = pruned(net, 8, 4, 1, 1)
    if kind == "int4":
        quantized = np.round(values * 7).astype(dtype)
        weight = net("DequantizeLinear", quantized, np.float32(0.1))
    else:
        weight = net("Cast", values.astype(dtype), to=TensorProto.FLOAT)
    made = net("Relu", net("Conv", "x", weight, name="write"))
    assert_equal(net.model(reader(net, made)))


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("side", ["input", "output"])
def test_trap_12_quantized_zero_is_the_zero_point(per_channel: bool, side: str) -> None:
    net: Any = net_4d()
    stored = net.rng.integers(-100, 100, (8, 4, 1, 1)).astype(np.int8)
    scale = net.rng.uniform(0.01, 0.03, 8 if per_channel else ()).astype(np.float32)
    zero = net.rng.integers(3, 9, scale.shape).astype(np.int8)
    weight = net("DequantizeLinear", stored, scale, zero, name="dq", axis=0)
    made = net("Sigmoid", net("Conv", "x", weight, name="write"))
    model = net.model(reader(net, made, 3, pad=1))
    gone = [1, 2] if side == "input" else GONE
    expected = onnx.ModelProto()
    expected.CopyFrom(model)
    masked = stored.copy()
    point = np.broadcast_to(zero.reshape(-1, 1, 1, 1), stored.shape)
    where = (slice(None), gone) if side == "input" else (gone,)
    masked[where] = point[where]
    expected.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(masked, model.graph.initializer[0].name)
    )
    wanted = run(expected, input_values(model))
    for strategy in STRATEGIES:
        document = {"version": 1, "masks": {"write": {side: gone}}}
        emitted = onnx_upscale.optimize(model, document, strategy=strategy).model
        got = run(emitted, input_values(model))
        assert_close(wanted, got)
        assert any(node.op_type == "DequantizeLinear" for node in emitted.graph.node)
        assert any(tensor.data_type == TensorProto.INT8 for tensor in emitted.graph.initializer)
