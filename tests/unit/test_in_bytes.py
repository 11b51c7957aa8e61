"""Layers that onnxruntime computes with 8-bit numbers, and the counts that these like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

import onnx_upscale
from build import Net
from onnx_upscale.grain import Grain
from onnx_upscale.optimizer.analyze import analyze, find_structure
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.load.layers import Layer, layers
from onnx_upscale.optimizer.plan import plan
from onnx_upscale.optimizer.plan.cost import Costs, element_bytes
from onnx_upscale.prices import load_prices
from onnx_upscale.prices.kernels import BYTES
from targets import TARGETS

WIDTH = 48
COPIES_PAY = TARGETS["multiply-adds dear, blocks of 1"]
IN_BYTES = frozenset({"QLinearConv", "QLinearMatMul", "MatMulIntegerToFloat", "QGemm"})


class Quantized(Net):
    """Layers between DequantizeLinear and QuantizeLinear."""

    def coded(self, data: str, kind: Any = np.uint8, zero: int = 3) -> str:
        coding = [self.constant(np.float32(0.05)), self.constant(kind(zero))]
        return self("DequantizeLinear", self("QuantizeLinear", data, *coding), *coding)

    def weight(self, name: str, *shape: int, kind: Any = np.int8) -> str:
        values = self.rng.integers(-31, 32, shape).astype(kind)
        coding = [self.constant(np.float32(0.01)), self.constant(kind(0))]
        return self("DequantizeLinear", self.constant(values, name), *coding)

    def conv(self, data: str, name: str, shape: tuple[int, ...], **attributes: Any) -> str:
        return self.coded(self("Conv", data, self.weight(name, *shape), name=name, **attributes))


def alone(
    *between: tuple[Any, ...],
    behind: bool = True,
    kind: Any = np.uint8,
    weight: Any = np.int8,
    zero: int = 3,
) -> onnx.ModelProto:
    """One convolution that may run in bytes."""
    net = Quantized(21, x=[1, 8, 6, 6])
    made = net("Conv", net.coded("x", kind), net.weight("w", 16, 8, 1, 1, kind=weight))
    for op, *bounds in between:
        made = net(op, made, *map(np.float32, bounds))
    return net.model(net.coded(made, kind, zero) if behind else made)


def product(behind: bool) -> onnx.ModelProto:
    net = Quantized(21, x=[1, 6, 8])
    made = net("MatMul", net.coded("x"), net.weight("w", 8, 16))
    return net.model(net.coded(made) if behind else made)


def another(op: str, *shape: int, size: tuple[int, ...], **attributes: Any) -> onnx.ModelProto:
    """One more operator that is a layer, between rounded tensors."""
    net = Quantized(21, x=[1, *size])
    made = net(op, net.coded("x"), net.weight("w", *shape), **attributes)
    return net.model(net.coded(made))


def bounded_by_an_input() -> onnx.ModelProto:
    net = Quantized(21, x=[1, 8, 6, 6], low=[])
    made = net("Conv", net.coded("x"), net.weight("w", 16, 8, 1, 1))
    return net.model(net.coded(net("Clip", made, "low")))


def weight_alone() -> onnx.ModelProto:
    net = Quantized(21, x=[1, 8, 6, 6])
    return net.model(net.coded(net("Conv", "x", net.weight("w", 16, 8, 1, 1))))


CASES = {
    "between both": alone(),
    "with a Relu": alone(("Relu",), zero=0),
    "with a Relu of signed bytes": alone(("Relu",), zero=-128, kind=np.int8),
    "with a Relu that rounding does not do": alone(("Relu",)),
    "with wide bounds": alone(("Clip", -1.0, 13.0)),
    "with bounds above": alone(("Clip", -1.0, 6.0)),
    "with bounds below": alone(("Clip", 0.0, 13.0)),
    "with both": alone(("Relu",), ("Clip", 0.0, 13.0), zero=0),
    "with narrow bounds and wide ones": alone(("Clip", -1.0, 6.0), ("Clip", -1.0, 13.0)),
    "with bounds that nobody knows": bounded_by_an_input(),
    "with something else": alone(("Sigmoid",)),
    "with real results": alone(behind=False),
    "of 16 bits": alone(kind=np.uint16, weight=np.int16),
    "with a quantized weight alone": weight_alone(),
    "transposed": another("ConvTranspose", 8, 16, 1, 1, size=(8, 6, 6)),
    "of one dimension": another("Conv", 16, 8, 1, size=(8, 6)),
    "a Gemm": another("Gemm", 8, 16, size=(8,)),
    "an Einsum": another("Einsum", 8, 16, size=(6, 8), equation="btc,cd->btd"),
    "a product": product(behind=True),
    "a product with real results": product(behind=False),
}


@pytest.mark.parametrize("name", CASES)
def test_onnxruntime_computes_the_same_layers_in_bytes(name: str, tmp_path: Path) -> None:
    model, saved = CASES[name], tmp_path / "saved.onnx"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(saved)
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
    runs = {node.op_type for node in onnx.load(saved).graph.node}
    (layer,) = layers(load(model).graph)
    assert layer.in_bytes == bool(runs & IN_BYTES)
    if layer.product or layer.transposed or len(layer.weight_shape) != 4:
        assert layer.grain is Grain.CHANNEL
    else:
        assert layer.grain is (Grain.BYTES if layer.in_bytes else Grain.BLOCK)


def test_sums_of_whole_numbers_like_any_count() -> None:
    net = Net(17, x=[1, 8, 6, 6])
    zero = np.uint8(3)
    coded = net("QuantizeLinear", "x", np.float32(0.1), zero)
    values = net.rng.integers(0, 9, (16, 8, 1, 1)).astype(np.uint8)
    made = net("ConvInteger", coded, net.constant(values, "w"), zero)
    (layer,) = layers(load(net.model(net("Cast", made, to=onnx.TensorProto.FLOAT))).graph)
    assert (layer.in_bytes, layer.grain) == (True, Grain.CHANNEL)


def inverted(channels: int = WIDTH) -> onnx.ModelProto:
    """A depthwise convolution between two others, in bytes."""
    net = Quantized(17, x=[1, 16, 14, 14])
    made = net.conv(net.coded("x"), "first", (channels, 16, 1, 1))
    made = net.conv(made, "middle", (channels, 1, 3, 3), group=channels, pads=[1, 1, 1, 1])
    return net.model(net.conv(made, "last", (16, channels, 1, 1)))


@pytest.mark.parametrize(
    ("target", "masked", "kept"),
    [
        ("cpu-avx2", 15, 48),
        ("cpu-avx2", 16, 32),
        ("cpu-avx2", 20, 32),
        ("cpu-avx512", 20, 32),
        ("cpu-avx512", 24, 32),
        ("cuda", 24, 24),
    ],
)
def test_whole_vectors_stay_around_a_depthwise_convolution(
    target: str, masked: int, kept: int
) -> None:
    masks = {"version": 1, "masks": {"last": {"input": list(range(masked))}}}
    made = onnx_upscale.optimize(inverted(), masks, target=target, samples=1)
    assert made.report.layers[-1].read == kept


@given(st.integers(17, 120), st.data(), st.sampled_from(["cpu-avx2", "cpu-avx512", "cpu-arm64"]))
def test_no_more_channels_stay_than_fill_a_vector(
    channels: int, data: st.DataObject, target: str
) -> None:
    pruned = sorted(data.draw(st.sets(st.integers(0, channels - 1), max_size=channels - 1)))
    masks = {"version": 1, "masks": {"last": {"input": pruned}}}
    made = onnx_upscale.optimize(inverted(channels), masks, target=target, verify=False)
    kept, needed = made.report.layers[-1].read, channels - len(pruned)
    assert needed <= kept <= min(needed + -needed % 16, channels)


def test_a_copy_takes_bytes() -> None:
    net = Quantized(17, x=[1, 16, 14, 14])
    made = net.conv(net.coded("x"), "first", (WIDTH, 16, 1, 1))
    spread = net("DequantizeLinear", net("QuantizeLinear", made, *(
        net.constant(value)
        for value in (np.full(WIDTH, 0.05, np.float32), np.zeros(WIDTH, np.uint8))
    )), np.full(WIDTH, 0.05, np.float32), np.zeros(WIDTH, np.uint8))  # fmt: skip
    graph = load(net.model(made, spread)).graph
    assert element_bytes(graph, made) == 1
    assert element_bytes(graph, spread) == 4  # Copies stand behind several scales.
    costs = Costs(find_structure(graph), load_prices("cpu-avx2"))
    assert costs.reorders("x")
    assert not costs.reorders(made)


def test_the_coarsest_layer_decides() -> None:
    net = Quantized(17, x=[1, 16, 14, 14])
    made = net.conv(net.coded("x"), "first", (WIDTH, 16, 1, 1))
    read = net.conv(made, "last", (8, WIDTH, 1, 1))
    turned = net("Transpose", made, perm=[0, 2, 3, 1])
    product = net("MatMul", turned, net.constant(net.random(WIDTH, 8), "product"))
    structure = find_structure(load(net.model(read, product)).graph)
    (segment,) = (each for each in structure.segments if len(each.readers) == 2)
    assert {read.layer.grain for read in segment.readers} == {Grain.CHANNEL, Grain.BYTES}
    assert segment.grain is Grain.BYTES


def test_bytes_are_concatenated_whatever_their_count() -> None:
    net = Quantized(17, x=[1, 16, 14, 14])
    data = net.coded("x")
    parts = [net.conv(data, name, (WIDTH, 16, 1, 1)) for name in ("one", "other")]
    whole = net.coded(net("Concat", *parts, axis=1))
    model = net.model(net.conv(whole, "last", (64, 2 * WIDTH, 1, 1)))
    masks = {"version": 1, "masks": {"last": {"input": [*range(24), *range(WIDTH, WIDTH + 24)]}}}
    made = onnx_upscale.optimize(model, masks, target="cpu-avx512", samples=1)
    assert made.report.layers[-1].read == 48  # 24 of each, and no 32.


def test_a_plan_runs_kernels_for_bytes_and_costs_what_these_do() -> None:
    graph = load(inverted()).graph
    structure, prices = find_structure(graph), load_prices("cpu-avx2")
    kernels = plan(analyze(graph, structure), "auto", prices).kernels
    assert [kernel.family for kernel in kernels if kernel.family in BYTES] == [
        *("bytes_pointwise", "bytes_depthwise", "bytes_pointwise"),
    ]
    costs, (first, _, _) = Costs(structure, prices), structure.layers.values()
    assert costs.layer(first, 16, 20) > costs.layer(first, 16, 24)


@pytest.mark.parametrize(("in_bytes", "way"), [(True, "gather"), (False, "moved")])
def test_copies_of_bytes_stay_behind_their_rounding(in_bytes: bool, way: str) -> None:
    net = Quantized(17, x=[1, 16, 14, 14])
    trunk = net("Conv", "x", net.constant(net.random(WIDTH, 16, 1, 1), "first"))
    other = net("Conv", trunk, net.constant(net.random(8, WIDTH, 1, 1), "other"))
    rounded = net.coded(net("LeakyRelu", trunk))
    if in_bytes:
        read = net.conv(rounded, "last", (256, WIDTH, 1, 1))
    else:
        read = net("Conv", rounded, net.constant(net.random(256, WIDTH, 1, 1), "last"), name="last")
    masks = {"version": 1, "masks": {"last": {"input": [*range(0, 32, 2), 40]}}}
    report = onnx_upscale.optimize(net.model(read, other), masks, target=COPIES_PAY).report
    (found,) = (r for s in report.segments for r in s.readers if r.node == "last")
    assert found.realization == way


def depthwise(model: onnx.ModelProto) -> tuple[Costs, Layer]:
    structure = find_structure(load(model).graph)
    (layer,) = (each for each in structure.layers.values() if each.groups > 1)
    return Costs(structure, load_prices("cpu-avx2")), layer


def test_depthwise_convolutions_cost_by_whole_vectors() -> None:
    costs, layer = depthwise(inverted())
    whole, ragged, next_whole = (costs.depthwise(layer, count) for count in (32, 40, 48))
    assert whole < next_whole < ragged
