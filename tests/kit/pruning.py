"""Models to prune, and what a criterion prunes of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import Array, Net
from onnx_upscale.optimizer.load import ModelSource

CLOSE = pytest.approx
WITHOUT_DATA = ("l1", "l2", "lamp", "fpgm", "random")


def make_masks(
    model: ModelSource, criterion: str, amount: float, **options: Any
) -> onnx_upscale.Masks:
    """Masks for the layers right before an output as well: small models have few others."""
    return onnx_upscale.mask(model, criterion, amount, **{"layers": ["*"], **options})


def pruned(masks: Mapping[str, Any], side: str = "input") -> dict[str, list[int]]:
    return {key: sides[side] for key, sides in masks["masks"].items()}


def square(weight: Array, net: Net, data: str, name: str) -> str:
    """A 1x1 Conv with a given matrix."""
    rows, columns = weight.shape
    values = weight.astype(np.float32).reshape(rows, columns, 1, 1)
    return net("Conv", data, net.constant(values, f"{name}.weight"), name=name)


def network(width: int = 16) -> onnx.ModelProto:
    """Three Convs in a row, the last of which is `head`."""
    net = Net(17, x=["batch", 3, 6, 6])
    stem = net("Relu", square(net.random(width, 3), net, "x", "stem"))
    inner = net("Relu", square(net.random(width, width), net, stem, "inner"))
    square(net.random(4, width), net, inner, "head")
    return net.model("head.0")


def chain(*weights: Array, size: int = 3) -> onnx.ModelProto:
    """Convs one after the other behind a first one and in front of a classifier."""
    net = Net(17, x=["batch", 2, size, size])
    tensor = square(net.random(weights[0].shape[1], 2), net, "x", "stem")
    for number, weight in enumerate(weights):
        tensor = square(weight, net, net("Relu", tensor), f"conv{number}")
    pooled = net("Flatten", net("GlobalAveragePool", net("Relu", tensor)))
    last = net.constant(net.random(len(weights[-1]), 3), "fc.weight")
    return net.model(net("Gemm", pooled, last, name="fc"))


def net_of_layers() -> onnx.ModelProto:
    """Layers of different widths and scales, so that a global choice differs from a local one."""
    rng = np.random.default_rng(1)
    widths = [8, 12, 5, 16, 3]
    weights = [
        rng.standard_normal((out, into)) * scale
        for into, out, scale in zip(widths[:-1], widths[1:], (1, 10, 0.1, 1), strict=True)
    ]
    return chain(*weights)


def copies(model: onnx.ModelProto, masks: Mapping[str, Any]) -> dict[str, int]:
    return {
        strategy: onnx_upscale.optimize(model, dict(masks), strategy=strategy).report["copies"][
            "count"
        ]
        for strategy in ("auto", "gather", "upscale")
    }
