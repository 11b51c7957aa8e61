"""Quantized attention loses what attention in real numbers loses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_upscale
from attention import CHANNELS, FLAT, HEADS, WIDTH, attention, head, of_each
from build import input_values
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.load.layers import layers
from targets import TARGETS

quantize = pytest.importorskip("quantize")
doubles = pytest.importorskip("doubles")
zeroed = pytest.importorskip("zeroed").zeroed

OWN = [0, 2, WIDTH + 1, WIDTH + 2, 2 * WIDTH, 2 * WIDTH + 1, 2 * WIDTH + 3]
"""At least two channels of every head, never the same."""


def quantized(form: str, folder: Path) -> tuple[onnx.ModelProto, dict[str, str]]:
    """A quantized attention, and its layers by their names before."""
    plain, made = folder / "plain.onnx", folder / "made.onnx"
    model = attention("separate", {})
    onnx.save(model, plain)
    quantize.FORMS[form](plain, made, [input_values(model, seed) for seed in range(2)])
    result = onnx.load(made)
    names = {each.node.title.split("_")[0]: each.node.title for each in layers(load(result).graph)}
    return result, names


def sizes(model: onnx.ModelProto, names: dict[str, str]) -> dict[str, tuple[int, int]]:
    found = {each.node.title: (each.inputs, each.outputs) for each in layers(load(model).graph)}
    return {name: found[title] for name, title in names.items()}


@pytest.mark.parametrize("form", ["QDQ", "QDQ per channel", "QOperator", "QOperator per channel"])
@pytest.mark.parametrize("part", ["q", "k", "v", "o"])
@pytest.mark.parametrize("gone", [OWN, head(1), of_each(1)], ids=["own", "head", "each"])
def test_heads_and_channels_leave(form: str, part: str, gone: list[int], tmp_path: Path) -> None:
    if part != "o" and form.startswith("QDQ"):
        pytest.skip("a bias that is added behind a rounding is not masked")
    model, names = quantized(form, tmp_path)
    side = "input" if part == "o" else "output"
    masks: dict[str, Any] = {"version": 1, "masks": {names[part]: {side: gone}}}
    inputs = input_values(model)
    wanted = doubles.run(zeroed(model, {names[part]: gone}, side), inputs)
    for strategy, target in (("gather", "cpu"), ("auto", TARGETS["copies free"])):
        result = onnx_upscale.optimize(model, masks, strategy=strategy, target=target)
        for one, other in zip(wanted, doubles.run(result.model, inputs), strict=True):
            np.testing.assert_allclose(other, one, atol=1e-9 * np.abs(one).max())
        left = sizes(result.model, names)
        heads, width = HEADS - (gone == head(1) and part in "vo"), WIDTH
        width -= 2 if gone == OWN else 1 if gone == of_each(1) else 0
        scores = heads * (width if part in "qk" else WIDTH)
        values = heads * (width if part in "vo" else WIDTH)
        assert left["q"] == left["k"] == (CHANNELS, scores)
        assert left["v"] == (CHANNELS, values)
        assert left["o"] == (FLAT - len(gone) if part == "o" else values, CHANNELS)
