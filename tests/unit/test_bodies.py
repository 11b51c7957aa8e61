"""Layers in the bodies of If, Loop and Scan: masked by their path, and channels leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_upscale
from bodies_checks import NO, YES, all_names, assert_equal, bodies, inputs, weights
from bodies_net import FLAG, IMAGE, Part, choice, lent, looped, nested, recalled, scanned
from build import assert_close, run
from mask_document import Masks, document
from onnx_upscale.running import input_sizes, random_inputs
from targets import TARGETS

Build = Callable[[Masks], onnx.ModelProto]

TRIED = ("as built in", "copies free, blocks of 1", "copies dear", "multiply-adds free")
WAYS = [*(("auto", each) for each in TRIED), ("upscale", TRIED[0]), ("gather", TRIED[0])]
CASES: dict[str, tuple[Build, Masks]] = {
    "one branch": (choice, {f"{YES}/y2.input": [0, 3, 5], f"{YES}/y3.input": [0, 3, 5]}),
    "the other": (choice, {f"{NO}/n1.output": [1, 4, 9], f"{NO}/n2.input": [0]}),
    "both": (choice, {f"{YES}/y1.output": [2, 11], f"{NO}/n2.input": [3, 4, 5]}),
    "both and around": (
        choice,
        {
            f"{YES}/y2.input": range(6),
            f"{YES}/y3.input": range(4, 10),
            f"{NO}/n1.output": range(5),
            "stem.output": [1],
            "last.input": [0, 2],
        },
    ),
    "all of a layer": (choice, {f"{YES}/y1.output": range(12), f"{NO}/n2.input": range(10)}),
    "carried": (looped, {"loop/body/l2.input": [0, 1, 2], "loop/body/s1.output": [7, 8]}),
    "readers differ": (
        looped,
        {"loop/body/s2.input": [0, 2, 4, 6, 8], "loop/body/s3.input": [0, 1, 2, 10]},
    ),
    "no shapes": (
        lambda masks: looped(masks, None),
        {"loop/body/l1.output": [0, 1, 2], "loop/body/s2.input": [1], "loop/body/s3.input": [1]},
    ),
    "scanned": (scanned, {"scan/body/up.output": [0, 5], "scan/body/down.input": range(7, 16)}),
    "lent to one": (lent, {"alone.output": [0, 7], f"{YES}/b.input": [1, 2]}),
    "lent to both": (lent, {"both.input": [1, 2, 3], "both.output": [3]}),
    "lent and read around": (
        lent,
        {"main.output": [0, 1], "last.input": [2], f"{NO}/d.input": [5]},
    ),
    "lent to one of two": (
        lent,
        {f"{NO}/c.output": [4, 5], f"{YES}/b.input": [0], "last.input": [3]},
    ),
    "lent and turned": (lent, {"turned.input": [0, 5], f"{YES}/a.output": [9]}),
    "hidden units": (
        recalled,
        {f"{YES}/lstm.input": [0], f"{YES}/lstm.output": [1, 4], f"{YES}/of_units.input": [2]},
    ),
    "nested": (
        nested,
        {
            "loop/body/inner/then_branch/deep.input": [0, 1, 2, 3],
            "loop/body/inner/then_branch/up.output": [9],
            "loop/body/inner/else_branch/of_wide.input": [4],
            "loop/body/narrow.input": [4, 5],
        },
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_emitted_equals_the_masked_model(case: str) -> None:
    build, masks = CASES[case]
    original, wanted = build({}), build(masks)
    content = original.SerializeToString(deterministic=True)
    for strategy, target in WAYS:
        made = onnx_upscale.optimize(
            original, document(masks), strategy=strategy, target=TARGETS[target]
        )
        assert made.report.verify.ok
        assert not made.report.verify.warnings
        assert_equal(wanted, made.model)
    # Zeros in the weights do the same without masks.
    assert_equal(wanted, onnx_upscale.optimize(wanted, strategy="gather").model)
    assert original.SerializeToString(deterministic=True) == content


def test_hidden_units_leave_a_branch() -> None:
    masks = {f"{YES}/lstm.output": [1, 4]}
    made = onnx_upscale.optimize(recalled({}), document(masks), strategy="gather").model
    found = weights(made.graph)
    assert (found["w"], found["r"], found["b"]) == ((1, 16, 5), (1, 16, 4), (1, 32))
    assert found["of_units.weight"] == (4, 3)


@pytest.mark.parametrize("case", CASES)
def test_grown_masks_agree_in_bodies_as_well(case: str) -> None:
    build, masks = CASES[case]
    made = onnx_upscale.optimize(build({}), document(masks), strategy="constrained")
    assert made.report.verify.ok
    assert made.report.copies.count == 0
    onnx.checker.check_model(made.model, full_check=True)


def test_channels_leave_by_count() -> None:
    build, masks = CASES["both"]
    made = onnx_upscale.optimize(build({}), document(masks), strategy="gather")
    found = weights(made.model.graph)
    assert [found[f"{name}.weight"][:2] for name in ("y1", "y2", "y3")] == [
        (10, 3),
        (4, 10),
        (4, 10),
    ]
    assert (found["n1.weight"][0], found["n2.weight"][1]) == (7, 7)
    assert made.report.masks == onnx_upscale.report.MaskCounts(2, 3, 2)


@pytest.mark.parametrize(
    ("way", "target"), [("slice", "copies free, blocks of 1"), ("zero-fill", "copies dear")]
)
def test_readers_in_bodies_get_along_in_every_way(way: str, target: str) -> None:
    masks = {f"{YES}/y2.input": range(6), f"{YES}/y3.input": range(6, 12)}
    made = onnx_upscale.optimize(choice({}), document(masks), target=TARGETS[target])
    readers = {each.node: each for segment in made.report.segments for each in segment.readers}
    assert {readers[f"{YES}/y2"].realization, readers[f"{YES}/y3"].realization} == {way}
    assert_equal(choice(masks), made.model)


def test_a_model_without_masks_stays_as_it_is() -> None:
    for build in (choice, looped, scanned, nested, lent):
        assert onnx_upscale.optimize(build({}), strategy="gather").model == build({})


def test_what_only_a_body_read_does_not_stay_outside() -> None:
    """Neither an initializer, nor the node that made a constant of one, with that."""
    masks = document({"deep.weight.input": [0, 1, 2, 3]})
    made = onnx_upscale.optimize(nested({}), masks, strategy="gather")
    assert weights(made.model.graph)["deep.weight"] == (3, 6, 1, 1)
    assert made.report.input.params - made.report.output.params == 4 * (3 + 1 + 3)
    made = onnx_upscale.optimize(lent({}), document({"turned.input": [0, 5]}), strategy="gather")
    assert "turned" not in weights(made.model.graph)
    assert not [node for node in made.model.graph.node if node.op_type == "Transpose"]


def test_what_others_read_stays_outside_as_it_is() -> None:
    made = onnx_upscale.optimize(lent({}), document({f"{NO}/c.output": [4, 5]}), strategy="gather")
    found = weights(made.model.graph)
    assert found["main"] == (10, 3, 1, 1)
    assert (8, 3, 1, 1) in found.values()


def test_bodies_that_make_the_same_of_a_weight_share_it() -> None:
    masks = {"both.input": [1, 2, 3], f"{YES}/a.output": [1, 2, 3], f"{NO}/c.output": [1, 2, 3]}
    made = onnx_upscale.optimize(lent({}), document(masks), strategy="gather")
    found = weights(made.model.graph)
    assert found["both"] == (4, 7, 1, 1)
    assert list(found.values()).count((4, 7, 1, 1)) == 1
    assert_equal(lent(masks), made.model)


@pytest.mark.parametrize("case", ["both and around", "readers differ", "nested", "lent to one"])
def test_new_names_are_new_everywhere(case: str) -> None:
    build, masks = CASES[case]

    def crowded(names: set[str], masks: Masks) -> onnx.ModelProto:
        model = build(masks)
        for name in sorted(names):
            model.graph.node.append(helper.make_node("Identity", ["x"], [name], f"{name}!"))
            model.graph.output.append(helper.make_tensor_value_info(name, 1, IMAGE))
        return model

    for strategy, target in WAYS:
        options: dict[str, Any] = {"strategy": strategy, "target": TARGETS[target]}
        plain = onnx_upscale.optimize(build({}), document(masks), **options)
        names = all_names(plain.model.graph) - all_names(build({}).graph)
        assert names or strategy == "auto"
        made = onnx_upscale.optimize(crowded(names, {}), document(masks), **options)
        assert_equal(crowded(names, masks), made.model)


def test_a_body_hides_no_new_name_of_the_main_graph() -> None:
    """Where a body makes a tensor of the name that the main graph would give to a new one."""
    masks = {"loop/body/s2.input": [0], "beside.output": [1]}

    def build(masks: Masks, name: str = "") -> onnx.ModelProto:
        model = looped(masks)
        part = Part(masks)
        first = part("Relu", part.conv("x", "beside", 3, 8), name="beside.act")
        second = part("Add", part.conv(first, "p", 8, 2), part.conv(first, "q", 8, 2), name="pq")
        model.graph.node.extend(part.nodes)
        model.graph.initializer.extend(part.weights)
        model.graph.output.append(helper.make_tensor_value_info(second, 1, (1, 2, 6, 6)))
        if name:
            body = next(bodies(model.graph))
            body.node.append(helper.make_node("Relu", ["state"], [name], "idle"))
        return model

    own = {"p.input": [0, 1, 2], "q.input": [5, 6]}
    plain = onnx_upscale.optimize(build({}), document({**masks, **own}), strategy="gather")
    (copy, *_) = [n.output[0] for n in plain.model.graph.node if n.op_type in ("Slice", "Gather")]
    made = onnx_upscale.optimize(build({}, copy), document({**masks, **own}), strategy="gather")
    assert_equal(build({**masks, **own}, copy), made.model)


def stored_outside(model: onnx.ModelProto, ir_version: int) -> onnx.ModelProto:
    """A model of another version, whose bodies have no weights of their own."""
    older = onnx.ModelProto()
    older.CopyFrom(model)
    older.ir_version, older.opset_import[0].version = ir_version, 9
    for body in bodies(older.graph):
        older.graph.initializer.extend(body.initializer)
        del body.initializer[:]
    if ir_version < 4:
        older.graph.input.extend(
            helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            for tensor in older.graph.initializer
        )
    return older


@pytest.mark.parametrize("ir_version", [3, 4])
def test_bodies_of_old_models_get_no_initializers(ir_version: int) -> None:
    """Before IR version 4 they would have to be inputs, which would change the body."""
    masks = {f"{YES}/y2.input": [0, 3], f"{YES}/y3.input": [5], f"{NO}/n1.output": [1]}
    for strategy in ("gather", "auto"):
        model = stored_outside(choice({}), ir_version)
        made = onnx_upscale.optimize(model, document(masks), strategy=strategy)
        for seed, values in enumerate(inputs(choice({}))):
            wanted = run(stored_outside(choice(masks), ir_version), values)
            assert_close(wanted, run(made.model, values), str(seed))
        if ir_version < 4:
            assert not [body for body in bodies(made.model.graph) if body.initializer]
        assert made.report.output.params < made.report.input.params + 64


def test_quantized_weights_outside_are_cut_quantized() -> None:
    model = choice({})
    yes = next(body for body in bodies(model.graph) if body.name == "yes")
    weight = next(tensor for tensor in yes.initializer if tensor.name == "y1.weight")
    whole = np.round(numpy_helper.to_array(weight) * 50).astype(np.int8)
    yes.initializer.remove(weight)
    for name, value in (("q", whole), ("scale", np.float32(0.02)), ("zero", np.int8(0))):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    dequantize = helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y1.weight"], "dq")
    model.graph.node.insert(0, dequantize)
    gone = [0, 3]
    masks = {f"{YES}/y2": {"input": gone}, f"{YES}/y3": {"input": gone}}
    made = onnx_upscale.optimize(model, {"version": 1, "masks": masks}, strategy="gather")
    cut = {t.name: t for body in bodies(made.model.graph) for t in body.initializer}["q.cut"]
    np.testing.assert_array_equal(numpy_helper.to_array(cut), np.delete(whole, gone, 0))
    assert "q" not in weights(made.model.graph)
    assert not [node for node in made.model.graph.node if node.op_type == "DequantizeLinear"]


def test_single_flags_take_both_values_in_turn() -> None:
    model = choice({})
    model.graph.input.append(helper.make_tensor_value_info("other", TensorProto.BOOL, [1]))
    sizes = input_sizes(model)
    drawn = [random_inputs(model, sizes, seed) for seed in (4, 5)]
    for name in ("flag", "other"):
        assert {bool(values[name]) for values in drawn} == {False, True}
    assert drawn[0]["flag"].shape == ()


def test_layers_say_the_rank_of_what_a_body_does_not_declare() -> None:
    masks = document({"loop/body/s2.input": [0, 1], "loop/body/s3.input": [1, 0]})
    made = onnx_upscale.optimize(looped({}, None), masks, strategy="gather")
    assert weights(made.model.graph)["s1.weight"] == (10, 3, 3, 3)
    assert next(bodies(made.model.graph)).input == next(bodies(looped({}, None).graph)).input


def test_sizes_of_what_a_body_captures_are_known() -> None:
    def flattened(masks: Masks) -> onnx.ModelProto:
        main = Part(masks)
        data = main("Relu", "x", name="act")
        graphs = {}
        for key, name in (("then_branch", "y"), ("else_branch", "n")):
            body = main.body(f"choice/{key}")
            inner = body("Relu", body.conv(data, f"{name}1", 3, 4), name=f"{name}.act")
            sizes = body.store(f"{name}.sizes", [1, 144], np.int64)
            flat = body("Reshape", inner, sizes, name=f"{name}.flat")
            out = body.matmul(flat, f"{name}2", 144, 2)
            graphs[key] = body.graph(name, {}, {out: (1, 2)})
        made = main("If", "flag", name="choice", **graphs)
        return main.model({"flag": FLAG, "x": IMAGE}, {made: (1, 2)})

    masks = {f"{YES}/y2.input": range(36, 72)}
    made = onnx_upscale.optimize(flattened({}), document(masks), strategy="gather")
    assert weights(made.model.graph)["y1.weight"] == (3, 3, 1, 1)
    assert_equal(flattened(masks), made.model)
