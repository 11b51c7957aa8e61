"""What onnxruntime's quantizer makes of a network loses channels, whatever is masked."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onnx_upscale
from build import Net, assert_close, input_values, run
from case import Case, Layer
from few_bits import runs
from masked import masked
from targets import TARGETS

WIDTH, HEADS, TOKENS, WIDE = 48, 3, 5, 96
SIZES = {"up": (WIDTH, WIDE), "down": (WIDE, WIDTH), "last": (WIDTH, 3)}
ATTENTION = dict.fromkeys(("q", "k", "v", "o"), (WIDTH, WIDTH))
FORMS = [("QOperator", bits) for bits in (2, 4, 8) if runs(bits)] + [("QDQ", 4)]


class _Tokens(Net):
    def linear(self, data: str, name: str, inputs: int, outputs: int) -> str:
        weight = self.constant(self.random(inputs, outputs) / 4, f"{name}.weight")
        return self("Add", self("MatMul", data, weight, name=name), self.random(outputs))

    def norm(self, data: str) -> str:
        return self("LayerNormalization", data, self.random(WIDTH), self.random(WIDTH))

    def mlp(self, data: str, activation: str) -> str:
        wide = self(activation, self.linear(data, "up", WIDTH, WIDE))
        return self.linear(wide, "down", WIDE, WIDTH)

    def attention(self, data: str) -> str:
        each = WIDTH // HEADS
        queries, keys, values = (
            self(
                "Transpose",
                self(
                    "Reshape",
                    self.linear(data, name, WIDTH, WIDTH),
                    self.ints(2, TOKENS, HEADS, each),
                ),
                perm=order,
            )
            for name, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3]))
        )
        mixed = self("MatMul", self("Softmax", self("MatMul", queries, keys), axis=3), values)
        turned = self("Transpose", mixed, perm=[0, 2, 1, 3])
        return self.linear(self("Reshape", turned, self.ints(2, TOKENS, WIDTH)), "o", WIDTH, WIDTH)


def network(block: bool, activation: str) -> onnx.ModelProto:
    """A perceptron, or a block of a transformer, and a layer behind it."""
    net = _Tokens(21, 7, x=(2, TOKENS, WIDTH))
    data = "x"
    if block:
        data = net.norm(net("Add", data, net.attention(data)))
        data = net.norm(net("Add", data, net.mlp(data, activation)))
    else:
        data = net("Relu", net.mlp(data, activation))
    return net.model(net.linear(data, "last", WIDTH, 3))


def quantized(
    model: onnx.ModelProto, form: tuple[str, int], size: int, symmetric: bool
) -> onnx.ModelProto:
    pytest.importorskip("onnx_ir")  # The quantizer wants it.
    tools = pytest.importorskip("onnxruntime.quantization.matmul_nbits_quantizer")
    kind, bits = form
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    quantizer = tools.MatMulNBitsQuantizer(
        copy, bits, size, symmetric, quant_format=tools.QuantFormat[kind]
    )
    quantizer.process()
    made: onnx.ModelProto = quantizer.model.model
    return made


def case_of(model: onnx.ModelProto, sizes: dict[str, tuple[int, int]], masks: Any) -> Case:
    """The case of a quantized model; masks are by the names that layers had before."""
    layers, own = [], {}
    for node in model.graph.node:
        name = node.name.split("_")[0]
        if name in sizes and node.op_type in ("MatMul", "MatMulNBits"):
            inputs, outputs = sizes[name]
            data, result = (node.input[0], -1, inputs), (node.output[0], -1, outputs)
            layers.append(Layer(node.name, None, data, result, 3))
            own[node.name] = masks.get(name, {})
    assert len(layers) == len(sizes)
    return Case(model, own, tuple(layers))


@settings(deadline=None, max_examples=40)
@given(
    block=st.booleans(),
    activation=st.sampled_from(["Relu", "Sigmoid"]),
    form=st.sampled_from(FORMS),
    size=st.sampled_from([16, 32]),
    symmetric=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_random_masks(
    block: bool, activation: str, form: tuple[str, int], size: int, symmetric: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    model = quantized(network(block, activation), form, size, symmetric)
    sizes = {**SIZES, **(ATTENTION if block else {})}
    masks: dict[str, Any] = {name: {} for name in sizes}
    for name, counts in sizes.items():
        for side, count in zip(("input", "output"), counts, strict=True):
            gone = rng.random(count) < rng.choice([0, 0.3])
            if count % size == 0:
                gone |= (rng.random(count // size) < rng.choice([0, 0.5])).repeat(size)
            masks[name][side] = np.flatnonzero(gone)[: count - 1].tolist()
    case = case_of(model, sizes, masks)
    inputs = input_values(model)
    wanted = run(masked(case), inputs)
    for strategy, target in (("gather", "cpu"), ("auto", TARGETS["copies free"]), ("auto", "cpu")):
        result = onnx_upscale.optimize(model, case.document, strategy=strategy, target=target)
        assert result.report["verify"]["ok"]
        assert_close(wanted, run(result.model, inputs), share=1e-3)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("strategy", ["auto", "gather"])
def test_blocks_of_the_mlp_and_a_head_leave(form: tuple[str, int], strategy: str) -> None:
    model = quantized(network(True, "Relu"), form, 16, False)
    third, head = list(range(16, 48)), list(range(16))
    # What else is masked would give the other heads orders of their own, if there were no blocks.
    masks = {"down": {"input": third}, "o": {"input": head}, "v": {"output": [16, 17, 35]}}
    sizes = {**SIZES, **ATTENTION}
    case = case_of(model, sizes, masks)
    result = onnx_upscale.optimize(
        model, case.document, strategy=strategy, target=TARGETS["blocks of 1"]
    )
    inputs = input_values(model)
    assert_close(run(masked(case), inputs), run(result.model, inputs), share=1e-3)
    assert elements(result.model) == {
        "up": WIDTH * (WIDE - 32),
        "down": WIDTH * (WIDE - 32),
        "last": WIDTH * 3,
        **dict.fromkeys(ATTENTION, WIDTH * (WIDTH - 16)),
    }


def elements(model: onnx.ModelProto) -> dict[str, int]:
    """How many numbers the matrix of each layer has, as it is stored."""
    found = {}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            bits = next(a.i for a in node.attribute if a.name == "bits")
            found[node.name.split("_")[0]] = int(np.prod(stored[node.input[1]].dims)) * 8 // bits
        elif (
            node.input[1:]
            and node.input[1] in makers
            and node.name.split("_")[0] in SIZES | ATTENTION
        ):
            tensor = stored[makers[node.input[1]].input[0]]
            assert tensor.data_type == onnx.TensorProto.UINT4
            found[node.name.split("_")[0]] = int(np.prod(tensor.dims))
    return found
