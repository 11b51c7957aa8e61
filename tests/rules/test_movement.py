"""Operators that move channels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from rule_cases import (
    CHANNELS,
    IDENTITY,
    SIZE,
    Build,
    Case,
    MaskedNet,
    check_counts,
    check_random_masks,
    operand,
    pinned,
    runs,
)


def _cut(n: MaskedNet, x: str, sizes: Sequence[int]) -> list[str]:
    if n.opset >= 13:
        return n.nodes_of("Split", x, n.ints(*sizes), outputs=len(sizes), axis=1)
    return n.nodes_of("Split", x, outputs=len(sizes), axis=1, split=list(sizes))


def _sliced(
    starts: Sequence[int], ends: Sequence[int], axes: Sequence[int], steps: Sequence[int] = ()
) -> Build:
    def build(n: MaskedNet, x: str) -> str:
        if n.opset < 10:
            return n("Slice", x, starts=list(starts), ends=list(ends), axes=list(axes))
        more = [n.ints(*steps)] if steps else []
        return n("Slice", x, n.ints(*starts), n.ints(*ends), n.ints(*axes), *more)

    return build


def _movements() -> Iterator[Case]:
    quarters = (0, 0, 0, 0, 1, 1, 1, 1)
    eight, others = range(CHANNELS), tuple(range(100, 100 + CHANNELS))

    def there_and_back(n: MaskedNet, x: str) -> str:
        return n("Transpose", n("Relu", n("Transpose", x)))

    def split_even(n: MaskedNet, x: str) -> str:
        if n.opset >= 18:
            parts = n.nodes_of("Split", x, outputs=3, axis=1, num_outputs=3)
        else:
            parts = _cut(n, x, (3, 3, 2))
        return n("Concat", *reversed(parts), axis=1)

    def split_space(n: MaskedNet, x: str) -> str:
        parts = n.nodes_of(
            "Split", x, *([n.ints(3, 3)] if n.opset >= 13 else []), outputs=2, axis=2
        )
        return n("Concat", parts[1], parts[0], axis=3)

    yield Case("Transpose", lambda n, x: n("Transpose", x, perm=[1, 0, 3, 2]), axis=0)
    yield Case("Transpose-default", there_and_back)
    yield Case(
        "Concat-other",
        lambda n, x: n("Concat", operand(n, "activations"), n("Relu", x), axis=1),
        follows=(*others, *eight),
    )
    yield Case("Concat-itself", lambda n, x: n("Concat", x, x, axis=-3 if n.opset >= 11 else 1),
               follows=(*eight, *eight))  # fmt: skip
    yield Case(
        "Concat-constant",
        lambda n, x: n("Concat", x, n.random(2, 3, 6, 6), axis=1),
        follows=(*eight, *others[:3]),
    )
    yield Case(
        "Concat-input", lambda n, x: n("Concat", "x", x, axis=1), follows=(*others[:3], *eight)
    )
    yield Case("Concat-space", lambda n, x: n("Concat", x, n("Sigmoid", x), axis=2))
    yield Case(
        "Concat-space-constant", lambda n, x: n("Concat", x, n.random(2, CHANNELS, 2, 6), axis=2)
    )
    yield Case(
        "Split-swapped",
        lambda n, x: n("Concat", *reversed(_cut(n, x, (3, 5))), axis=1),
        follows=(3, 4, 5, 6, 7, 0, 1, 2),
    )
    yield Case("Split-one", lambda n, x: _cut(n, x, (3, 5))[1], follows=(3, 4, 5, 6, 7), kept=3)
    yield Case(
        "Split-gone",
        lambda n, x: n("Concat", *_cut(n, x, (1, 3, 2, 2)), axis=1),
    )
    yield Case("Split-thirds", split_even, follows=(6, 7, 3, 4, 5, 0, 1, 2))
    yield Case(
        "Split-added",
        lambda n, x: n("Add", *_cut(n, x, (4, 4))),
        roots=(0, 1, 2, 3) * 2,
        follows=(0, 1, 2, 3),
        prune=(1,),
        kept=6,
    )
    yield Case("Split-space", split_space)
    yield Case("Slice", _sliced([2], [7], [1]), follows=(2, 3, 4, 5, 6), kept=3)
    yield Case("Slice-space", _sliced([1, -5], [99, -1], [2, 3]))
    yield Case("Slice-ends", _sliced([-6, 0], [-1, 4], [1, 2]), follows=(2, 3, 4, 5, 6), kept=3)
    yield Case("Slice-steps", _sliced([1], [7], [1], [2]), follows=(1, 3, 5), kept=1, since=10)
    yield Case(
        "Slice-reversed",
        _sliced([-1], [-999], [1], [-1]),
        follows=IDENTITY[::-1],
        since=10,
    )
    yield Case("Slice-back", _sliced([6, 4], [0, 1], [1, 2], [-2, -1]),
               follows=(6, 4, 2), kept=2, since=10)  # fmt: skip
    yield Case(
        "Slice-default-axes",
        lambda n, x: n("Slice", x, n.ints(0, 1), n.ints(2, 7)),
        follows=(1, 2, 3, 4, 5, 6),
        kept=3,
        since=10,
    )
    picks = (7, 2, 2, -8, 5)
    yield Case(
        "Gather",
        lambda n, x: n("Gather", x, n.ints(*(p % 8 if n.opset < 11 else p for p in picks)), axis=1),
        follows=(7, 2, 2, 0, 5),
        prune=(2, 5),
        kept=2,
    )
    yield Case("Gather-space", lambda n, x: n("Gather", x, n.ints(3, 0, 0), axis=2))
    yield Case("Gather-scalar-space", lambda n, x: n("Gather", x, np.int64(1), axis=2))
    yield pinned(
        "Gather-matrix",
        lambda n, x: n.shaped(n("Gather", x, np.array([[0, 3], [1, 6]]), axis=1), 2, 4, SIZE, SIZE),
        follows=(0, 3, 1, 6),
    )
    yield Case(
        "Tile-channels",
        lambda n, x: n("Tile", x, n.ints(1, 2, 1, 1)),
        follows=(*eight, *eight),
    )
    yield Case("Tile-space", lambda n, x: n("Tile", x, n.ints(1, 1, 2, 1)))
    for mode, roots in ((b"DCR", (0, 1) * 4), (b"CRD", quarters)):
        yield Case(
            f"DepthToSpace-{mode.decode()}",
            lambda n, x, mode=mode: n(  # type: ignore[misc]
                "DepthToSpace", x, blocksize=2, **({"mode": mode} if n.opset >= 11 else {})
            ),
            roots=roots,
            follows=(0, 1),
            prune=(0,),
            kept=4,
            since=7 if mode == b"DCR" else 11,
        )
    yield Case(
        "SpaceToDepth",
        lambda n, x: n("SpaceToDepth", x, blocksize=2),
        follows=(*range(CHANNELS),) * 4,
    )
    yield Case(
        "SpaceToDepth-CRD",
        lambda n, x: n("SpaceToDepth", x, blocksize=2, mode="CRD"),
        follows=tuple(np.repeat(range(CHANNELS), 4).tolist()),
        since=28,
    )


CASES = tuple(_movements())


@pytest.mark.parametrize(("case", "opset"), runs(CASES))
def test_random_masks_leave_the_function_of_the_masked_model(case: Case, opset: int) -> None:
    check_random_masks(case, opset)


@pytest.mark.parametrize(("case", "opset"), runs(CASES, few=True))
def test_channels_that_nobody_reads_go_and_pinned_ones_stay(case: Case, opset: int) -> None:
    check_counts(case, opset)
