"""What callers of the functions may mean: one value where several could be given, other numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import Net
from onnx_upscale import UsageError


def _model() -> onnx.ModelProto:
    net = Net(17, x=["n", 8])
    hidden = net("Relu", net("MatMul", "x", net.constant(net.random(8, 16), "first")))
    hidden = net("Relu", net("MatMul", hidden, net.constant(net.random(16, 16), "second")))
    return net.model(net("MatMul", hidden, net.constant(net.random(16, 4), "last")))


MODEL = _model()
MASKS = {"version": 1, "masks": {"second": {"input": [1, 2]}}}
DATA = np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32)


@pytest.mark.parametrize(
    ("call", "saying"),
    [
        (lambda: onnx_upscale.optimize(MODEL, MASKS, seed=-1), "`seed` -1: must be at least 0"),
        (lambda: onnx_upscale.verify(MODEL, MASKS, MODEL, seed=-1), "`seed` -1: must be"),
        (lambda: onnx_upscale.mask(MODEL, "random", 0.5, seed=-1), "`seed` -1: must be"),
        (lambda: onnx_upscale.recover(MODEL, MASKS, DATA, seed=-1), "`seed` -1: must be"),
        (lambda: onnx_upscale.analyze(MODEL).plan("best"), "unknown strategy 'best'"),
        (lambda: onnx_upscale.analyze(MODEL).plan_bodies("best"), "unknown strategy 'best'"),
        (lambda: onnx_upscale.optimize(b"\x08", MASKS), "a path or a ModelProto, found bytes"),  # type: ignore[arg-type]
        (lambda: onnx_upscale.optimize(MODEL, inputs={"x": (-1, 8)}), "`inputs` x=-1x8: sizes"),
        (lambda: onnx_upscale.optimize(MODEL, inputs={"x": "1x8"}), "`inputs` x: expected sizes"),  # type: ignore[dict-item]
        (
            lambda: onnx_upscale.optimize(MODEL, tune=True, strategy="gather"),
            "is for strategy",
        ),
        # One value is not taken letter by letter.
        (lambda: onnx_upscale.mask(MODEL, "l1", 0.5, layers="absent"), "`layers` absent: matches"),
        (lambda: onnx_upscale.mask(MODEL, "l1", 0.5, skip="absent"), "`skip` absent: matches"),
        (lambda: onnx_upscale.optimize(MODEL, verify_at="absent"), "`verify_at` absent: no node"),
        (
            lambda: onnx_upscale.prune(MODEL, DATA, macs=0.9, layers="absent"),
            "`layers` absent: matches no layer",
        ),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(call: Callable[[], Any], saying: str) -> None:
    with pytest.raises(UsageError, match=saying):
        call()


def test_one_alone_is_one_of_several() -> None:
    masks = onnx_upscale.mask(MODEL, "l1", 0.5, layers="second")
    assert set(masks["masks"]) == {"second"}
    assert len(onnx_upscale.bench(MODEL, runs=1, memory=False).models) == 1
    (pruned,) = onnx_upscale.prune_all(MODEL, DATA, "0.99", runs=1, layers="second")
    assert set(pruned.masks["masks"]) == {"second"}


def test_numbers_of_numpy_are_numbers() -> None:
    for sizes in (np.array([2, 8]), (np.int64(2), np.int32(8))):
        assert onnx_upscale.optimize(MODEL, MASKS, inputs={"x": sizes}).report.verify.ok  # type: ignore[dict-item]


def test_lists_are_arrays() -> None:
    found = onnx_upscale.recover(MODEL, MASKS, {"x": DATA.tolist()})
    wanted = onnx_upscale.recover(MODEL, MASKS, {"x": DATA})
    assert found.content == wanted.content


def test_sequences_that_a_model_gives_count_as_well() -> None:
    net = Net(17, x=["n", 8])
    hidden = net("Relu", net("MatMul", "x", net.random(8, 16), name="first"))
    made = net("MatMul", hidden, net.random(16, 6), name="last")
    parts = net("SplitToSequence", made, axis=1)
    model = net.model(parts)
    sequence = onnx.helper.make_tensor_sequence_value_info(parts, onnx.TensorProto.FLOAT, None)
    model.graph.output[0].CopyFrom(sequence)
    pruned = onnx_upscale.prune(model, DATA, macs=0.7, runs=1)
    assert pruned.report.verify.ok
    assert {each.name for each in pruned.report.recovered.outputs} >= {f"{parts}[0]", f"{parts}[5]"}
    assert pruned.report.recovered.error > 0
