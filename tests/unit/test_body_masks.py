"""What masks call layers in bodies, what they refuse, and where that is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnx_upscale
from bodies_checks import NO, YES, assert_equal, bodies
from bodies_net import IMAGE, choice, lent, looped
from mask_document import Masks, document
from onnx_upscale import tables
from onnx_upscale.errors import MaskError, VerifyError
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.load.keys import layer_key
from onnx_upscale.optimizer.load.layers import layers


@pytest.mark.parametrize("key", ["y2", "y2.weight", "y2.out"])
def test_layers_are_named_as_outside_behind_the_path(key: str) -> None:
    one = onnx_upscale.optimize(choice({}), document({f"{YES}/{key}.input": [0, 3]}))
    other = onnx_upscale.optimize(choice({}), document({f"{YES}/y2.input": [0, 3]}))
    assert one.content == other.content
    assert one.report.masks.targets == 1


def test_nodes_without_a_name_are_called_by_what_they_make() -> None:
    def unnamed(masks: Masks) -> onnx.ModelProto:
        model = choice({key.replace("choice.out", "choice"): each for key, each in masks.items()})
        for node in (*model.graph.node, *(n for each in bodies(model.graph) for n in each.node)):
            node.ClearField("name")
        return model

    masks = {
        "choice.out/then_branch/y1.out.output": [1, 2],
        "choice.out/else_branch/n2.out.input": [1],
    }
    made = onnx_upscale.optimize(unnamed({}), document(masks), strategy="gather")
    named = {f"{YES}/y1.output": [1, 2], f"{NO}/n2.input": [1]}
    assert_equal(unnamed(named), made.model)
    written = {each.node for segment in made.report.segments for each in segment.writers}
    assert "choice.out/then_branch/y1.out" in written


REFUSED: dict[str, tuple[str, Any, str]] = {
    "length": (
        f"{YES}/y2",
        {"input": {"mask": [1, 0]}},
        "mask has 2 entries, but the layer has 12 channels",
    ),
    "range": (f"{NO}/n1", {"output": [10]}, "channel 10 is out of range: use 0 to 9"),
    "no layer": (
        f"{YES}/y.act",
        {"input": [0]},
        "node 'y.act' is a Relu, which has no channels to mask",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_as_outside(case: str) -> None:
    key, sides, said = REFUSED[case]
    with pytest.raises(MaskError) as caught:
        onnx_upscale.optimize(choice({}), {"version": 1, "masks": {key: sides}})
    (side,) = sides
    assert str(caught.value) == f"mask '{key}', side '{side}': {said}"


def test_the_closest_names_may_be_in_a_body() -> None:
    with pytest.raises(MaskError, match=f"no such layer in the model; closest: {YES}/y2"):
        onnx_upscale.optimize(choice({}), document({f"{YES}/y2.wieght.input": [0]}))


def test_why_nothing_leaves_a_body_is_said() -> None:
    made = onnx_upscale.optimize(choice({}), document({f"{YES}/y1.input": [0]}))
    (warning,) = made.report.warnings
    assert f"{YES}/y1 (input): it reads an input" in warning


def test_an_error_in_a_body_is_found() -> None:
    masks = document({f"{YES}/y2.input": [0, 3]})
    made = onnx_upscale.optimize(choice({}), masks).model
    assert onnx_upscale.verify(choice({}), masks, made).ok
    body = next(each for each in bodies(made.graph) if each.name == "yes")
    bias = next(tensor for tensor in body.initializer if tensor.name == "y1.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 1, bias.name))
    with pytest.raises(VerifyError):
        onnx_upscale.verify(choice({}), masks, made)


def test_a_weight_that_bodies_read_is_no_name_of_a_layer_outside() -> None:
    graph = load(lent({})).graph
    assert [layer_key(graph, layer) for layer in layers(graph)] == ["e", "last.weight"]


def test_recovery_refuses_masks_in_bodies() -> None:
    samples = [{"x": np.ones(IMAGE, np.float32)}] * 8
    masks, said = document({"loop/body/s2.input": [0]}), "mask on 's2' in 'loop/body': what the"
    with pytest.raises(MaskError, match=said):
        onnx_upscale.recover(looped({}), masks, samples)
    with pytest.raises(MaskError, match=said):
        onnx_upscale.optimize(looped({}), masks, recover=samples)


def test_bodies_are_analyzed() -> None:
    analyzed = onnx_upscale.analyze(choice({}), document({f"{YES}/y2.input": [0, 3]}))
    rows = tables.coupled(tables.plans_of(analyzed, "cpu-avx512"))
    assert [row.id for row in rows] == list(range(len(rows)))
    assert {f"{YES}/y2": 10, f"{YES}/y3": 12} in [row.readers for row in rows]


def test_the_name_of_a_weight_behind_a_path_means_layers_there_alone() -> None:
    masks = document({f"{YES}/both.input": [1, 2]})
    made = onnx_upscale.optimize(lent({}), masks, strategy="gather")
    assert made.report.masks.targets == 1
    assert_equal(lent({f"{YES}/b.input": [1, 2]}), made.model)
