"""Recovered models, against least squares on what onnxruntime makes of each single weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnx_upscale
from build import Array, Net, node, run
from onnx_upscale import DataError, MaskError, UpscaleError
from onnx_upscale.recovery import Recovered

TINY = 1e-9


def data_of(model: onnx.ModelProto, seed: int = 1) -> dict[str, Array]:
    """One sample that is all there is, with a mean that is not zero."""
    (value,) = model.graph.input
    shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    values = np.random.default_rng(seed).standard_normal(shape) + 0.5
    return {value.name: values.astype(np.float32)}


def stored(model: onnx.ModelProto, name: str) -> Array:
    return next(
        numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name == name
    )


def replaced(model: onnx.ModelProto, name: str, values: Array) -> onnx.ModelProto:
    other = onnx.ModelProto()
    other.CopyFrom(model)
    for tensor in other.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))
    return other


def best_fit(model: onnx.ModelProto, free: Array, shifts: Array | None) -> Array:
    """The output closest to the model's own that free weights and shifts can give.

    Args:
        model: A model of one layer with weight "w", whose output is linear in that.
        free: Which weights are free; the others are zero.
        shifts: Outputs that a bias adds, one per row, or None.
    """
    inputs = data_of(model)
    (wanted,) = run(model, inputs)
    (offset,) = run(replaced(model, "w", np.zeros(free.shape)), inputs)
    design = []
    for place in np.argwhere(free):
        one = np.zeros(free.shape)
        one[tuple(place)] = 1
        design.append((run(replaced(model, "w", one), inputs)[0] - offset).ravel())
    design += [] if shifts is None else [row.ravel() for row in shifts]
    best, *_ = np.linalg.lstsq(np.array(design).T, (wanted - offset).ravel())
    return np.asarray(offset + (np.array(design).T @ best).reshape(wanted.shape))


def per_channel(shape: tuple[int, ...], axis: int) -> Array:
    """A row per channel of an axis, which is one there."""
    rows = np.moveaxis(np.zeros((shape[axis], *shape)), axis + 1, 1)
    rows[np.arange(shape[axis]), np.arange(shape[axis])] = 1
    return np.moveaxis(rows, 1, axis + 1)


def recovered(model: onnx.ModelProto, masks: dict[str, Any], **options: Any) -> Recovered:
    options = {"strength": TINY, **options}
    return onnx_upscale.recover(model, {"version": 1, "masks": masks}, data_of(model), **options)


CONVOLUTIONS: dict[str, tuple[list[int], list[int], dict[str, Any]]] = {
    "plain": ([1, 4, 7, 7], [3, 4, 2, 2], {}),
    "pads": ([1, 4, 5, 6], [3, 4, 3, 2], {"pads": [1, 0, 1, 1]}),
    "strides": ([1, 4, 14, 13], [3, 4, 2, 2], {"strides": [2, 2]}),
    "dilations": ([1, 4, 8, 8], [3, 4, 2, 2], {"dilations": [2, 1]}),
    "groups": ([1, 6, 7, 7], [4, 3, 2, 2], {"group": 2}),
    "same": ([1, 4, 7, 7], [3, 4, 2, 2], {"auto_pad": "SAME_LOWER"}),
}


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str, biased: bool) -> None:
    shape, weight, attributes = CONVOLUTIONS[name]
    net = Net(17, x=shape)
    inputs = [net.constant(net.random(*weight), "w")]
    inputs += [net.constant(net.random(weight[0]), "b")] * biased
    model = net.model(net("Conv", "x", *inputs, name="reader", **attributes))
    done = recovered(model, {"w": {"input": [1]}})
    free = np.ones(weight, bool)
    free[: weight[0] // attributes.get("group", 1), 1] = False
    (got,) = run(done.model, data_of(model))
    wanted = best_fit(model, free, per_channel(got.shape, 1))
    np.testing.assert_allclose(got, wanted, atol=1e-3)
    assert not stored(done.model, "w")[~free].any()
    (row,) = done.report["readers"]
    assert row["error_after"] < row["error_before"]


@pytest.mark.parametrize("turned", [0, 1])
@pytest.mark.parametrize("bias", [(), (3,), (1,), (1, 3), (20, 1), (20, 3)])
def test_gemm(turned: int, bias: tuple[int, ...]) -> None:
    net = Net(17, x=[1, 4, 20] if turned else [1, 20, 4])
    weight = [3, 4] if turned else [4, 3]
    flat = net("Reshape", "x", np.array([4, 20] if turned else [20, 4]))
    inputs = [net.constant(net.random(*weight), "w")]
    inputs += [net.constant(net.random(*bias), "b")] if bias else []
    scales: dict[str, Any] = {"alpha": 0.5, "beta": 2.0}
    model = net.model(net("Gemm", flat, *inputs, transA=turned, transB=turned, **scales))
    done = recovered(model, {"w": {"input": [0, 2]}})
    free = np.ones(weight, bool)
    np.moveaxis(free, turned, 0)[[0, 2]] = False
    (got,) = run(done.model, data_of(model))
    np.testing.assert_allclose(got, best_fit(model, free, per_channel((20, 3), 1)), atol=1e-3)
    assert not stored(done.model, "w")[~free].any()


def test_gemm_whose_bias_does_not_count() -> None:
    net = Net(17, x=[1, 20, 4])
    flat = net("Reshape", "x", np.array([20, 4]))
    model = net.model(net("Gemm", flat, net.constant(net.random(4, 3), "w"), "x2", beta=0.0))
    model = replaced_input(model)
    done = recovered(model, {"w": {"input": [0]}})
    free = np.ones((4, 3), bool)
    free[0] = False
    (got,) = run(done.model, data_of(model))
    np.testing.assert_allclose(got, best_fit(model, free, None), atol=1e-3)


def replaced_input(model: onnx.ModelProto) -> onnx.ModelProto:
    """Gives the model an initializer "x2"."""
    model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "x2"))
    return model


@pytest.mark.parametrize("added", ["nothing", "vector", "scalar", "elsewhere"])
@pytest.mark.parametrize("left", [False, True])
def test_matmul(left: bool, added: str) -> None:
    """What an Add behind it adds takes the shift; without one there is none."""
    net = Net(17, x=[1, 4, 20] if left else [1, 20, 4])
    w = net.constant(net.random(3, 4) if left else net.random(4, 3), "w")
    made = net("MatMul", w, "x") if left else net("MatMul", "x", w)
    if added == "elsewhere":
        model = net.model(net("Add", net("Relu", made), np.float32(2)), made)
    elif added != "nothing":
        value = (
            np.float32(0.5) if added == "scalar" else net.random(3, 1) if left else net.random(3)
        )
        model = net.model(net("Add", made, net.constant(value, "b")))
    else:
        model = net.model(made)
    done = recovered(model, {"w": {"input": [0, 2]}})
    free = np.ones((3, 4) if left else (4, 3), bool)
    np.moveaxis(free, int(left), 0)[[0, 2]] = False
    if added == "elsewhere":
        model = onnx.ModelProto.FromString(model.SerializeToString())
        del model.graph.output[0], model.graph.node[1:]
    got = run(done.model, data_of(model))[-1]
    shifts = per_channel(got.shape, 1 if left else 2) if added in ("vector", "scalar") else None
    np.testing.assert_allclose(got, best_fit(model, free, shifts), atol=1e-3)


def test_matmul_with_a_vector() -> None:
    net = Net(17, x=[1, 20, 4])
    model = net.model(net("MatMul", "x", net.constant(net.random(4), "w")))
    done = recovered(model, {"w": {"input": [3]}})
    free = np.array([True, True, True, False])
    (got,) = run(done.model, data_of(model))
    np.testing.assert_allclose(got, best_fit(model, free, None), atol=1e-3)


@pytest.mark.parametrize("biased", [False, True])
def test_the_weight_inside_an_attention(biased: bool) -> None:
    """What it makes is fitted as that of a product, although no tensor holds it."""
    net = Net(17, x=[2, 9, 6])
    weight, bias = net.random(6, 24), net.random(24) if biased else np.zeros(24, np.float32)
    other = Net(17, x=[2, 9, 6])
    how: dict[str, Any] = {"domain": "com.microsoft", "num_heads": 2}
    inputs = [net.constant(weight, "w"), *([net.constant(bias, "b")] if biased else [])]
    made = net.declare(net("Attention", "x", *inputs, **how), (2, 9, 8))
    product = other("MatMul", "x", other.constant(weight, "w"))
    models = net.model(made), other.model(other("Add", product, other.constant(bias, "b")))
    masks = {"w": {"input": [1, 4]}}
    done, wanted = (recovered(model, masks).model for model in models)
    np.testing.assert_allclose(stored(done, "w"), stored(wanted, "w"), atol=1e-5)
    (attention,) = done.graph.node
    np.testing.assert_allclose(stored(done, attention.input[2]), stored(wanted, "b"), atol=1e-5)
    assert np.abs(stored(done, "w")[0] - weight[0]).max() > 1e-3


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_transposed_convolution(groups: int) -> None:
    """Without overlap, what it spreads is what it makes."""
    net = Net(17, x=[1, 4, 6, 6])
    w = net.constant(net.random(4, 3, 2, 2), "w")
    b = net.constant(net.random(3 * groups), "b")
    model = net.model(net("ConvTranspose", "x", w, b, strides=[2, 2], group=groups))
    done = recovered(model, {"w": {"input": [2]}})
    free = np.ones((4, 3, 2, 2), bool)
    free[2] = False
    (got,) = run(done.model, data_of(model))
    np.testing.assert_allclose(got, best_fit(model, free, None), atol=1e-3)


def test_a_depthwise_convolution_is_scaled_and_shifted() -> None:
    net = Net(17, x=[1, 6, 7, 7])
    first = net("Conv", "x", net.constant(net.random(4, 6, 1, 1), "first"), net.random(4))
    each = net.constant(net.random(4, 1, 3, 3), "w")
    model = net.model(net("Conv", net("Relu", first), each, net.random(4), group=4))
    inputs = data_of(model)
    done = recovered(model, {"first": {"input": [0, 1]}})
    new, old = stored(done.model, "w"), stored(model, "w")
    np.testing.assert_allclose(new, old * (new[:, :, :1, :1] / old[:, :, :1, :1]), rtol=1e-4)
    # The first reader as it was repaired, with the second as it was.
    between = replaced(done.model, "w", old)
    (wanted,), (seen,), (got,) = (run(each, inputs) for each in (model, between, done.model))
    for channel in range(4):
        line = np.polyfit(seen[0, channel].ravel(), wanted[0, channel].ravel(), 1)
        np.testing.assert_allclose(got[0, channel], np.polyval(line, seen[0, channel]), atol=1e-3)


def two_layers() -> tuple[Net, str]:
    net = Net(17, x=[1, 6, 7, 7])
    first = net("Conv", "x", net.constant(net.random(8, 6, 1, 1), "first"), net.random(8))
    active = net("Relu", first)
    second = net("Conv", active, net.constant(net.random(5, 8, 1, 1), "w"), net.random(5))
    return net, second


def test_a_reader_is_fitted_to_what_the_repaired_network_feeds_it() -> None:
    net, out = two_layers()
    model = net.model(out)
    done = recovered(model, {"first": {"input": [0, 1]}, "w": {"input": [3]}})
    exposed = onnx.ModelProto()
    exposed.CopyFrom(done.model)
    exposed.graph.output.append(onnx.ValueInfoProto(name="n1.0"))
    (wanted,), (got, seen) = run(model, data_of(model)), run(exposed, data_of(model))
    design = np.vstack([np.delete(seen[0], 3, 0).reshape(7, -1), np.ones(49)]).T
    best, *_ = np.linalg.lstsq(design, wanted[0].reshape(5, -1).T)
    np.testing.assert_allclose(got[0].reshape(5, -1).T, design @ best, atol=2e-3)


def test_what_loses_nothing_and_lies_behind_nothing_stays() -> None:
    net, out = two_layers()
    model = net.model(out)
    done = recovered(model, {"w": {"input": [3]}})
    np.testing.assert_array_equal(stored(done.model, "first"), stored(model, "first"))
    assert [row["kept"] for row in done.report["readers"]] == [7]
    unchanged = recovered(model, {})
    assert unchanged.report["readers"] == []
    assert unchanged.content == model.SerializeToString(deterministic=True)


def test_output_masks_stay_and_their_readers_are_repaired() -> None:
    net, out = two_layers()
    model = net.model(out)
    done = recovered(model, {"first": {"output": [2, 5]}})
    assert not stored(done.model, "first")[[2, 5]].any()
    first = model.graph.node[0].input[2]
    np.testing.assert_array_equal(
        stored(done.model, first), np.where(np.isin(np.arange(8), [2, 5]), 0, stored(model, first))
    )
    assert not stored(done.model, "w")[:, [2, 5]].any()
    assert [row["kept"] for row in done.report["readers"]] == [6]
    small = onnx_upscale.optimize(done.model, None)
    assert small.report.output.params == 6 * 6 + 6 + 6 * 5 + 5


def test_a_weight_of_several_readers_becomes_one_for_each() -> None:
    net = Net(17, x=[1, 4, 7, 7])
    shared = net.constant(net.random(4, 4, 1, 1), "w")
    first = net("Relu", net("Conv", "x", shared, name="one"))
    model = net.model(net("Conv", first, shared, name="two"))
    done = recovered(model, {"w": {"input": [1]}})
    names = [found.input[1] for name in ("one", "two") if (found := node(done.model, name))]
    assert len(set(names)) == 2
    assert all(not stored(done.model, name)[:, 1].any() for name in names)
    assert done.report["outputs"][0]["error_after"] < done.report["outputs"][0]["error_before"]


def test_a_weight_that_nodes_make_is_replaced_whole() -> None:
    net = Net(17, x=[1, 20, 4])
    turned = net("Transpose", net.constant(net.random(3, 4), "stored"), perm=[1, 0])
    model = net.model(net("MatMul", "x", turned, name="reader"))
    done = recovered(model, {"reader": {"input": [1]}})
    assert [found.op_type for found in done.model.graph.node] == ["MatMul"]
    (got,), (wanted,) = run(done.model, data_of(model)), run(model, data_of(model))
    assert np.square(got - wanted).sum() < np.square(wanted).sum() / 2


def test_quantized_weights_stay_and_that_is_said() -> None:
    net = Net(17, x=[1, 4, 5, 5])
    ints = net.constant(net.rng.integers(-9, 9, (3, 4, 1, 1)).astype(np.int8), "w")
    weight = net("DequantizeLinear", ints, np.float32(0.1), np.int8(0))
    model = net.model(net("Conv", "x", weight, name="reader"))
    done = recovered(model, {"reader": {"input": [1]}})
    assert done.warnings == ("reader: not repaired, for their weights are quantized",)
    assert done.report["readers"] == []


def test_known_values_stay_known() -> None:
    """A constant channel must not turn into another one that a padded reader cannot absorb."""
    net = Net(17, x=[1, 4, 7, 7])
    first = net.random(4, 4, 1, 1)
    first[2, 1:] = 0  # It reads channel 0 only, which the mask takes.
    active = net("Relu", net("Conv", "x", net.constant(first, "first")))
    second = net.constant(net.random(3, 4, 3, 3), "w")
    model = net.model(net("Conv", active, second, pads=[1, 1, 1, 1]))
    masks = {"first": {"input": [0]}}
    done = recovered(model, masks)
    size = onnx_upscale.optimize(model, {"version": 1, "masks": masks}).report.output
    small = onnx_upscale.optimize(done.model, None).report.output
    assert small.macs == size.macs


def test_masked_outputs_stay_zero_where_somebody_needs_what_becomes_of_them() -> None:
    """The padded reader cannot absorb Sigmoid(0), so that the channel stays, as it is."""
    net = Net(17, x=[1, 4, 7, 7])
    bias = net.constant(net.random(4), "bias")
    first = net("Conv", "x", net.constant(net.random(4, 4, 1, 1), "first"), bias)
    second = net.constant(net.random(3, 4, 3, 3), "w")
    model = net.model(net("Conv", net("Sigmoid", first), second, pads=[1, 1, 1, 1]))
    done = recovered(model, {"first": {"input": [0], "output": [2]}})
    assert [row["kept"] for row in done.report["readers"]] == [3, 4]
    assert not stored(done.model, "first")[2].any()
    assert stored(done.model, "bias")[2] == 0
    assert stored(done.model, "first")[[0, 1, 3], 1:].all()


def test_half_precision_stays() -> None:
    net = Net(17, x=[1, 4, 7, 7])
    half = net("Cast", "x", to=onnx.TensorProto.FLOAT16)
    w = net.constant(net.random(3, 4, 1, 1).astype(np.float16), "w")
    model = net.model(net("Cast", net("Conv", half, w), to=onnx.TensorProto.FLOAT))
    done = recovered(model, {"w": {"input": [0]}})
    assert stored(done.model, "w").dtype == np.float16
    (row,) = done.report["readers"]
    assert row["error_after"] < row["error_before"]


def test_all_channels_gone_leaves_a_constant() -> None:
    net, out = two_layers()
    model = net.model(out)
    done = recovered(model, {"w": {"input": list(range(8))}})
    assert not stored(done.model, "w").any()
    assert onnx_upscale.optimize(done.model, None).report.verify.ok


def test_the_same_input_gives_the_same_bytes() -> None:
    net, out = two_layers()
    model = net.model(out)
    one, other = (recovered(model, {"w": {"input": [3]}}) for _ in range(2))
    assert one.content == other.content


def test_bad_input_is_refused() -> None:
    net, out = two_layers()
    model = net.model(out)
    masks = {"version": 1, "masks": {"w": {"input": [3]}}}
    good = data_of(model)["x"]

    def says(error: type[UpscaleError], *args: Any, **options: Any) -> str:
        with pytest.raises(error) as caught:
            onnx_upscale.recover(*args, **options)
        return str(caught.value)

    assert "`count` 0" in says(UpscaleError, model, masks, good, count=0)
    assert "`strength` -1" in says(UpscaleError, model, masks, good, strength=-1)
    assert "infinities" in says(DataError, model, masks, good * np.float32(np.nan))
    assert "infinities" in says(DataError, model, masks, np.full_like(good, 3e38))
    assert "expected shape" in says(DataError, model, masks, good[:, :2])
    assert "no such layer" in says(
        MaskError, model, {"version": 1, "masks": {"v": {"input": [0]}}}, good
    )
