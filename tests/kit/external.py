"""A model with external weights, and where they lie."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from build import Net
from onnx_upscale.running import Session


def wide() -> onnx.ModelProto:
    """Two layers of 64 channels, the second of which ignores half of them."""
    net = Net(17, x=["n", 8])
    first = net("Gemm", "x", net.random(8, 64), net.constant(net.random(64), "b"), name="first")
    weight = net.random(64, 32)
    weight[::2] = 0
    net("MatMul", net("Relu", first), net.constant(weight, "second.weight"), name="second")
    return net.model("second.0")


def save(model: onnx.ModelProto, path: str = "big.onnx", location: str = "w") -> None:
    model = onnx.ModelProto.FromString(model.SerializeToString())
    onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=0)


def data_of(path: str) -> list[Path]:
    ours = rf"{re.escape(Path(path).name)}\.[0-9a-f]{{16}}\.data"
    return sorted(each for each in Path(path).parent.iterdir() if re.fullmatch(ours, each.name))


def places(path: str) -> dict[str, str]:
    """Where the weights lie that are not in the file."""
    slim = onnx.load(path, load_external_data=False)
    return {
        tensor.name: next(e.value for e in tensor.external_data if e.key == "location")
        for tensor in slim.graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL
    }


def values(path: str) -> dict[str, Any]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def result_of(path: str) -> Any:
    x = np.random.default_rng(0).standard_normal((3, 8), np.float32)
    return Session(path).run({"x": x})["second.0"]
