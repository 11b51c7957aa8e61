"""Sizes: which axis each entry of a shape vector is read from, and which nodes only move them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from build import Net
from onnx_upscale.optimizer.analyze.sizes import Size, Sizes, trace_sizes
from onnx_upscale.optimizer.load import load


def net(opset: int = 17) -> Net:
    return Net(opset, x=("n", 3, "h", "w"))


def traced(net: Net, *names: str) -> tuple[list[Sizes | None], set[str]]:
    """The sizes in some tensors, and the names of the nodes that only move sizes."""
    graph = load(net.model(*names)).graph
    sizes, movers = trace_sizes(graph)
    return [sizes.get(name) for name in names], {graph.nodes[index].title for index in movers}


def of_x(*axes: int | None) -> Sizes:
    return tuple(None if axis is None else Size("x", axis) for axis in axes)


def test_a_shape_has_every_axis_in_order() -> None:
    made = net()
    assert traced(made, made("Shape", "x", name="shape")) == ([of_x(0, 1, 2, 3)], {"shape"})


@pytest.mark.parametrize(
    ("bounds", "axes"),
    [
        ({"start": 1}, (1, 2, 3)),
        ({"end": 2}, (0, 1)),
        ({"start": 1, "end": 3}, (1, 2)),
        ({"start": -2}, (2, 3)),
        ({"end": -1}, (0, 1, 2)),
        ({"start": -9, "end": 9}, (0, 1, 2, 3)),
    ],
)
def test_a_part_of_a_shape(bounds: dict[str, Any], axes: tuple[int, ...]) -> None:
    made = net()
    assert traced(made, made("Shape", "x", **bounds))[0] == [of_x(*axes)]


@pytest.mark.parametrize(
    ("indices", "axes"), [(2, (2,)), ([2], (2,)), ([3, 0, 0], (3, 0, 0)), ([-1, -3], (3, 1))]
)
def test_gather_takes_entries(indices: int | list[int], axes: tuple[int, ...]) -> None:
    made = net()
    taken = made("Gather", made("Shape", "x"), np.array(indices, np.int64), name="take")
    found, movers = traced(made, taken)
    assert found == [of_x(*axes)]
    assert "take" in movers


@pytest.mark.parametrize(
    ("bounds", "axes"),
    [
        ((1, 3), (1, 2)),
        ((0, 2**62), (0, 1, 2, 3)),
        ((-2, 2**62), (2, 3)),
        ((0, -1), (0, 1, 2)),
        ((0, 4, 2), (0, 2)),
        ((3, -9, -1), (3, 2, 1, 0)),
    ],
)
def test_slice_takes_a_range(bounds: tuple[int, ...], axes: tuple[int, ...]) -> None:
    made = net()
    start, end, *step = (made.ints(bound) for bound in bounds)
    cut = made("Slice", made("Shape", "x"), start, end, made.ints(0), *step)
    assert traced(made, cut)[0] == [of_x(*axes)]


def test_concat_lays_entries_side_by_side_and_constants_are_none() -> None:
    made = net()
    shape = made("Shape", "x")
    first = made("Gather", shape, made.ints(0))
    last = made("Gather", shape, made.ints(3, 2))
    whole = made("Concat", first, made.ints(-1, 7), last, axis=0, name="whole")
    found, movers = traced(made, whole)
    assert found == [of_x(0, None, None, 3, 2)]
    assert "whole" in movers


def test_what_only_wraps_or_converts_keeps_entries() -> None:
    made = net()
    scalar = made("Gather", made("Shape", "x"), np.array(1, np.int64))
    vector = made("Unsqueeze", scalar, made.ints(0))
    names = [
        vector,
        made("Squeeze", vector, made.ints(0)),
        made("Identity", vector),
        made("Cast", vector, to=1),
    ]
    assert traced(made, *names)[0] == [of_x(1)] * 4


def test_arithmetic_ends_the_trace_and_moves_nothing() -> None:
    made = net()
    shape = made("Shape", "x", name="shape")
    doubled = made("Mul", shape, made.ints(2), name="doubled")
    after = made("Gather", doubled, made.ints(1), name="after")
    mixed = made("Concat", shape, doubled, axis=0, name="mixed")
    found, movers = traced(made, shape, after, mixed)
    assert found == [of_x(0, 1, 2, 3), None, of_x(0, 1, 2, 3, None, None, None, None)]
    assert movers == {"shape", "mixed"}


def test_entries_that_are_chosen_at_run_time_are_not_known() -> None:
    made = net()
    shape = made("Shape", "x", name="shape")
    index = made("Cast", made("ReduceMax", "x", keepdims=0), to=7)
    assert traced(made, made("Gather", shape, index)) == ([None], {"shape"})


def test_sizes_are_those_of_the_tensor_that_is_measured() -> None:
    made = net()
    shown = made("Relu", "x")
    found, _ = traced(made, made("Shape", shown, start=1, end=2))
    assert found == [(Size(shown, 1),)]


def test_very_long_vectors_are_let_go() -> None:
    made = net()
    shape = made("Shape", "x")
    longest = made("Concat", *[shape] * 16, axis=0, name="longest")
    longer = made("Concat", longest, made.ints(1), axis=0, name="longer")
    found, movers = traced(made, longest, longer)
    assert found == [of_x(*[0, 1, 2, 3] * 16), None]
    assert "longest" in movers and "longer" not in movers
