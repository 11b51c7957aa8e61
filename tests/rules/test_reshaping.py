"""Reshapes, and what they make of channels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from rule_cases import (
    CHANNELS,
    SIZE,
    Case,
    MaskedNet,
    check_counts,
    check_random_masks,
    runs,
)


def _regrouping() -> Iterator[Case]:
    area = SIZE * SIZE
    per_pixel = tuple(channel for channel in range(CHANNELS) for _ in range(area))
    pairs, quarters = (0, 0, 1, 1, 2, 2, 3, 3), (0, 0, 0, 0, 1, 1, 1, 1)

    def heads(n: MaskedNet, x: str) -> str:
        tokens = n("Transpose", n.shaped(x, 2, CHANNELS, area), perm=[0, 2, 1])
        split = n("Transpose", n.shaped(tokens, 2, area, 4, 2), perm=[0, 2, 1, 3])
        scores = n.shaped(n.conv("x", "other", 4, pads=[1, 1, 1, 1]), 2, 4, area, 1)
        scores = n("MatMul", scores, n("Transpose", scores, perm=[0, 1, 3, 2]))
        mixed = n("MatMul", n("Softmax", scores, axis=3), split)
        return n.shaped(n("Transpose", mixed, perm=[0, 2, 1, 3]), 2, area, CHANNELS)

    def pixel_shuffle(n: MaskedNet, x: str) -> str:
        split = n("Transpose", n.shaped(x, 2, 2, 2, 2, 6, 6), perm=[0, 1, 4, 2, 5, 3])
        return n.shaped(split, 2, 2, 12, 12)

    def channel_shuffle(n: MaskedNet, x: str) -> str:
        return n.shaped(
            n("Transpose", n.shaped(x, 2, 2, 4, 6, 6), perm=[0, 2, 1, 3, 4]), 2, 8, 6, 6
        )

    def group_norm_by_hand(n: MaskedNet, x: str) -> str:
        grouped = n.shaped(x, 0, 4, -1)
        normed = n("InstanceNormalization", grouped, np.ones(4, np.float32), n.random(4))
        return n.shaped(normed, 2, CHANNELS, SIZE, SIZE)

    def group_norm_in_halves(n: MaskedNet, x: str) -> str:
        """The sizes that it goes back to are those of the tensor; a channel has a scale."""
        parameters = n.random(2), n.random(2)
        normed = n("InstanceNormalization", n.shaped(x, 0, 2, -1), *parameters)
        back = n.declare(n("Reshape", normed, n("Shape", x)), n.shape(x))
        return n("Add", n("Mul", back, n.random(8, 1, 1)), n.random(8, 1, 1))

    def squeezed(n: MaskedNet, x: str) -> str:
        wide = n.listed("Unsqueeze", x, "axes", [-3 if n.opset >= 11 else 2], 13)
        axis = 2 if len(n.shape(wide)) == 5 and n.shape(wide)[2] == 1 else 1
        return n.listed("Squeeze", n("Relu", wide), "axes", [axis], 13)

    def squeezed_all(n: MaskedNet, x: str) -> str:
        return n("Squeeze", n("GlobalMaxPool", x))

    yield Case("Squeeze-Unsqueeze", squeezed)
    yield Case("Squeeze-all", squeezed_all)
    yield Case("Flatten", lambda n, x: n("Flatten", n("Sigmoid", x)), follows=per_pixel)
    yield Case("Flatten-pooled", lambda n, x: n("Flatten", n("GlobalAveragePool", x), axis=1))
    yield Case("Flatten-2", lambda n, x: n("Flatten", x, axis=2), axis=0, follows=(*range(8),) * 2)
    yield Case("Reshape", lambda n, x: n.shaped(n("Sigmoid", x), 0, -1), follows=per_pixel)
    yield Case("Reshape-space", lambda n, x: n.shaped(x, 0, 0, -1))
    yield Case("Reshape-unit-axes", lambda n, x: n.shaped(x, 2, 1, 8, 6, 1, 6), axis=2)
    yield Case("Reshape-batch", lambda n, x: n.shaped(x, 1, -1, 6, 6), follows=(*range(8),) * 2)
    yield Case(
        "Reshape-heads", heads, roots=pairs, follows=pairs, prune=(1,), kept=6, axis=2, grows=False
    )
    yield Case("pixel-shuffle", pixel_shuffle, roots=quarters, follows=(0, 1), prune=(0,), kept=4)
    yield Case(
        "channel-shuffle",
        channel_shuffle,
        follows=(0, 4, 1, 5, 2, 6, 3, 7),
    )
    yield Case(
        "group-norm-by-hand",
        group_norm_by_hand,
        roots=pairs,
        follows=pairs,
        prune=(0, 2),
        kept=4,
    )
    yield Case(
        "group-norm-in-halves",
        group_norm_in_halves,
        roots=quarters,
        follows=quarters,
        prune=(1,),
        kept=4,
        grows=False,
    )
    yield Case(
        "Expand",
        lambda n, x: n("Expand", n("GlobalMaxPool", x), n.ints(2, CHANNELS, 4, 4)),
        since=8,
    )
    yield Case("Expand-ones", lambda n, x: n("Expand", x, n.ints(3, 1, 1, 1, 1)), since=8, axis=2)


CASES = tuple(_regrouping())


@pytest.mark.parametrize(("case", "opset"), runs(CASES))
def test_random_masks_leave_the_function_of_the_masked_model(case: Case, opset: int) -> None:
    check_random_masks(case, opset)


@pytest.mark.parametrize(("case", "opset"), runs(CASES, few=True))
def test_channels_that_nobody_reads_go_and_pinned_ones_stay(case: Case, opset: int) -> None:
    check_counts(case, opset)
