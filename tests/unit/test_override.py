"""Masked constants, and what is left of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onnx_upscale.optimizer.load.graph import Override

SHAPE = 4, 3, 5


@given(
    zeroed=st.lists(
        st.integers(0, 2).flatmap(
            lambda axis: st.tuples(
                st.just(axis), st.lists(st.integers(0, SHAPE[axis] - 1), unique=True)
            )
        ),
        max_size=3,
    ),
    takes=st.fixed_dictionaries(
        {}, optional={axis: st.lists(st.integers(0, SHAPE[axis] - 1)) for axis in range(3)}
    ),
    blank=st.sampled_from([0, 7, np.arange(3).reshape(3, 1)]),
    stays=st.sampled_from([None, np.arange(5) > 2]),
)
def test_what_is_left_is_that_of_the_masked_constant(
    zeroed: list[tuple[int, list[int]]],
    takes: dict[int, list[int]],
    blank: int | np.ndarray,
    stays: np.ndarray | None,
) -> None:
    original = np.arange(1, 61).reshape(SHAPE)
    override = Override(
        original, tuple((axis, np.array(places, int)) for axis, places in zeroed), stays, blank
    )
    kept = {axis: np.array(places, int) for axis, places in takes.items()}
    found = override.taken(kept)
    whole = [np.array(kept.get(axis, range(size)), int) for axis, size in enumerate(SHAPE)]
    assert np.array_equal(found, override.values[np.ix_(*whole)])
    assert np.array_equal(original, np.arange(1, 61).reshape(SHAPE))


def test_what_leaves_is_not_masked_first() -> None:
    override = Override(np.ones((4, 3)), ((0, np.array([1])),))
    kept = override.taken({0: np.array([0, 2])})
    assert "values" not in vars(override)
    assert np.array_equal(kept, np.ones((2, 3)))
