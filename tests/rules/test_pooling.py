"""Pooling and reductions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from rule_cases import (
    CHANNELS,
    PRUNED,
    Build,
    Case,
    MaskedNet,
    check_counts,
    check_random_masks,
    mixing,
    of_sigmoid,
    pinned,
    runs,
)

_REDUCTIONS = (
    "ReduceMean ReduceMax ReduceMin ReduceSum ReduceL1 ReduceL2 ReduceSumSquare ReduceProd "
    "ReduceLogSum ReduceLogSumExp"
)


def _pools() -> Iterator[Case]:
    window: Mapping[str, Any] = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}

    def argument(axis: int) -> Build:
        return lambda n, x: n("Cast", n("ArgMax", x, axis=axis), to=TensorProto.FLOAT)

    def with_indices(n: MaskedNet, x: str) -> str:
        values, indices = n.nodes_of("MaxPool", x, outputs=2, **window)
        return n("Add", values, n("Cast", indices, to=TensorProto.FLOAT))

    def padded_constant(op: str, **more: Any) -> Build:
        return lambda n, x: n(op, n("Sigmoid", x), **window, **more)

    def reduced(op: str, axes: Sequence[int], **how: Any) -> Build:
        return lambda n, x: n.reduce(op, n("Sigmoid", x), axes, **how)

    def zeros_reduced(op: str) -> Build:
        return lambda n, x: n.reduce(op, n("Relu", x), [1])

    for op in ("MaxPool", "AveragePool"):
        yield Case(op, padded_constant(op))
        yield Case(f"{op}-ceil", padded_constant(op, ceil_mode=1), since=10)
    yield Case("AveragePool-counting-pads", padded_constant("AveragePool", count_include_pad=1))
    yield Case(
        "AveragePool-same",
        lambda n, x: n(
            "AveragePool",
            n("Sigmoid", x),
            kernel_shape=[3, 3],
            auto_pad="SAME_UPPER",
            count_include_pad=1,
        ),
    )
    yield Case("LpPool", padded_constant("LpPool"))
    yield pinned("MaxPool-indices", with_indices, since=8)
    for op in ("GlobalAveragePool", "GlobalMaxPool"):
        yield Case(op, of_sigmoid(op))
    # Its newest version has a kernel nowhere.
    yield Case("GlobalLpPool", of_sigmoid("GlobalLpPool"), until=21)
    for op in _REDUCTIONS.split():
        yield Case(f"{op}-over-space", reduced(op, [2, -1]))
        yield Case(f"{op}-dropping-axes", reduced(op, [2, 3], keepdims=0))
        yield mixing(f"{op}-over-channels", reduced(op, [1]))
        drops = op in ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")
        kept = CHANNELS - len(PRUNED) if drops else CHANNELS
        if op not in ("ReduceLogSum", "ReduceProd"):  # Logarithms and products of zeros say little.
            yield mixing(f"{op}-over-zeros", zeros_reduced(op), kept=kept)
    yield mixing("ArgMax-over-channels", argument(1))
    yield Case("ArgMax-over-space", argument(2))
    yield mixing(
        "ReduceMean-over-all",
        lambda n, x: n.shaped(n("ReduceMean", x), 1, 1, 1, 1),
    )
    for axis in (1, 2):
        case = pinned if axis == 1 else Case
        yield case(
            f"CumSum-{axis}",
            lambda n, x, axis=axis: n("CumSum", x, np.int64(axis)),  # type: ignore[misc]
            since=11,
        )


CASES = tuple(_pools())


@pytest.mark.parametrize(("case", "opset"), runs(CASES))
def test_random_masks_leave_the_function_of_the_masked_model(case: Case, opset: int) -> None:
    check_random_masks(case, opset)


@pytest.mark.parametrize(("case", "opset"), runs(CASES, few=True))
def test_channels_that_nobody_reads_go_and_pinned_ones_stay(case: Case, opset: int) -> None:
    check_counts(case, opset)
