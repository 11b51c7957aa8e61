"""What onnxruntime's own tools save loses what the plain model loses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import onnx_upscale
from build import Net, assert_close, input_values, run
from onnx_upscale.optimizer.apply import masked_model
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.load.layers import layers
from onnx_upscale.optimizer.load.sides import Side

WIDTH, HEADS, TOKENS = 16, 4, 5


def _conv(net: Net, data: str, name: str, inputs: int, outputs: int, kernel: int = 3) -> str:
    weight = net.constant(net.random(outputs, inputs, kernel, kernel) / 4, f"{name}.weight")
    pads = [kernel // 2] * 4
    return net("Conv", data, weight, net.random(outputs), name=name, pads=pads)


def images() -> onnx.ModelProto:
    """Convolutions with activations, and with a residual sum in between."""
    net = Net(17, x=(1, 3, 8, 8))
    stem = net("Relu", _conv(net, "x", "stem", 3, 16))
    inner = net("Relu", _conv(net, stem, "one", 16, 16))
    joined = net("Relu", net("Add", _conv(net, inner, "two", 16, 16), stem))
    bounded = net("Clip", _conv(net, joined, "three", 16, 24, 1), np.float32(0), np.float32(6))
    leaking = net("LeakyRelu", _conv(net, bounded, "four", 24, 24), alpha=0.1)
    raw = _conv(net, leaking, "five", 24, 24)
    gated = net("Mul", raw, net("Sigmoid", raw))
    hard = net("HardSigmoid", _conv(net, gated, "six", 24, 16))
    pooled = net("Flatten", net("GlobalAveragePool", hard))
    hidden = net("Relu", net("Gemm", pooled, net.constant(net.random(16, 12), "head.weight")))
    return net.model(net("Gemm", hidden, net.constant(net.random(12, 5), "last.weight")))


def tokens(standard: bool = False) -> onnx.ModelProto:
    """A block of a transformer, and a layer behind it; the attention may be one operator."""
    net = Net(23 if standard else 17, x=(1, TOKENS, WIDTH))
    each = WIDTH // HEADS

    def linear(data: str, name: str, inputs: int, outputs: int) -> str:
        weight = net.constant(net.random(inputs, outputs) / 4, f"{name}.weight")
        return net("Add", net("MatMul", data, weight, name=name), net.random(outputs))

    def heads(data: str, order: list[int]) -> str:
        return net("Transpose", net("Reshape", data, net.ints(1, TOKENS, HEADS, each)), perm=order)

    def norm(data: str) -> str:
        return net("LayerNormalization", data, net.random(WIDTH), net.random(WIDTH))

    data = linear("x", "in", WIDTH, WIDTH)
    queries, keys, values = (
        heads(linear(data, name, WIDTH, WIDTH), order)
        for name, order in (
            ("q", [0, 2, 1, 3]),
            ("k", [0, 2, 1, 3] if standard else [0, 2, 3, 1]),
            ("v", [0, 2, 1, 3]),
        )
    )
    if standard:
        mixed = net("Attention", queries, keys, values)
    else:
        scores = net("Div", net("MatMul", queries, keys), np.float32(each**0.5))
        mixed = net("MatMul", net("Softmax", scores, axis=3), values)
    flat = net("Reshape", net("Transpose", mixed, perm=[0, 2, 1, 3]), net.ints(1, TOKENS, WIDTH))
    data = norm(net("Add", linear(flat, "o", WIDTH, WIDTH), data))
    wide = linear(data, "up", WIDTH, 32)
    erf = net("Erf", net("Div", wide, np.float32(2**0.5)))
    active = net("Mul", net("Mul", wide, net("Add", erf, np.float32(1))), np.float32(0.5))
    data = norm(net("Add", linear(active, "down", 32, WIDTH), data))
    return net.model(linear(data, "last", WIDTH, 3))


def extended(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """What onnxruntime saves of a model before it changes layouts."""
    path = folder / "extended.onnx"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(path)
    content = model.SerializeToString()
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return onnx.load(path)


def transformed(model: onnx.ModelProto, folder: Path, attention: str = "") -> onnx.ModelProto:
    """What onnxruntime's optimizer for transformers makes of a model; it may fuse attention."""
    optimizer = pytest.importorskip("onnxruntime.transformers.optimizer")
    options = pytest.importorskip("onnxruntime.transformers.fusion_options").FusionOptions("bert")
    options.enable_attention = bool(attention)
    options.use_multi_head_attention = attention == "MultiHeadAttention"
    onnx.save(model, folder / "plain.onnx")
    made = optimizer.optimize_model(
        str(folder / "plain.onnx"), "bert", HEADS, WIDTH, options, opt_level=0
    )
    optimized: onnx.ModelProto = made.model
    return optimized


def masks(model: onnx.ModelProto, side: Side, without: Collection[str]) -> dict[str, Any]:
    """Three of ten channels of every layer, by the names of weights, which all forms share."""
    found = {}
    for layer in layers(load(model).graph):
        count = layer.channels(side)
        name = layer.node.inputs[layer.weight_slot]
        gone = np.random.default_rng(sum(name.encode())).permutation(count)[: int(count * 0.3)]
        if name not in without:
            found[name] = {side.value: sorted(gone.tolist())}
    return {"version": 1, "masks": found}


def weights(model: onnx.ModelProto) -> dict[str, list[int]]:
    return {t.name: list(t.dims) for t in model.graph.initializer if t.name.endswith(".weight")}


FORMS: dict[str, tuple[Callable[[], onnx.ModelProto], Any, set[str]]] = {
    "images": (images, extended, {"FusedConv", "QuickGelu"}),
    "tokens": (tokens, extended, {"SkipLayerNormalization", "FusedMatMul"}),
    "tokens, transformed": (tokens, transformed, {"SkipLayerNormalization", "BiasGelu"}),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("strategy", ["auto", "gather"])
def test_as_much_leaves_as_from_the_plain_model(
    form: str, side: Side, strategy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    make, save, operators = FORMS[form]
    plain = make()
    saved = save(plain, tmp_path)
    # What a norm adds to a sum of two tensors is the bias of neither, so that it stays.
    within = side is Side.OUTPUT and save is transformed
    outside = ("o.weight", "down.weight") if within else ()
    assert operators <= {node.op_type for node in saved.graph.node if node.domain}
    wanted = masks(plain, side, outside)
    assert masks(saved, side, outside) == wanted
    results = [
        onnx_upscale.optimize(model, wanted, strategy=strategy).model for model in (plain, saved)
    ]
    assert weights(results[0]) == weights(results[1])
    assert weights(results[1]) != weights(saved)
    inputs = input_values(plain)
    expected = run(masked_model(load(plain, wanted).graph), inputs)
    assert_close(expected, run(results[1], inputs), share=1e-3)


def attention_in(kind: str, folder: Path) -> onnx.ModelProto:
    """The same block, with attention in one operator."""
    return tokens(standard=True) if kind == "standard" else transformed(tokens(), folder, kind)


HEAD, HALF = list(range(WIDTH // 4, WIDTH // 2)), list(range(0, 32, 2))
READ = {"o.weight": {"input": HEAD}, "down.weight": {"input": HALF}}
MADE = {**{f"{each}.weight": {"output": HEAD} for each in "qkv"}, "up.weight": {"output": HALF}}
COLUMNS = [part * WIDTH + each for part in range(3) for each in HEAD]
PACKED = {"Attention_0_qkv_weight": {"output": COLUMNS}, "up.weight": {"output": HALF}}


@pytest.mark.parametrize(
    ("kind", "gone"),
    [
        ("Attention", READ),
        ("Attention", MADE),
        ("MultiHeadAttention", READ),
        ("MultiHeadAttention", MADE),
        ("standard", READ),
        ("standard", MADE),
    ],
)
@pytest.mark.parametrize("strategy", ["auto", "gather"])
def test_a_quarter_of_heads_and_half_of_features_leave(
    kind: str,
    gone: dict[str, Any],
    strategy: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From attention in one operator as from attention that is written out."""
    monkeypatch.setitem(sys.modules, "torch", None)
    wanted = {"version": 1, "masks": gone}
    own = {"version": 1, "masks": PACKED if kind == "Attention" and gone == MADE else gone}
    plain, saved = tokens(), attention_in(kind, tmp_path)
    operators = {node.op_type for node in saved.graph.node}
    assert ("Attention" if kind == "standard" else kind) in operators
    results = [
        onnx_upscale.optimize(model, masks, strategy=strategy)
        for model, masks in ((plain, wanted), (saved, own))
    ]
    left, fused = (
        {tensor.name: list(tensor.dims) for tensor in result.model.graph.initializer}
        for result in results
    )
    made = WIDTH * 3 // 4
    assert [left[f"{name}.weight"] for name in "qkvo"] == [[WIDTH, made]] * 3 + [[made, WIDTH]]
    assert [left["up.weight"], left["down.weight"]] == [[WIDTH, 16], [16, WIDTH]]
    shared = left.keys() & fused.keys()
    assert {"o.weight", "up.weight", "down.weight"} <= shared
    assert all(left[name] == fused[name] for name in shared if name.endswith(".weight"))
    if kind == "Attention":
        assert fused["Attention_0_qkv_weight"] == [WIDTH, 3 * made]
    assert results[0].report["output"]["macs"] == results[1].report["output"]["macs"]
    assert results[0].report["input"]["macs"] == results[1].report["input"]["macs"]
    inputs = input_values(plain)
    expected = run(masked_model(load(plain, wanted).graph), inputs)
    assert_close(expected, run(results[1].model, inputs), share=1e-3)


def test_what_is_absorbed_does_not_keep_it_from_loading(tmp_path: Path) -> None:
    """onnxruntime would fuse an Add behind a product, under a name that the model has already."""
    net = Net(17, x=(2, 5, 6))
    first = net("MatMul", "x", net.constant(net.random(6, 8), "first.weight"))
    active = net("Sigmoid", net("Add", first, net.random(8)))
    last = net("MatMul", active, net.constant(net.random(8, 3), "last.weight"))
    saved = extended(net.model(last), tmp_path)
    assert "gemm_input_shape" in {tensor.name for tensor in saved.graph.initializer}
    wanted = {"version": 1, "masks": {"first.weight": {"output": [1, 2, 5]}}}
    result = onnx_upscale.optimize(saved, wanted).model  # It verifies as well.
    assert weights(result)["last.weight"] == [5, 3]
    onnxruntime.InferenceSession(result.SerializeToString(), providers=["CPUExecutionProvider"])
