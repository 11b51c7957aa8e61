"""Grouped convolutions of whole numbers lose what those of real numbers do, and stay quantized."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from test_grouped_convolution import (
    GROUPS,
    INPUTS,
    LAYERS,
    MADE,
    READ,
    SIZE,
    Masks,
    of_each,
    random_masks,
)

import onnx_upscale
from build import Array, Net, assert_close, input_values, node, run
from targets import TARGETS

FORMS = ("QLinearConv", "QDQ", "QDQ, one scale", "ConvInteger")
PROFILES = ("as built in", "copies free", "blocks of 1", "blocks of 8", "copies free, align 2")


class _Quantized(Net):
    """Conv a, grouped Conv b, Conv c in some form; what is masked is written as zero points."""

    def __init__(self, form: str, masks: Masks) -> None:
        super().__init__(19, 23, x=(2, 3, SIZE, SIZE))
        self.form, self.masks = form, masks

    def weight(self, name: str, groups: int) -> tuple[Array, Array, Array]:
        """Numbers, scales and zero points; nothing is zero but what masks prune."""
        outputs, inputs = LAYERS[name]
        each = inputs // groups
        shape = groups, outputs // groups, each, 3, 3
        steps = self.rng.integers(1, 60, shape) * self.rng.choice([-1, 1], shape)
        for channel in self.masks.get(f"{name}.input", ()):
            steps[channel // each, :, channel % each] = 0
        steps = steps.reshape(outputs, each, 3, 3)
        steps[list(self.masks.get(f"{name}.output", ()))] = 0
        scale = self.rng.uniform(0.005, 0.02, outputs).astype(np.float32)
        zero = np.full(outputs, self.rng.integers(2, 9)).astype(np.int8)
        stored = (steps + zero[0]).astype(np.int8)
        if self.form in ("QDQ, one scale", "ConvInteger"):
            return stored, scale[0].reshape(()), zero[0].reshape(())
        return stored, scale, zero

    def bias(self, name: str, kind: Any) -> Array:
        made = self.rng.integers(200, 2000, LAYERS[name][0]).astype(kind)
        made[list(self.masks.get(f"{name}.output", ()))] = 0
        return made

    def encoding(self) -> tuple[Array, Array]:
        scale = np.float32(self.rng.uniform(0.05, 0.1))
        return np.array(scale), np.array(self.rng.integers(100, 140), np.uint8)

    def conv(self, data: Any, name: str, groups: int = 1) -> Any:
        weight = self.weight(name, groups)
        how: dict[str, Any] = {"name": name, "group": groups, "pads": [1] * 4}
        encoding = self.encoding()
        if self.form == "QLinearConv":
            bias = self.bias(name, np.int32)
            return self("QLinearConv", *data, *weight, *encoding, bias, **how), *encoding
        added = self.bias(name, np.float32) / 1000
        if self.form == "ConvInteger":
            numbers, scale, zero = self.nodes_of("DynamicQuantizeLinear", data, outputs=3)
            sums = self("ConvInteger", numbers, weight[0], zero, weight[2], **how)
            scales = self("Mul", scale, weight[1])
            made = self("Mul", self("Cast", sums, to=TensorProto.FLOAT), scales)
            return self("Relu", self("Add", made, added.reshape(-1, 1, 1)))
        along: dict[str, Any] = {"axis": 0} if weight[1].ndim else {}
        real = self("DequantizeLinear", *weight, **along)
        made = self("Relu", self("Conv", data, real, added, **how))
        return self("DequantizeLinear", self("QuantizeLinear", made, *encoding), *encoding)

    def whole(self) -> onnx.ModelProto:
        data: Any = "x"
        if self.form == "QLinearConv":
            encoding = self.encoding()
            data = self("QuantizeLinear", "x", *encoding), *encoding
        data = self.conv(self.conv(self.conv(data, "a"), "b", GROUPS), "c")
        result = self("DequantizeLinear", *data) if self.form == "QLinearConv" else data
        return self.model(result)


def check(form: str, masks: Masks, strategy: str = "gather", target: str = "cpu") -> list[int]:
    """What a makes, b reads of each group, b makes, c reads in the end."""
    sides: dict[str, dict[str, list[int]]] = {}
    for key, pruned in masks.items():
        name, side = key.split(".")
        sides.setdefault(name, {})[side] = list(pruned)
    model = _Quantized(form, {}).whole()
    emitted = onnx_upscale.optimize(
        model, {"version": 1, "masks": sides}, strategy=strategy, target=target, verify=False
    ).model
    onnx.checker.check_model(emitted, full_check=True)
    inputs = input_values(model)
    wanted, found = run(_Quantized(form, masks).whole(), inputs), run(emitted, inputs)
    assert_close(wanted, found, f"{masks}", share=0.02 if form == "ConvInteger" else 1e-4)
    shapes = [numbers_of(emitted, name) for name in "abc"]
    return [shapes[0][0], shapes[1][1], shapes[1][0], shapes[2][1]]


def numbers_of(model: onnx.ModelProto, name: str) -> tuple[int, ...]:
    """The shape of a weight, which must be of whole numbers still."""
    found = node(model, name)
    assert found is not None
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {output: each for each in model.graph.node for output in each.output}
    tensor = found.input[3 if found.op_type == "QLinearConv" else 1]
    tensor = makers[tensor].input[0] if tensor in makers else tensor
    assert stored[tensor].data_type == TensorProto.INT8
    return tuple(stored[tensor].dims)


@pytest.mark.parametrize("form", FORMS[:-1])
@pytest.mark.parametrize("strategy", ["auto", "upscale", "gather"])
def test_each_group_loses_channels_of_its_own(form: str, strategy: str) -> None:
    read = of_each(READ, [0, 1], [4, 5], [0, 5], [2, 3])
    made = of_each(MADE, [2], [0], [1], [0])
    masks = {"b.input": read, "c.input": made}
    found = check(form, masks, strategy, TARGETS["blocks of 1"])
    assert found == [GROUPS * 4, 4, GROUPS * 2, GROUPS * 2]


@pytest.mark.parametrize("form", FORMS)
def test_what_is_zero_leaves_each_group(form: str) -> None:
    masks = {
        "a.output": of_each(READ, [0, 1], [4, 5], [0, 5], [2, 3]),
        "b.output": of_each(MADE, [2], [0], [1], [0]),
    }
    assert check(form, masks) == [GROUPS * 4, 4, GROUPS * 2, GROUPS * 2]


@pytest.mark.parametrize("form", FORMS[:-1])
def test_groups_of_different_counts_and_whole_groups(form: str) -> None:
    read = of_each(READ, [0, 1, 2], [4, 5], [], [2, 3])
    made = of_each(MADE, [2, 1], [0], [0, 1, 2], [0])
    assert check(form, {"b.input": read, "c.input": made}) == [3 * 4, 4, 3 * 2, 3 * 2 - 1]


@pytest.mark.parametrize("form", FORMS)
def test_masks_of_single_weights_stay_whole_numbers(form: str) -> None:
    """Where nothing leaves, what is masked in a group is its zero point."""
    masks = {"b.input": of_each(READ, [0], [], [], []), "b.output": [1]}
    assert check(form, masks)[:2] == [INPUTS, READ]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("strategy", ["auto", "upscale", "gather"])
def test_random_masks(form: str, strategy: str) -> None:
    for seed in range(4):
        check(form, random_masks(seed), strategy)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("target", PROFILES)
def test_random_masks_at_any_price(form: str, target: str) -> None:
    for seed in range(3):
        check(form, random_masks(10 + seed), "auto", TARGETS[target])


@pytest.mark.parametrize("form", FORMS)
def test_masks_of_a_wrong_size(form: str) -> None:
    masks = {"version": 1, "masks": {"b": {"input": {"mask": [1] * READ}}}}
    with pytest.raises(onnx_upscale.MaskError, match=f"but the layer has {INPUTS} channels"):
        onnx_upscale.optimize(_Quantized(form, {}).whole(), masks)
