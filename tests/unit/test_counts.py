"""Whole blocks are kept where kernels work on blocks, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import onnx_upscale
from build import Net
from onnx_upscale.grain import Grain
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.load.layers import layers

WIDTH, MASKED = 32, 7


def convolutions(op: str, spatial: int, groups: int) -> onnx.ModelProto:
    """A convolution in groups between two others."""
    net = Net(17, x=["batch", 3, *[5] * spatial])
    window = [1] * spatial
    stem = net(op, "x", net.random(*((3, WIDTH) if op != "Conv" else (WIDTH, 3)), *window))
    middle = net.random(WIDTH, WIDTH // groups, *window)
    stem = net(op, net("Relu", stem), middle, group=groups)
    shape = (WIDTH, 4) if op != "Conv" else (4, WIDTH)
    weight = net.constant(np.ones((*shape, *window), np.float32), "last.weight")
    return net.model(net(op, net("Relu", stem), weight, name="last"))


@pytest.mark.parametrize(
    ("op", "spatial", "kept"),
    [
        ("Conv", 1, WIDTH - MASKED),
        ("Conv", 2, 28),
        ("Conv", 3, WIDTH - MASKED),
        ("ConvTranspose", 2, WIDTH - MASKED),
    ],
)
def test_counts_around_a_depthwise_convolution(op: str, spatial: int, kept: int) -> None:
    masks = {"version": 1, "masks": {"last.weight": {"input": list(range(MASKED))}}}
    result = onnx_upscale.optimize(convolutions(op, spatial, WIDTH), masks, target="cpu-avx512")
    assert result.report.layers[-1].read == kept


@pytest.mark.parametrize(("spatial", "kept"), [(1, 24), (2, 32)])
def test_counts_of_groups(spatial: int, kept: int) -> None:
    """Of two groups four channels of each are masked."""
    pruned = [*range(4), *range(16, 20)]
    masks = {"version": 1, "masks": {"last.weight": {"input": pruned}}}
    model = convolutions("Conv", spatial, 2)
    result = onnx_upscale.optimize(model, masks, target="cpu-avx512")
    assert result.report.layers[-1].read == kept


def blocked(model: onnx.ModelProto, saved: Path) -> bool:
    """Whether onnxruntime computes any node of a model on blocks of channels, on this machine."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(saved)
    options.log_severity_level = 3  # It warns that what it saves is for this machine.
    onnxruntime.InferenceSession(model.SerializeToString(), options)
    return any(node.domain == "com.microsoft.nchwc" for node in onnx.load(saved).graph.node)


def test_onnxruntime_has_blocks_for_the_same_layers(tmp_path: Path) -> None:
    saved = tmp_path / "saved.onnx"
    if not blocked(convolutions("Conv", 2, WIDTH), saved):
        pytest.skip("onnxruntime works on no blocks here")
    for op, spatial in (("Conv", 1), ("Conv", 2), ("Conv", 3), ("ConvTranspose", 2)):
        model = convolutions(op, spatial, WIDTH)
        in_blocks = {layer.grain is Grain.BLOCK for layer in layers(load(model).graph)}
        assert in_blocks == {blocked(model, saved)}
