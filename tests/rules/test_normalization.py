"""Normalizations, per channel and over channels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import onnx_upscale
from build import Net, weight_shape
from rule_cases import (
    CHANNELS,
    SIZE,
    Build,
    Case,
    MaskedNet,
    check_counts,
    check_random_masks,
    pinned,
    runs,
)


def _normalizations() -> Iterator[Case]:
    def batch(n: MaskedNet, x: str) -> str:
        scale, bias = n.affine(n.random(CHANNELS)), n.affine(n.random(CHANNELS))
        mean, variance = n.random(CHANNELS), np.abs(n.random(CHANNELS))
        # The mean is of no matter where the scale is zero.
        return n("BatchNormalization", x, scale, bias, mean, variance)

    def batch_behind(n: MaskedNet, x: str) -> str:
        parameters = [n.random(CHANNELS), n.random(CHANNELS), n.random(CHANNELS)]
        return n("BatchNormalization", n("Relu", x), *parameters, np.abs(n.random(CHANNELS)))

    def batch_by_position(n: MaskedNet, x: str) -> str:
        shape = CHANNELS, SIZE, SIZE
        parameters = [n.random(*shape), n.random(*shape), n.random(*shape)]
        return n("BatchNormalization", x, *parameters, np.abs(n.random(*shape)), spatial=0)

    def layer(n: MaskedNet, x: str) -> str:
        moved = n("Transpose", x, perm=[0, 2, 3, 1])
        return n("LayerNormalization", moved, n.random(CHANNELS), n.random(CHANNELS))

    def root_mean_square(n: MaskedNet, x: str) -> str:
        return n("RMSNormalization", n("Transpose", x, perm=[0, 2, 3, 1]), n.random(CHANNELS))

    def group(n: MaskedNet, x: str) -> str:
        made = n("GroupNormalization", x, n.random(CHANNELS), n.random(CHANNELS), num_groups=4)
        return n.declare(made, n.shape(x))

    def mean_variance(**how: Any) -> Build:
        def build(n: MaskedNet, x: str) -> str:
            # No channel is constant here: onnxruntime makes NaN of those.
            source = n("Add", x, n.conv("x", "other", CHANNELS, pads=[1, 1, 1, 1]))
            return n.declare(n("MeanVarianceNormalization", source, **how), n.shape(x))

        return build

    yield Case("BatchNormalization", batch)
    yield Case("BatchNormalization-behind-Relu", batch_behind)
    yield Case("BatchNormalization-by-position", batch_by_position, until=8)
    yield Case(
        "InstanceNormalization",
        lambda n, x: n("InstanceNormalization", x, n.random(CHANNELS), n.random(CHANNELS)),
    )
    yield pinned("LayerNormalization", layer, since=17, axis=3)
    yield Case(
        "LayerNormalization-over-space",
        lambda n, x: n("LayerNormalization", x, n.random(6, 6), n.random(6, 6), axis=2),
        since=17,
    )
    yield pinned(
        "LayerNormalization-over-all",
        lambda n, x: n(
            "LayerNormalization", x, n.random(CHANNELS, 6, 6), n.random(CHANNELS, 6, 6), axis=1
        ),
        since=17,
    )
    yield pinned("RMSNormalization", root_mean_square, since=23, axis=3)
    pairs = (0, 0, 1, 1, 2, 2, 3, 3)
    yield Case(
        "GroupNormalization", group, pairs, pairs, prune=(1, 3), kept=4, since=21
    )  # Deprecated before.
    yield pinned("LRN", lambda n, x: n("LRN", x, size=3))
    for op in ("Softmax", "LogSoftmax"):
        yield pinned(op, lambda n, x, op=op: n(op, x, axis=1))  # type: ignore[misc]
        yield Case(f"{op}-over-space", lambda n, x, op=op: n(op, x, axis=3))  # type: ignore[misc]
        yield pinned(f"{op}-default-old", lambda n, x, op=op: n(op, x), until=12)  # type: ignore[misc]
        yield Case(f"{op}-default", lambda n, x, op=op: n(op, x), since=13)  # type: ignore[misc]
    yield pinned("Hardmax", lambda n, x: n("Hardmax", x, axis=1))
    yield pinned("LpNormalization", lambda n, x: n("LpNormalization", x, axis=1))
    # Newer operator sets have no kernel in older onnxruntimes, and the reference divides by zero.
    yield Case("LpNormalization-over-space", lambda n, x: n("LpNormalization", x, axis=2), until=18)
    # Shape inference of onnx 1.23 fails on its function in newer operator sets.
    yield Case("MeanVarianceNormalization", mean_variance(), since=9, until=12)
    yield pinned(
        "MeanVarianceNormalization-over-channels",
        mean_variance(axes=[1, 2, 3]),
        since=9,
        until=12,
    )


CASES = tuple(_normalizations())


@pytest.mark.parametrize(("case", "opset"), runs(CASES))
def test_random_masks_leave_the_function_of_the_masked_model(case: Case, opset: int) -> None:
    check_random_masks(case, opset)


@pytest.mark.parametrize(("case", "opset"), runs(CASES, few=True))
def test_channels_that_nobody_reads_go_and_pinned_ones_stay(case: Case, opset: int) -> None:
    check_counts(case, opset)


@pytest.mark.parametrize(
    ("opset", "given"),
    [(7, {}), (7, {"spatial": 1}), (8, {"spatial": 1}), (9, {}), (15, {})],
)
def test_channels_of_a_known_value_leave_behind_a_normalization(
    opset: int, given: dict[str, Any]
) -> None:
    net = Net(opset, x=(1, 3, SIZE, SIZE))
    weight = net.random(CHANNELS, 3, 1, 1)
    weight[[1, 3]] = 0  # What is normalized is then zero, and what is made of that is not.
    parameters = [net.random(CHANNELS), net.random(CHANNELS), net.random(CHANNELS)]
    made = net("Conv", "x", weight, name="first")
    made = net("BatchNormalization", made, *parameters, np.abs(net.random(CHANNELS)), **given)
    model = net.model(net("Conv", net("Sigmoid", made), net.random(4, CHANNELS, 1, 1)))
    result = onnx_upscale.optimize(model, strategy="gather")
    assert weight_shape(result.model, "first") == (CHANNELS - 2, 3, 1, 1)
    assert result.report.verify.ok


def test_an_output_mask_stops_at_parameters_of_every_position() -> None:
    """Such a normalization is no affine map per channel: what it adds to a zero stays."""
    net = Net(7, x=(1, 3, SIZE, SIZE))
    shape = CHANNELS, SIZE, SIZE
    parameters = [net.random(*shape), net.random(*shape), net.random(*shape)]
    made = net("Conv", "x", net.random(CHANNELS, 3, 1, 1), name="first")
    made = net("BatchNormalization", made, *parameters, np.abs(net.random(*shape)), spatial=0)
    model = net.model(net("Conv", made, net.random(4, CHANNELS, 1, 1)))
    masks = {"version": 1, "masks": {"first": {"output": [4, 5]}}}
    assert onnx_upscale.optimize(model, masks).report.verify.ok


def test_the_norm_of_what_masks_make_zero_is_no_difference() -> None:
    """Weights of whole numbers that stand for zero leave rounding noise, and that is normalized."""
    net = Net(17, x=(1, 12, 2))
    stored = np.array([[-9], [-50]], np.int8)
    weight = net("DequantizeLinear", stored, np.float32(0.0135), np.int8(-3))
    made = net("Add", net("MatMul", "x", weight, name="layer"), np.array([-0.3], np.float32))
    model = net.model(net("LpNormalization", net("Add", made, np.float32(3)), axis=1))
    masks = {"version": 1, "masks": {"layer": {"output": [0]}}}
    assert onnx_upscale.optimize(model, masks).report.verify.ok
