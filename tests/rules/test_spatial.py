"""Pad, Resize and Upsample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from rule_cases import (
    CHANNELS,
    IDENTITY,
    Build,
    Case,
    MaskedNet,
    check_counts,
    check_random_masks,
    pinned,
    runs,
)


def _spatial() -> Iterator[Case]:
    def padded(mode: str, value: float, pads: Sequence[int]) -> Build:
        def build(n: MaskedNet, x: str) -> str:
            source = n("Sigmoid", x) if value else n("Relu", x)
            if n.opset >= 11:
                return n("Pad", source, n.ints(*pads), np.float32(value), mode=mode)
            return n("Pad", source, pads=list(pads), mode=mode, value=value)

        return build

    def resized(**how: Any) -> Build:
        scales = np.array([1, 1, 2, 1.5], np.float32)

        def build(n: MaskedNet, x: str) -> str:
            source = n("Sigmoid", x)
            # A region of interest is required in one operator set, and optional in the next.
            roi = {10: [], 11: [np.zeros(0, np.float32)]}.get(min(n.opset, 13), [""])
            return n("Resize", source, *roi, scales, **how)

        return build

    def cropped(n: MaskedNet, x: str) -> str:
        roi = np.array([0, 0, 0.2, 0.2, 1, 1, 1.4, 0.9], np.float32)
        return n(
            "Resize",
            n("Sigmoid", x),
            roi,
            "",
            n.ints(2, CHANNELS, 7, 7),
            mode="linear",
            coordinate_transformation_mode="tf_crop_and_resize",
            extrapolation_value=3.0,
        )

    around = [0, 0, 1, 2, 0, 0, 0, 1]
    for mode in ("constant", "reflect", "edge"):
        yield Case(f"Pad-{mode}", padded(mode, 0.0, around))
    yield Case("Pad-value", padded("constant", 0.7, around))
    yield pinned(
        "Pad-channels",
        padded("constant", 0.0, [0, 1, 0, 0, 0, 0, 0, 0]),
        follows=(100, *IDENTITY),
    )
    yield Case("Pad-cropping", padded("constant", 0.7, [0, 0, -1, -2, 0, 0, 0, 0]))
    yield Case(
        "Pad-axes",
        lambda n, x: n("Pad", n("Exp", x), n.ints(1, 2), np.float32(0.5), n.ints(-1)),
        since=18,
    )
    yield Case("Resize-nearest", resized(mode="nearest"), since=10)
    yield Case("Resize-linear", resized(mode="linear"), since=10)
    yield Case("Resize-cubic", resized(mode="cubic"), since=11)
    yield Case(
        "Resize-sizes",
        lambda n, x: n("Resize", x, "", "", n.ints(2, CHANNELS, 9, 8)),
        since=13,
    )
    yield Case(
        "Resize-axes",
        lambda n, x: n("Resize", x, "", "", n.ints(9, 8), axes=[2, 3]),
        since=18,
    )
    yield Case("Resize-crop", cropped, since=13)
    yield Case(
        "Upsample-attribute", lambda n, x: n("Upsample", x, scales=[1.0, 1.0, 2.0, 2.0]), until=8
    )
    yield Case(
        "Upsample-input",
        lambda n, x: n("Upsample", x, np.array([1, 1, 2, 2], np.float32)),
        since=9,
        until=9,
    )


CASES = tuple(_spatial())


@pytest.mark.parametrize(("case", "opset"), runs(CASES))
def test_random_masks_leave_the_function_of_the_masked_model(case: Case, opset: int) -> None:
    check_random_masks(case, opset)


@pytest.mark.parametrize(("case", "opset"), runs(CASES, few=True))
def test_channels_that_nobody_reads_go_and_pinned_ones_stay(case: Case, opset: int) -> None:
    check_counts(case, opset)
