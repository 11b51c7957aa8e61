"""Small models to compare, quickly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx

import onnx_upscale
from build import Net
from onnx_upscale.benchmark import Comparison


def convolution(inputs: Mapping[str, Sequence[int | str]]) -> onnx.ModelProto:
    """A convolution of each input; the results are added up."""
    net = Net(17, 0, **inputs)
    results = [net("Conv", name, net.random(4, 3, 1, 1)) for name in inputs]
    return net.model(results[0] if len(results) == 1 else net("Sum", *results))


def small(name: str = "x", batch: int | str = "batch", side: int | str = 6) -> onnx.ModelProto:
    return convolution({name: [batch, 3, side, side]})


def bench(*models: Any, **options: Any) -> Comparison:
    """As little as possible of what takes long."""
    return onnx_upscale.bench(models, **{"runs": 2, "memory": False, **options})
