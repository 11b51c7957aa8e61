"""Networks of whole numbers that stand for real ones, in QOperator form."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from build import Array, Net, input_values, run
from mask_document import Masks
from rule_cases import SIZE

MICROSOFT = "com.microsoft"


class QNet(Net):
    """A net of whole numbers, in which what masks prune is written as zero points."""

    def __init__(self, seed: int, masks: Masks, kind: Any = np.uint8, unsigned: bool = False):
        super().__init__(19, seed, x=(2, 3, SIZE, SIZE))
        self.masks, self.kind = masks, kind
        self.weight_kind = np.uint8 if unsigned else np.int8

    def gone(self, key: str) -> list[int]:
        return list(self.masks.get(key, ()))

    def encoding(self, scale: float = 0.05) -> tuple[Array, Array]:
        """A scale and a zero point for activations; both new each time."""
        scale = float(scale * self.rng.uniform(0.7, 1.4))
        zero = self.rng.integers(100, 140) - (128 if self.kind == np.int8 else 0)
        return np.array(scale, np.float32), np.array(zero, self.kind)

    def weights(
        self, name: str, shape: tuple[int, ...], into: int, out: int, per_channel: bool = True
    ) -> tuple[Array, Array, Array]:
        """A weight with its scale and zero point; nothing in it is zero but what masks prune."""
        count = shape[out] if per_channel else 1
        lowest = 0 if self.weight_kind == np.uint8 else -128
        # onnxruntime takes the same one for all channels only.
        zero = np.full(count, self.rng.integers(120, 136) + lowest).astype(self.weight_kind)
        scale = self.rng.uniform(0.005, 0.02, count).astype(np.float32)
        spread = [1] * len(shape)
        spread[out] = count
        steps = self.rng.integers(1, 60, shape) * self.rng.choice([-1, 1], shape)
        for side, axis in (("input", into), ("output", out)):
            np.moveaxis(steps, axis, 0)[self.gone(f"{name}.{side}")] = 0
        stored = (steps + zero.reshape(spread).astype(np.int64)).astype(self.weight_kind)
        if not per_channel:
            return stored, scale.reshape(()), zero.reshape(())
        return stored, scale, zero

    def bias(self, name: str, count: int) -> Array:
        made = self.rng.integers(-2000, 2000, count).astype(np.int32)
        made[self.gone(f"{name}.output")] = 0
        return made

    def conv(
        self, data: tuple[str, Array, Array], name: str, shape: tuple[int, ...],
        bias: bool = True, per_channel: bool = True, **attributes: Any,
    ) -> tuple[str, Array, Array]:  # fmt: skip
        weight, scale, zero = self.weights(name, shape, 1, 0, per_channel)
        if attributes.get("group", 1) > 1:
            weight = self._grouped(name, shape, weight, zero)
        made = self.encoding(0.1)
        last = [self.bias(name, shape[0])] if bias else []
        inputs: list[Any] = [*data, weight, scale, zero, *made, *last]
        return self("QLinearConv", *inputs, name=name, **attributes), *made

    def _grouped(self, name: str, shape: tuple[int, ...], weight: Array, zero: Array) -> Array:
        """Input channels of single ones are those of the groups."""
        assert shape[1] == 1
        weight[self.gone(f"{name}.input")] = zero.ravel()[0]
        return weight

    def microsoft(
        self, op: str, *inputs: Any, scale: float = 0.05, **attributes: Any
    ) -> tuple[str, Array, Array]:
        made = self.encoding(scale)
        return self(op, *inputs, *made, domain=MICROSOFT, **attributes), *made

    def finished(self, result: str, rank: int) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "net", self.inputs, [], self.initializers)
        value = helper.make_tensor_value_info(result, TensorProto.FLOAT, [None] * rank)
        graph.output.append(value)
        imports = [helper.make_opsetid("", self.opset), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=8)
        (made,) = run(model, input_values(model))
        value = helper.make_tensor_value_info(result, TensorProto.FLOAT, made.shape)
        graph.output[0].CopyFrom(value)
        return helper.make_model(graph, opset_imports=imports, ir_version=8)
