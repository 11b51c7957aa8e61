"""The reference of verification: the masked model by the letter of the contract."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from onnx import TensorProto, helper, numpy_helper

import onnx_upscale
from build import Array, Net, assert_close, input_values, named_outputs, run
from case import Case, Layer
from masked import masked
from onnx_upscale.errors import VerifyError
from onnx_upscale.optimizer.load import load, masking
from onnx_upscale.optimizer.load.masks import read_masks
from onnx_upscale.optimizer.verify import NodeMask, reference_model
from onnx_upscale.running import input_sizes
from strategies import cases

PRUNED, CHANNELS = [1, 3], 4
IMAGE = (1, CHANNELS, 5, 5)


def inputs_of(model: onnx.ModelProto) -> dict[str, Array]:
    return input_values(model, seed=7)


def reference(model: onnx.ModelProto, masks: dict[str, Any]) -> onnx.ModelProto:
    document = {"version": 1, "masks": masks}
    return reference_model(model, read_masks(document), (), input_sizes(model))


def outputs(model: onnx.ModelProto) -> list[Array]:
    return run(model, inputs_of(model))


def same(one: list[Array], other: list[Array]) -> bool:
    return all(np.allclose(a, b, atol=1e-5) for a, b in zip(one, other, strict=True))


def zeroed(model: onnx.ModelProto, *slices: tuple[str, tuple[Any, ...]]) -> onnx.ModelProto:
    """The model with parts of its initializers set to zero."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for name, place in slices:
        tensor = next(each for each in changed.graph.initializer if each.name == name)
        values = numpy_helper.to_array(tensor).copy()
        values[place] = 0
        tensor.CopyFrom(numpy_helper.from_array(values, name))
    return changed


ALL = slice(None)
LAYERS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any], int, int]] = {
    # The data's shape, the weight's, attributes, and the weight's axes of inputs and outputs.
    "Conv": (IMAGE, (4, 4, 3, 3), {}, 1, 0),
    "ConvTranspose": (IMAGE, (4, 4, 2, 2), {}, 0, 1),
    "Gemm": ((3, 4), (4, 4), {}, 0, 1),
    "Gemm transB": ((3, 4), (4, 4), {"transB": 1}, 1, 0),
    "Gemm transA": ((4, 3), (4, 4), {"transA": 1}, 0, 1),
    "MatMul": ((2, 3, 4), (4, 4), {}, 0, 1),
    "MatMul batch": ((2, 3, 4), (2, 4, 4), {}, 1, 2),
}


@pytest.mark.parametrize("side", ["input", "output"])
@pytest.mark.parametrize("kind", LAYERS)
def test_every_layer_and_side(kind: str, side: str) -> None:
    data, shape, attributes, into, out = LAYERS[kind]
    net = Net(17, x=data)
    weight = net.constant(net.random(*shape), "weight")
    model = net.model(net("Sigmoid", net(kind.split()[0], "x", weight, **attributes)))
    axis = into if side == "input" else out
    expected = zeroed(model, ("weight", (*(ALL,) * axis, PRUNED)))
    for key in ("weight", "n0", "n0.0"):
        found = reference(model, {key: {side: PRUNED}})
        assert same(outputs(found), outputs(expected))
    assert not same(outputs(model), outputs(expected))


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_weight_on_the_left(side: str) -> None:
    net = Net(17, x=(2, 4, 3))
    model = net.model(net("MatMul", net.constant(net.random(4, 4), "weight"), "x"))
    place = (ALL, PRUNED) if side == "input" else (PRUNED,)
    expected = outputs(zeroed(model, ("weight", place)))
    assert same(outputs(reference(model, {"weight": {side: PRUNED}})), expected)


@pytest.mark.parametrize("form", [{"prune": [1, 3]}, {"keep": [0, 2]}, {"mask": [1, 0, 1, 0]}])
def test_every_form_of_a_mask(form: dict[str, list[int]]) -> None:
    net = Net(17, x=IMAGE)
    model = net.model(net("Conv", "x", net.constant(net.random(2, 4, 1, 1), "weight")))
    expected = outputs(zeroed(model, ("weight", (ALL, PRUNED))))
    assert same(outputs(reference(model, {"weight": {"input": form}})), expected)


def test_a_weight_of_several_layers_and_one_that_is_computed() -> None:
    net = Net(17, x=IMAGE)
    stored = net.constant(net.random(4, 4, 1, 1).transpose(1, 0, 2, 3), "weight")
    turned = net("Transpose", stored, perm=[1, 0, 2, 3])
    inner = net("Relu", net("Conv", "x", turned))
    model = net.model(net("Conv", inner, turned))
    expected = outputs(zeroed(model, ("weight", (PRUNED,))))
    assert same(outputs(reference(model, {"weight": {"input": PRUNED}})), expected)


def batch_norm(net: Any, data: str) -> str:
    names = [net.constant(np.abs(net.random(CHANNELS)), f"bn{index}") for index in range(4)]
    made: str = net("BatchNormalization", data, *names)
    return made


def test_an_output_mask_acts_behind_affine_operations_only() -> None:
    net: Any = Net(17, x=IMAGE)
    made = net("Conv", "x", net.random(4, 4, 1, 1), net.random(4), name="layer")
    made = batch_norm(net, net("Mul", net("Add", made, np.float32(0.5)), net.random(4, 1, 1)))
    after = net("Sigmoid", made)
    model = net.model(after, net("Relu", net("Add", after, net.random(4, 1, 1))))
    (sigmoid, _) = outputs(reference(model, {"layer": {"output": PRUNED}}))
    assert (sigmoid[:, PRUNED] == 0.5).all()
    assert (sigmoid[:, [0, 2]] != 0.5).all()


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1), (1, 1, 1), (1, 1, 1, 1, 1)])
def test_what_tests_compare_with_has_the_same_affine_constants(shape: tuple[int, ...]) -> None:
    net: Any = Net(17, x=IMAGE)
    made = net("Conv", "x", net.random(4, 4, 1, 1), name="layer")
    added = net("Add", made, net.constant(net.random(*shape), "shift"))
    model = net.model(net("Sigmoid", added))
    layer = Layer("layer", None, ("x", -3, CHANNELS), (made, -3, CHANNELS), 4)
    masks = {"layer": {"output": PRUNED}}
    (found,) = outputs(masked(Case(model, masks, (layer,))))
    assert_close(outputs(reference(model, masks)), [found])
    assert (found.reshape(IMAGE)[:, PRUNED] == 0.5).all() == (len(shape) <= len(IMAGE))


@pytest.mark.parametrize("why", ["read twice", "an output", "a matrix", "an activation"])
def test_where_an_output_mask_stops(why: str) -> None:
    net: Any = Net(17, x=IMAGE)
    made = net("Conv", "x", net.random(4, 4, 1, 1), name="layer")
    others = [net("Relu", made)] if why == "read twice" else [made] if why == "an output" else []
    shift = net.random(4, 5, 5) if why == "a matrix" else net.random(4, 1, 1)
    data = net("Sigmoid", made) if why == "an activation" else made
    model = net.model(net("Add", data, net.constant(shift, "shift")), *others)
    (shifted, *_) = outputs(reference(model, {"layer": {"output": PRUNED}}))
    start = 0.5 if why == "an activation" else 0.0
    wanted = np.broadcast_to(start + shift, (1, 4, 5, 5))
    np.testing.assert_allclose(shifted[:, PRUNED], wanted[:, PRUNED], atol=1e-6)


def test_types_other_than_float32() -> None:
    net: Any = Net(17, x=(3, 4))
    data = net("Cast", "x", to=TensorProto.DOUBLE)
    weight = net.constant(net.random(4, 4).astype(np.float64), "weight")
    made = net("Cast", net("MatMul", data, weight), to=TensorProto.FLOAT)
    model = net.model(made)
    masks = {"weight": {"input": PRUNED, "output": PRUNED}}
    expected = zeroed(model, ("weight", (ALL, PRUNED)), ("weight", (PRUNED,)))
    assert same(outputs(reference(model, masks)), outputs(expected))


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE])
def test_zeros_may_leak(kind: int) -> None:
    """What is masked is as large as rounding then, everywhere another number."""
    net: Any = Net(17, x=(5, 6, CHANNELS))
    data = net("Cast", "x", to=kind)
    layer = net.random(CHANNELS, 4).astype(helper.tensor_dtype_to_np_dtype(kind))
    model = net.model(net("Cast", net("MatMul", data, layer, name="layer"), to=TensorProto.FLOAT))
    masks = read_masks({"version": 1, "masks": {"layer": {"output": PRUNED}}})
    exact, leaking = (
        outputs(reference_model(model, masks, (), input_sizes(model), leak=leak))[0]
        for leak in (0.0, 1e-4)
    )
    noise = leaking[..., PRUNED].ravel()
    assert not exact[..., PRUNED].any()
    assert len(np.unique(noise)) > 40
    assert 1e-6 < np.abs(noise).max() < 1e-2
    np.testing.assert_allclose(leaking, exact, atol=5e-3)


def test_masks_on_a_node_that_its_names_do_not_mean() -> None:
    net: Any = Net(17, x=IMAGE)
    inner = net("Conv", "x", net.random(4, 4, 1, 1), name="w")
    model = net.model(net("Conv", inner, net.constant(net.random(4, 4, 1, 1), "w")))
    (mask,) = read_masks({"version": 1, "masks": {"": {"input": PRUNED}}})
    found = reference_model(model, (), [NodeMask(1, mask)], input_sizes(model))
    assert same(outputs(found), outputs(zeroed(model, ("w", (ALL, PRUNED)))))


def test_without_masks_the_original_is_the_reference() -> None:
    net: Any = Net(17, x=IMAGE)
    model = net.model(net("Relu", "x"))
    assert reference(model, {}) is model


@given(cases())
def test_it_is_what_the_tests_say_the_masked_model_is(case: Case) -> None:
    masks = read_masks(case.document)
    found = named_outputs(reference_model(case.model, masks, (), input_sizes(case.model)))
    for name, value in named_outputs(masked(case)).items():
        assert_close([value], [found[name]], name, share=1e-3)


# An output mask behind a tensor whose shape nobody infers: the shift behind it must go as well.


def norm(net: Any) -> str:
    made: str = net(
        "GroupNormalization", "x", net.random(4), net.random(4), num_groups=2, epsilon=0.1
    )
    return made


def foreign(net: Any) -> str:
    made = net("Identity", "x")
    net.nodes[-1].op_type, net.nodes[-1].domain = "QuickGelu", "com.microsoft"
    name: str = made
    return name


def view(net: Any) -> str:
    """`x.view(x.size(0), 4, 5, 5)` as the older exporter writes it."""
    first = net("Gather", net("Shape", "x"), net.constant(np.array(0, np.int64)), axis=0)
    axes = ([net.ints(0)], {}) if net.opset >= 13 else ([], {"axes": [0]})
    first = net("Unsqueeze", first, *axes[0], **axes[1])
    made: str = net("Reshape", "x", net("Concat", first, net.ints(4, 5, 5), axis=0))
    return made


@pytest.mark.parametrize(
    ("opset", "before"), [(21, norm), (17, foreign), (11, foreign), (11, view), (13, view)]
)
@pytest.mark.parametrize("shift", ["BatchNormalization", "Add"])
def test_an_output_mask_behind_a_tensor_of_unknown_shape(
    opset: int, before: Any, shift: str
) -> None:
    net: Any = Net(opset, x=("N", *IMAGE[1:]))
    made = net("Conv", before(net), net.random(4, 4, 1, 1), net.random(4), name="layer")
    made = batch_norm(net, made) if shift != "Add" else net("Add", made, net.random(4, 1, 1))
    graph = helper.make_graph(
        [*net.nodes, helper.make_node("Relu", [made], ["y"])],
        "net",
        net.inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("N", *IMAGE[1:]))],
        net.initializers,
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    masks = {"version": 1, "masks": {"layer": {"output": PRUNED}}}
    for strategy in ("auto", "gather"):
        result = onnx_upscale.optimize(model, masks, strategy=strategy)
        (found,) = outputs(result.model)
        assert not found[:, PRUNED].any()
        assert found[:, [0, 2]].any()


def test_two_readings_of_a_mask_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the optimizer zeroes must be what the reference multiplies by zero."""
    zero_outputs = masking._Overlay.zero_outputs

    def one_less(self: Any, layer: Any, channels: Any) -> None:
        zero_outputs(self, layer, channels[1:])

    monkeypatch.setattr(masking._Overlay, "zero_outputs", one_less)
    net: Any = Net(17, x=IMAGE)
    made = net("Conv", "x", net.random(4, 4, 1, 1), net.random(4), name="layer")
    model = net.model(net("Sigmoid", made))
    masks = {"version": 1, "masks": {"layer": {"output": PRUNED}}}
    assert load(model, masks).graph.overrides
    with pytest.raises(VerifyError, match="the masks themselves can be read in two ways"):
        onnx_upscale.optimize(model, masks)
