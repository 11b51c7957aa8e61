"""Show that cost grows linearly: chains and dense blocks of 100, 1,000 and 10,000 nodes.

python tools/scaling.py > docs/scaling.md
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import onnx_upscale

WIDTH, GROWTH, BLOCK = 16, 8, 12


class Builder:
    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def conv(self, data: str, inputs: int, outputs: int) -> str:
        weight = self.rng.standard_normal((outputs, inputs, 1, 1)).astype(np.float32)
        weight[:, self.rng.permutation(inputs)[: inputs // 3]] = 0
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(weight, name))
        return self.node("Conv", data, name)

    def model(self, result: str) -> onnx.ModelProto:
        image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 4, 4])
        output = helper.make_tensor_value_info(result, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "g", [image], [output], self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def chain(nodes: int) -> onnx.ModelProto:
    """Residual blocks of two convolutions, one after the other."""
    build = Builder()
    data = build.conv("x", 3, WIDTH)
    while len(build.nodes) < nodes:
        inner = build.node("Relu", build.conv(data, WIDTH, WIDTH))
        data = build.node("Add", data, build.conv(inner, WIDTH, WIDTH))
    return build.model(data)


def dense_blocks(nodes: int) -> onnx.ModelProto:
    """Dense blocks of twelve layers, with a transition after each."""
    build = Builder()
    data = build.conv("x", 3, WIDTH)
    while len(build.nodes) < nodes:
        parts, channels = [data], WIDTH
        for _ in range(BLOCK):
            joined = build.node("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]
            parts.append(build.node("Relu", build.conv(joined, channels, GROWTH)))
            channels += GROWTH
        data = build.conv(build.node("Concat", *parts, axis=1), channels, WIDTH)
    return build.model(data)


def row(kind: str, make: Callable[[int], onnx.ModelProto], nodes: int) -> str:
    seconds = onnx_upscale.optimize(make(nodes), verify=False).report["seconds"]
    cells = [f"{seconds[stage]:.2f}" for stage in ("load", "analyze", "plan", "apply")]
    per_node = sum(seconds.values()) / nodes * 1e6
    return f"| {kind} | {nodes} | {' | '.join(cells)} | {per_node:.0f} |"


def main() -> None:
    print("# Cost of the optimizer\n\n`python tools/scaling.py`: seconds, one run each.\n")
    print("| graph | nodes | load | analyze | plan | apply | microseconds per node |")
    print("| --- " * 7 + "|")
    onnx_upscale.optimize(chain(10), verify=False)  # imports and first calls
    for kind, make in (("residual chain", chain), ("dense blocks", dense_blocks)):
        for nodes in (100, 1_000, 10_000):
            print(row(kind, make, nodes), flush=True)


if __name__ == "__main__":
    main()
