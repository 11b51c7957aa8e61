"""Shapes that nobody declared: what follows from names, what only a run shows, and when it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

import onnx_upscale
from build import Net, bare, weight_shape
from onnx_upscale.declared import Shape
from onnx_upscale.errors import MaskError
from onnx_upscale.optimizer.load import tensors, witness
from onnx_upscale.optimizer.load.graph import build_graph
from onnx_upscale.optimizer.load.tracing import Found, trace
from onnx_upscale.optimizer.load.witness import Run, Witness


def fill(net: Net, sizes: str) -> str:
    """A tensor whose shape is the value of a vector."""
    return net("ConstantOfShape", sizes)


def shape(net: Net, *bounds: int) -> str:
    cut = net("Shape", "x")
    return net("Slice", cut, net.ints(bounds[0]), net.ints(bounds[1])) if bounds else cut


def one(net: Net, axis: int) -> str:
    return net("Gather", net("Shape", "x"), net.ints(axis), axis=0)


SIZES: dict[str, tuple[Callable[[Net], str], Shape]] = {
    "all": (lambda n: shape(n), ("n", 8, "h", 6)),
    "cut": (lambda n: shape(n, 1, 3), (8, "h")),
    "backwards": (
        lambda n: n("Slice", n("Shape", "x"), n.ints(3), n.ints(-9), n.ints(0), n.ints(-2)),
        (6, 8),
    ),
    "side by side": (lambda n: n("Concat", one(n, 2), n.ints(5), axis=0), ("h", 5)),
    "sum": (lambda n: n("Add", one(n, 2), n.ints(3)), ("3+h",)),
    "difference": (lambda n: n("Sub", n("Add", one(n, 2), n.ints(3)), one(n, 2)), (3,)),
    "product": (lambda n: n("Mul", one(n, 2), one(n, 0)), ("h*n",)),
    "quotient": (lambda n: n("Div", n("Mul", one(n, 2), n.ints(6)), n.ints(3)), ("2*h",)),
    "of numbers": (lambda n: n("Div", one(n, 1), n.ints(-3)), (-2,)),
    "negative": (lambda n: n("Neg", n("Neg", one(n, 2))), ("h",)),
    "count": (lambda n: n("Unsqueeze", n("Size", "x"), n.ints(0)), ("48*h*n",)),
    "all of them": (lambda n: n("ReduceProd", shape(n, 0, 2), axes=[0]), ("8*n",)),
    "smallest": (lambda n: n("Min", one(n, 1), n.ints(5)), (5,)),
    "largest": (lambda n: n("Max", one(n, 2), one(n, 2)), ("h",)),
    "one or the other": (
        lambda n: n("Where", n("Equal", n.ints(-1, 4), n.ints(-1, -1)), one(n, 2), n.ints(4)),
        ("h", 4),
    ),
    "never -1": (
        lambda n: n("Where", n("Equal", one(n, 2), n.ints(-1)), n.ints(1), one(n, 2)),
        ("h",),
    ),
    "wrapped": (lambda n: n("Squeeze", n("Unsqueeze", one(n, 2), n.ints(0)), n.ints(0)), ("h",)),
    "reshaped": (lambda n: n("Reshape", n("Squeeze", one(n, 2)), n.ints(-1)), ("h",)),
    "repeated": (lambda n: n("Expand", one(n, 2), n.ints(2)), ("h", "h")),
    "converted": (lambda n: n("Cast", one(n, 2), to=TensorProto.INT64), ("h",)),
    "by way of floats": (
        lambda n: n(
            "Cast", n("Floor", n("Mul", n("Cast", one(n, 3), to=1), np.float32(0.4))), to=7
        ),
        (2,),
    ),
}


@pytest.mark.parametrize("name", SIZES)
def test_shape_arithmetic(name: str) -> None:
    build, wanted = SIZES[name]
    net = Net(13, x=("n", 8, "h", 6))
    made = fill(net, build(net))
    assert build_graph(bare(net, made), runs=False).shapes[made] == wanted


def test_what_may_be_anything_is_only_equal_to_itself() -> None:
    net = Net(13, x=("n", 8, "h", 6))
    half = net("Div", one(net, 2), net.ints(2))
    again = net("Div", one(net, 2), net.ints(2))
    less = net("Min", one(net, 2), one(net, 0))
    maybe = net("Where", net("Equal", one(net, 2), net.ints(4)), net.ints(1), one(net, 2))
    names = [fill(net, sizes) for sizes in (half, again, less, maybe)]
    shapes = build_graph(bare(net, *names), runs=False).shapes
    (first,), (second,), (third,), (fourth,) = (shapes[name] for name in names)
    assert first == second
    assert len({first, third, fourth, "h", "n"}) == 5
    assert not any(isinstance(size, int) for size in (first, third, fourth))


@pytest.mark.parametrize("opset", [9, 11, 12, 13, 17])
def test_a_view_in_any_operator_set(opset: int) -> None:
    net = Net(opset, x=("n", 8, 3, 3))
    size = net("Gather", net("Shape", "x"), np.array(0, np.int64), axis=0)
    wrapped = (
        net("Unsqueeze", size, axes=[0]) if opset < 13 else net("Unsqueeze", size, net.ints(0))
    )
    flat = net("Reshape", "x", net("Concat", wrapped, net.ints(-1), axis=0))
    assert build_graph(bare(net, flat), runs=False).shapes[flat] == ("n", 72)


def test_windows_and_scales_follow_names() -> None:
    net = Net(17, x=("n", 3, "h", 9))
    same = net("Conv", "x", net.random(4, 3, 3, 3), pads=[1, 1, 1, 1])
    half = net("MaxPool", same, kernel_shape=[2, 2], strides=[2, 2])
    again = net("AveragePool", same, kernel_shape=[2, 2], strides=[2, 2])
    double = net("Resize", same, "", np.array([1, 1, 2, 2], np.float32))
    spread = net("ConvTranspose", same, net.random(4, 2, 2, 2), strides=[2, 2])
    padded = net("Pad", same, net.ints(0, 0, 1, 0, 0, 0, 2, 0))
    shapes = build_graph(bare(net, half, again, double, spread, padded), runs=False).shapes
    assert shapes[same] == ("n", 4, "h", 9)
    assert shapes[half] == shapes[again]
    assert shapes[half][3] == 4
    assert shapes[double] == ("n", 4, "2*h", 18)
    assert shapes[spread] == ("n", 2, "2*h", 18)
    assert shapes[padded] == ("n", 4, "3+h", 9)


def test_what_is_cropped_before_it_is_resized_is_no_multiple() -> None:
    net = Net(17, x=("n", 3, "h", 9))
    corners = np.array([0, 0, 0.5, 0, 1, 1, 1, 1], np.float32)
    scales = np.array([1, 1, 2, 1], np.float32)
    mode = "tf_crop_and_resize"
    part = net("Resize", "x", corners, scales, coordinate_transformation_mode=mode)
    found = build_graph(bare(net, part), runs=False).shapes.get(part)
    assert found is None or found[2] != "2*h"


def test_parts_and_ranges() -> None:
    net = Net(17, x=("n", "s", 4))
    more = net("Concat", "x", net("Pad", "x", net.ints(0, 1, 0, 0, 1, 0)), axis=1)
    less = net("Slice", more, net.ints(1), net.ints(-1), net.ints(1))
    too_much = net("Slice", "x", net.ints(1), net.ints(2**62), net.ints(1))
    steps = net("Range", np.int64(0), net("Squeeze", one(net, 1)), np.int64(1))
    shapes = build_graph(bare(net, more, less, too_much, steps), runs=False).shapes
    assert shapes[more] == ("n", "2+2*s", 4)
    assert shapes[less] == ("n", "2*s", 4)
    assert shapes[too_much][1] not in ("s", "-1+s")
    assert shapes[steps] == ("s",)


def test_sizes_that_get_too_long_are_let_go() -> None:
    net = Net(17, x=("n", 3, "h", "w"))
    x = net("Conv", "x", net.random(3, 3, 3, 3), strides=[2, 2])
    for _ in range(60):
        x = net("Conv", x, net.random(3, 3, 3, 3), pads=[1, 2, 1, 1], strides=[2, 2])
    many = one(net, 0)
    for axis in (0, 2, 3) * 5:
        many = net("Mul", net("Add", many, net.ints(1)), one(net, axis))
    made = fill(net, many)
    shapes = build_graph(bare(net, x, made), runs=False).shapes
    assert shapes[x][:2] == ("n", 3)
    assert all(
        isinstance(size, str) and len(size) < 300 for size in (*shapes[x][2:], *shapes[made])
    )


def test_a_part_that_is_not_known_leaves_the_others() -> None:
    net = Net(17, x=("n", 8, "h", 6))
    any_size = net("Unsqueeze", net("Cast", net("ReduceMax", "x", keepdims=0), to=7), net.ints(0))
    made = fill(net, net("Concat", one(net, 2), any_size, net.ints(4), axis=0))
    first, second, third = build_graph(bare(net, made), runs=False).shapes[made]
    assert (first, third) == ("h", 4)
    assert second not in ("h", None) and isinstance(second, str)


def test_a_weight_tells_what_it_is_multiplied_with() -> None:
    net = Net(17, x=("n", 8, "h", "w"))
    flat = net("Reshape", "x", net("Concat", one(net, 0), net.ints(-1), axis=0))
    made = net("Gemm", flat, net.random(5, 96), transB=1)
    assert build_graph(bare(net, made), runs=False).shapes[flat] == ("n", 96)


@pytest.mark.parametrize("name", ["None", "?", "-1", "unk"])
def test_a_name_for_all_that_is_unknown_is_none(name: str) -> None:
    net = Net(17, x=(name, name, 4))
    shown = net("Relu", "x")
    first, second, last = build_graph(bare(net, shown), runs=False).shapes[shown]
    assert first != second
    assert last == 4


def test_what_is_declared_comes_first() -> None:
    net = Net(17, x=("n", "s", 4))
    rows = net("Reshape", "x", net.ints(-1, 4))
    shown = net("Relu", rows)
    found = build_graph(bare(net, shown, declared={rows: (12, 4)}), runs=False).shapes
    assert found[rows] == (12, 4)
    found = build_graph(bare(net, shown, declared={rows: ("rows", 4)}), runs=False).shapes
    assert found[rows] == ("n*s", 4)


def test_what_callers_call_an_output_comes_last() -> None:
    net = Net(17, x=("n", 8))
    both = net("Concat", "x", "x", axis=0)
    model = bare(net, both)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info(both, TensorProto.FLOAT, ["n", 8]))
    unnamed = net("Relu", "x")
    model.graph.node.append(net.nodes[-1])
    model.graph.output.append(helper.make_tensor_value_info(unnamed, TensorProto.FLOAT, ["out", 8]))
    shapes = build_graph(model, runs=False).shapes
    assert shapes[both] == ("2*n", 8)
    assert shapes[unnamed] == ("n", 8)


def test_only_nodes_that_leave_something_open_are_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    inferred = list[str]()
    infer = shape_inference.infer_node_outputs

    def noted(schema: Any, node: onnx.NodeProto, *args: Any) -> Any:
        inferred.append(node.op_type)
        return infer(schema, node, *args)

    monkeypatch.setattr(shape_inference, "infer_node_outputs", noted)
    net = Net(17, x=("n", 8, 6, 6))
    made = net("Softplus", net("Relu", net("Sigmoid", "x")))
    model = bare(net, made)
    declared = helper.make_tensor_value_info(made, TensorProto.FLOAT, ["out", 8, 6, 6])
    model.graph.output[0].CopyFrom(declared)
    assert build_graph(model, runs=False).shapes[made] == ("n", 8, 6, 6)
    assert inferred == ["Softplus"]


def test_a_weight_tells_more_than_the_name_of_an_input() -> None:
    net = Net(17, x=("n", "c", "h", "w"))
    shown = net("Relu", "x")
    made = net("Conv", shown, net.random(4, 8, 3, 3))
    assert build_graph(bare(net, made), runs=False).shapes[shown] == ("n", 8, "h", "w")


def test_a_default_that_may_be_overridden_is_no_value() -> None:
    net = Net(17, x=("n", 8))
    wanted = net.constant(np.array([4, -1], np.int64), "wanted")
    made = net("Reshape", "x", wanted)
    model = bare(net, made)
    assert build_graph(model, runs=False).shapes[made][0] == 4
    model.graph.input.append(helper.make_tensor_value_info("wanted", TensorProto.INT64, [2]))
    assert build_graph(model, runs=False).shapes[made][0] != 4


def never(*_: Any) -> Any:
    raise AssertionError("nothing needs this")


def test_models_whose_shapes_are_known_are_not_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "trace", never)
    monkeypatch.setattr(tensors, "observe", never)
    net = Net(17, x=("n", 3, 8, 8))
    made = net("Relu", net("Conv", "x", net.random(4, 3, 3, 3)))
    assert build_graph(bare(net, made)).shapes[made] == ("n", 4, 6, 6)


def unseen(net: Net, x: str = "x") -> str:
    """Something whose shape neither onnx nor a table knows: (n, s, 4) as it comes in."""
    return net("TransposeMatMul", x, net.random(4, 4), domain="com.microsoft")


def test_models_run_only_where_a_shape_is_lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "observe", never)
    net = Net(17, x=("n", "s", 4))
    rows = net("Reshape", "x", net.ints(-1, 4))
    assert build_graph(bare(net, rows)).shapes[rows] == ("n*s", 4)
    graph = build_graph(bare(net, unseen(net)))  # Nobody asks for its shapes.
    with pytest.raises(AssertionError):
        _ = graph.shapes
    unheard = Net(17, x=("n", "s", 4))
    made = unseen(unheard)
    assert made not in build_graph(bare(unheard, made), runs=False).shapes


def test_without_verification_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "observe", never)
    monkeypatch.setattr(witness, "_Probe", never)
    net = Net(17, x=("n", "s", 4))
    model = bare(net, net("MatMul", unseen(net), net.random(4, 2), name="reader"))
    masks = {"version": 1, "masks": {"reader": {"input": [1]}}}
    result = onnx_upscale.optimize(model, masks, verify=False, inputs={"x": (1, 2, 4)})
    assert result.report["input"]["macs"] == 0


def test_two_runs_tell_numbers_from_names() -> None:
    net = Net(17, x=("n", "s", 4))
    made = unseen(net)
    rows = net("Reshape", made, net.ints(-1, 4))
    shapes = build_graph(bare(net, rows)).shapes
    assert shapes[made] == ("n", "s", 4)
    assert shapes[rows] == ("n*s", 4)


def test_a_model_that_runs_at_given_sizes_only() -> None:
    net = Net(17, x=("n", "s", 4))
    made = net("Reshape", unseen(net), net.ints(2, 3, 4))
    model = bare(net, made)
    assert net.nodes[0].output[0] not in build_graph(model).shapes
    first, second, last = build_graph(model, {"x": (2, 3, 4)}).shapes[net.nodes[0].output[0]]
    assert not any(isinstance(size, int) for size in (first, second, last))  # No two sizes.


def test_without_open_sizes_other_values_are_the_second_run() -> None:
    net = Net(17, x=(2, 6))
    found = net("NonZero", net("Relu", "x"))
    shown = net("Cast", found, to=TensorProto.FLOAT)
    made = net("TransposeMatMul", net("Transpose", shown), net.random(2, 4), domain="com.microsoft")
    rows, four = build_graph(bare(net, made)).shapes[made]
    assert four == 4
    assert not isinstance(rows, int)


TWO = (Run({"n": 1, "s": 16}, {"t": (1, 16, 8)}), Run({"n": 2, "s": 24}, {"t": (2, 24, 8)}))


@pytest.mark.parametrize(
    ("claimed", "wrong"),
    [
        (("n", "s", 8), False),
        (("n", "s", 4), True),
        (("s", "n", 8), True),
        (("n", None, 8), False),
        (("n", "~7", 8), False),
        (("n", "s"), True),
        (("n", "16*n", 8), True),
    ],
)
def test_a_run_contradicts_what_is_not_so(claimed: Shape, wrong: bool) -> None:
    assert Witness(TWO, {}, complete=True).contradicts("t", claimed) is wrong


def test_what_two_names_may_mean_stays_open() -> None:
    both = tuple(Run({"h": size, "w": size}, {"t": (size, 3)}) for size in (64, 128))
    assert Witness((both[0], both[1]), {}, complete=True).shape("t") == (None, 3)
    assert Witness(TWO, {}, complete=True).shape("t") == ("n", "s", 8)
    assert Witness(TWO, {}, complete=False).shape("t") == ("n", "s", None)
    assert Witness(TWO, {}, complete=True).shape("other") is None


def test_a_shape_that_a_run_contradicts_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(slim: onnx.ModelProto, overridable: frozenset[str], found: Found) -> Found:
        traced = trace(slim, overridable, found)
        return Found({**traced.shapes, rows: (5, 4)}, traced.types)

    net = Net(17, x=("n", "s", 4))
    rows = net("Reshape", unseen(net), net.ints(-1, 4))
    model = bare(net, rows)
    assert rows in build_graph(model).shapes
    monkeypatch.setattr(tensors, "trace", wrong)
    assert rows not in build_graph(model).shapes


def test_a_matrix_on_the_right_needs_no_rank() -> None:
    net = Net(17, x=("n", "s", 4))
    hidden = net("Nobody", "x", domain="com.example")
    made = net("MatMul", hidden, net.random(4, 8), name="first")
    net("MatMul", net("Relu", made), net.random(8, 2), name="second")
    model = bare(net, "second.0")
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    result = onnx_upscale.optimize(
        model, {"version": 1, "masks": {"second": {"input": [1, 2]}}}, verify=False
    )
    stored = {tensor.name: tensor for tensor in result.model.graph.initializer}
    second = next(node for node in result.model.graph.node if node.name == "second")
    assert not numpy_helper.to_array(stored[second.input[1]])[1:3].any()
    assert weight_shape(result.model, "first") == (4, 8)
    with pytest.raises(MaskError, match="shapes it works on are not known"):
        onnx_upscale.optimize(
            model, {"version": 1, "masks": {"second": {"output": [1]}}}, verify=False
        )
