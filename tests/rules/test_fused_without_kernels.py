"""What onnxruntime fuses and has no kernels for on a CPU: run by the reference implementation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

import onnx_upscale
from build import Net, assert_close, input_values, weight_shape

MICROSOFT = "com.microsoft"
MASKS = {"version": 1, "masks": {"last": {"input": [1, 2, 6]}}}


class _BiasAdd(OpRun):
    op_domain = MICROSOFT

    def _run(self, data: Any, bias: Any, skip: Any) -> Any:
        return (data + bias + skip,)


class _BiasSplitGelu(OpRun):
    op_domain = MICROSOFT

    def _run(self, data: Any, bias: Any) -> Any:
        left, right = np.split(data + bias, 2, axis=-1)
        gate = 0.5 * right * (1 + np.vectorize(math.erf)(right / math.sqrt(2)))
        return ((left * gate).astype(data.dtype),)


_BiasAdd.__name__, _BiasSplitGelu.__name__ = "BiasAdd", "BiasSplitGelu"


def _equal(one: onnx.ModelProto, other: onnx.ModelProto) -> None:
    """Runs both in ONNX's reference implementation: onnxruntime has no kernels for a CPU."""
    values = input_values(one)
    operators: Any = [_BiasAdd, _BiasSplitGelu]
    wanted, got = (
        np.asarray(next(iter(ReferenceEvaluator(model, new_ops=operators).run(None, dict(values)))))
        for model in (one, other)
    )
    assert_close([wanted], [got])


@pytest.mark.parametrize("strategy", ["auto", "gather"])
def test_halves_of_a_gated_unit_lose_the_same_channels(strategy: Any) -> None:
    def model(gone: list[int]) -> onnx.ModelProto:
        net = Net(17, x=(2, 5, 6))
        first = net("MatMul", "x", net.random(6, 16), name="first")
        made = net("BiasSplitGelu", first, net.random(16), domain=MICROSOFT, name="gate")
        weight = net.random(8, 3)
        weight[gone] = 0
        return net.model(net("MatMul", net.declare(made, (2, 5, 8)), weight, name="last"))

    made = onnx_upscale.optimize(model([]), MASKS, strategy=strategy, verify=False).model
    shapes = [weight_shape(made, name) for name in ("first", "gate", "last")]
    assert shapes == [(6, 10), (10,), (5, 3)]
    _equal(model([1, 2, 6]), made)


@pytest.mark.parametrize("strategy", ["auto", "gather"])
def test_what_is_added_with_a_bias_loses_the_same_channels(strategy: Any) -> None:
    def model(gone: list[int]) -> onnx.ModelProto:
        net = Net(17, x=(2, 5, 6))
        one, two = (net("MatMul", "x", net.random(6, 8), name=name) for name in ("one", "two"))
        made = net("BiasAdd", one, net.random(8), two, domain=MICROSOFT, name="add")
        weight = net.random(8, 3)
        weight[gone] = 0
        return net.model(net("MatMul", net.declare(made, (2, 5, 8)), weight, name="last"))

    made = onnx_upscale.optimize(model([]), MASKS, strategy=strategy, verify=False).model
    shapes = [weight_shape(made, name) for name in ("one", "two", "add", "last")]
    assert shapes == [(6, 5), (6, 5), (5,), (5, 3)]
    _equal(model([1, 2, 6]), made)
