"""Shape inference runs once where that tells all, and gives what running it twice would."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper, shape_inference

from onnx_upscale.optimizer.load.shapes import infer
from onnx_upscale.optimizer.load.subgraphs import subgraphs

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def model_of(
    nodes: list[onnx.NodeProto],
    shape: list[Any],
    declared: dict[str, list[Any]] | None = None,
    output: list[Any] | None = None,
) -> onnx.ModelProto:
    made = output and helper.make_tensor_value_info("y", FLOAT, output)
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [made or onnx.ValueInfoProto(name="y")],
        [
            helper.make_tensor("one", INT64, [1], [1]),
            helper.make_tensor("rest", INT64, [1], [-1]),
            helper.make_tensor("zero", INT64, [1], [0]),
        ],
        value_info=[
            helper.make_tensor_value_info(name, FLOAT, sizes)
            for name, sizes in (declared or {}).items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def node(op: str, *inputs: str, to: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [to], **attributes)


def reshaped(source: str, to: str, stem: str = "") -> list[onnx.NodeProto]:
    """A Reshape whose sizes are computed from a shape, which only their values tell."""
    return [
        node("Shape", source, to=f"{stem}shape"),
        node("Slice", f"{stem}shape", "zero", "one", to=f"{stem}batch"),
        node("Concat", f"{stem}batch", "rest", to=f"{stem}sizes", axis=0),
        node("Reshape", source, f"{stem}sizes", to=to),
    ]


def with_branch() -> list[onnx.NodeProto]:
    branches = {
        name: helper.make_graph(
            [
                *reshaped("x", f"{name}.flat", name),
                node("ReduceMax", f"{name}.flat", to=name, keepdims=0),
            ],
            name,
            [],
            [onnx.ValueInfoProto(name=name)],
        )
        for name in ("then_branch", "else_branch")
    }
    flag = node("Constant", to="flag", value=helper.make_tensor("flag", TensorProto.BOOL, [], [1]))
    return [flag, node("If", "flag", to="y", **branches)]


MODELS: dict[str, tuple[onnx.ModelProto, int]] = {
    "numbers": (model_of([node("Relu", "x", to="y")], [2, 3]), 1),
    "a number alone": (model_of([node("ReduceMax", "x", to="y", keepdims=0)], [2, 3]), 1),
    "the name of an input's size": (model_of([node("Relu", "x", to="y")], ["N", 3]), 1),
    "sizes that are computed": (model_of(reshaped("x", "y"), [2, 3, 4]), 2),
    "a name for whatever is not known": (
        model_of([*reshaped("x", "z"), node("Relu", "z", to="y")], ["?", 3, 4], {"z": ["?", "?"]}),
        2,
    ),
    "a name that no input has": (
        model_of([*reshaped("x", "z"), node("Relu", "z", to="y")], [2, 3, 4], {"z": ["A", "B"]}),
        2,
    ),
    "an output with a name of its own": (
        model_of([node("Relu", "x", to="y")], ["N", 3], output=["Y_dim_0", 3]),
        1,
    ),
    "the name of an output for what lies before": (
        model_of(
            [*reshaped("x", "z"), node("Relu", "z", to="y")], [2, 3], {"z": ["A", "B"]}, ["A", "B"]
        ),
        2,
    ),
    "a rank that is not known": (
        model_of(
            [
                node("ArgMax", "x", to="places", axis=1, keepdims=0),
                node("Reshape", "x", "places", to="y"),
            ],
            [2, 3],
        ),
        2,
    ),
    "no tensor": (model_of([node("SequenceEmpty", to="y")], [2, 3]), 2),
    "bodies": (model_of(with_branch(), [2, 3, 4]), 2),
}


@pytest.mark.parametrize("case", MODELS)
def test_it_is_what_following_values_gives(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, runs = MODELS[case]
    as_onnx, followed = shape_inference.infer_shapes, list[bool]()

    def counted(slim: onnx.ModelProto, data_prop: bool = False) -> onnx.ModelProto:
        followed.append(data_prop)
        return as_onnx(slim, data_prop=data_prop)

    monkeypatch.setattr(shape_inference, "infer_shapes", counted)
    found = infer(model).model
    assert followed == [False, True][:runs]
    wanted = as_onnx(model, data_prop=True)
    assert found == wanted


def test_attributes_of_old_files_say_no_type() -> None:
    body = helper.make_graph([], "body", [], [])
    for kind in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.UNDEFINED):
        owner = node("If", "flag", to="y", then_branch=body)
        owner.attribute[0].type = kind
        assert [graph.name for graph in subgraphs(owner)] == ["body"]
    several = onnx.AttributeProto(name="some", type=onnx.AttributeProto.GRAPHS, graphs=[body, body])
    owner.attribute.append(several)
    assert len([*subgraphs(owner)]) == 3
