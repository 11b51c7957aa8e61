"""What masks of a side make zero, seen by gates in place of weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from build import Array, Net
from mask_witness import check, gate, masks_of

pruned_of = st.lists(st.integers(0, 5), max_size=6, unique=True)


class TestInputSide:
    @settings(deadline=None, max_examples=12)
    @given(pruned_of, st.sampled_from([1, 2, 3, 6]), st.sampled_from(["Conv", "ConvTranspose"]))
    def test_groups(self, pruned: list[int], groups: int, op: str) -> None:
        net = Net(17, x=[1, 4, 5, 5])
        data = net("Relu", net("Conv", "x", net.random(6, 4, 1, 1)))
        shape = (6, 6 // groups) if op == "Conv" else (6, 1)
        bias = net.random(6 if op == "Conv" else groups)
        out = net(op, data, net.random(*shape, 3, 3), bias, name="layer", group=groups)
        model = net.model(out)
        check(model, masks_of(input=pruned), gate(model, data, 1, pruned, "layer"))

    @settings(deadline=None, max_examples=12)
    @given(pruned_of, st.sampled_from(["plain", "transB", "transA", "left", "vector", "batched"]))
    def test_products(self, pruned: list[int], kind: str) -> None:
        net = Net(17, x=[3, 6])
        data = net("Relu", net("MatMul", "x", net.random(6, 6)))
        axis = 1
        if kind == "plain":
            out = net("Gemm", data, net.random(6, 4), name="layer")
        elif kind == "transB":
            out = net("Gemm", data, net.random(4, 6), net.random(4), name="layer", transB=1)
        elif kind == "transA":
            data, axis = net("Transpose", data, perm=[1, 0]), 0
            out = net("Gemm", data, net.random(6, 4), name="layer", transA=1)
        elif kind == "left":
            data, axis = net("Transpose", data, perm=[1, 0]), 0
            out = net("MatMul", net.random(4, 6), data, name="layer")
        elif kind == "vector":
            out = net("MatMul", data, net.random(6), name="layer")
        else:
            out = net("MatMul", data, net.random(2, 6, 4), name="layer")
        model = net.model(out)
        check(model, masks_of(input=pruned), gate(model, data, axis, pruned, "layer"))


def broadcasts(value: Array, axes: int) -> Array:
    """A value per channel, for a tensor with axes behind the channels."""
    return value.reshape(-1, *[1] * axes)


LINKS = ["norm", "add", "add scalar", "mul", "mul scalar", "add from the left"]


ENDS = ["relu", "output", "two readers", "full add", "full mul", "data", "sub"]


class TestOutputSide:
    @settings(deadline=None, max_examples=40)
    @given(
        pruned_of,
        st.lists(st.sampled_from(LINKS), max_size=3),
        st.sampled_from(ENDS),
        st.booleans(),
    )
    def test_reaches_through_the_affine_chain(
        self, pruned: list[int], links: list[str], end: str, biased: bool
    ) -> None:
        net = Net(17, x=[1, 3, 5, 5])
        bias = [net.random(6)] if biased else []
        last = net("Conv", "x", net.random(6, 3, 3, 3), *bias, name="layer")
        for link in links:
            vector, scalar = broadcasts(net.random(6), 2), net.random()
            if link == "norm":
                positive = np.abs(net.random(6))
                parameters = [net.random(6), net.random(6), net.random(6), positive]
                last = net("BatchNormalization", last, *parameters)
            elif link == "add from the left":
                last = net("Add", vector[np.newaxis], last)
            else:
                op, _, kind = link.partition(" ")
                last = net(op.capitalize(), last, scalar if kind else vector)
        chain = last
        full = net.random(1, 6, 3, 3)
        outputs = []
        if end == "output":
            outputs = [last]
            last = net("Add", last, broadcasts(net.random(6), 2))
        elif end == "two readers":
            one = net("Add", last, broadcasts(net.random(6), 2))
            last = net("Mul", one, net("Sigmoid", last))
        elif end.startswith("full"):
            last = net(end.removeprefix("full ").capitalize(), last, full)
        elif end == "data":
            last = net("Add", last, net("Conv", "x", net.random(6, 3, 3, 3)))
        elif end == "sub":
            last = net("Sub", last, broadcasts(net.random(6), 2))
        reader = net("Conv", net("Relu", last), net.random(2, 6, 1, 1))
        model = net.model(reader, *outputs)
        check(model, masks_of(output=pruned), gate(model, chain, 1, pruned))

    @settings(deadline=None, max_examples=12)
    @given(pruned_of, st.sampled_from([1, 2, 3, 6]), st.sampled_from(["Conv", "ConvTranspose"]))
    def test_groups(self, pruned: list[int], groups: int, op: str) -> None:
        net = Net(17, x=[1, 6, 5, 5])
        shape = (6, 6 // groups)
        out = net(op, "x", net.random(*shape, 2, 2), net.random(6), name="layer", group=groups)
        model = net.model(net("Conv", net("Relu", out), net.random(2, 6, 1, 1)))
        check(model, masks_of(output=pruned), gate(model, out, 1, pruned))

    @settings(deadline=None, max_examples=15)
    @given(
        pruned_of,
        st.sampled_from([None, (), (1,), (6,), (1, 6), (3, 1), (3, 6)]),
        st.booleans(),
        st.sampled_from([1.0, 0.5]),
    )
    def test_gemm_biases(
        self, pruned: list[int], bias: tuple[int, ...] | None, trans: bool, beta: float
    ) -> None:
        net = Net(17, x=[3, 4])
        weight = net.random(6, 4) if trans else net.random(4, 6)
        more = [] if bias is None else [net.random(*bias)]
        out = net("Gemm", "x", weight, *more, name="layer", transB=int(trans), beta=beta)
        model = net.model(net("MatMul", net("Relu", out), net.random(6, 2)))
        check(model, masks_of(output=pruned), gate(model, out, 1, pruned))

    @pytest.mark.parametrize("shape", [(), (6,), (1, 6), (1, 1, 6)])
    @pytest.mark.parametrize("op", ["Add", "Mul"])
    def test_matmul_and_its_bias(self, op: str, shape: tuple[int, ...]) -> None:
        net = Net(17, x=[1, 3, 4])
        made = net("MatMul", "x", net.random(4, 6), name="layer")
        out = net(op, made, net.random(*shape))
        model = net.model(net("MatMul", net("Relu", out), net.random(6, 2)))
        check(model, masks_of(output=[0, 4]), gate(model, out, 2, [0, 4]))

    def test_matmul_with_the_weight_on_the_left(self) -> None:
        net = Net(17, x=[4, 3])
        made = net("MatMul", net.random(6, 4), "x", name="layer")
        out = net("Add", made, net.random(6, 1))
        model = net.model(net("MatMul", net.random(2, 6), net("Relu", out)))
        check(model, masks_of(output=[0, 4]), gate(model, out, 0, [0, 4]))

    def test_a_constant_along_another_axis_ends_the_chain(self) -> None:
        net = Net(17, x=[1, 6, 4])
        made = net("MatMul", "x", net.random(4, 6), name="layer")
        out = net("Add", made, net.random(6, 1))  # one value per row, not per channel
        model = net.model(net("MatMul", net("Relu", out), net.random(6, 2)))
        check(model, masks_of(output=[0, 4]), gate(model, made, 2, [0, 4]))

    def test_constants_shared_with_other_nodes_stay(self) -> None:
        net = Net(17, x=[1, 3, 4, 4])
        weight, bias = net.constant(net.random(3, 3, 1, 1)), net.constant(net.random(3))
        shift = net.constant(net.random(1, 3, 1, 1))
        other = net("Relu", net("Add", net("Conv", "x", weight, bias, name="other"), shift))
        out = net("Add", net("Conv", other, weight, bias, name="layer"), shift)
        model = net.model(net("Relu", out))
        check(model, masks_of(output=[1]), gate(model, out, 1, [1]))


class TestBothSides:
    @pytest.mark.parametrize("side", ["input", "output"])
    def test_everything_may_be_pruned(self, side: str) -> None:
        net = Net(17, x=[1, 3, 5, 5])
        first = net("Relu", net("Conv", "x", net.random(4, 3, 3, 3), net.random(4)))
        made = net("Conv", first, net.random(4, 4, 1, 1), net.random(4), name="layer")
        model = net.model(net("Conv", net("Sigmoid", made), net.random(2, 4, 1, 1), net.random(2)))
        tensor, readers = (first, ["layer"]) if side == "input" else (made, [])
        check(model, masks_of(**{side: range(4)}), gate(model, tensor, 1, range(4), *readers))

    @settings(deadline=None, max_examples=25)
    @given(st.lists(pruned_of, min_size=6, max_size=6))
    def test_branches_may_disagree(self, pruned: list[list[int]]) -> None:
        net = Net(17, x=[1, 6, 4, 4])
        made, masks, gates = [], {}, []
        for name, axis in (("left", 0), ("right", 2)):
            made.append(net("Conv", "x", net.random(6, 6, 1, 1), net.random(6), name=name))
            masks[name] = {"input": pruned[axis], "output": pruned[axis + 1]}
            gates += [("x", pruned[axis], [name]), (made[-1], pruned[axis + 1], [])]
        joined = net("Relu", net("Add", *made))
        outputs = []
        for name, channels in (("up", pruned[4]), ("down", pruned[5])):
            outputs.append(net("Conv", joined, net.random(2, 6, 1, 1), name=name))
            masks[name] = {"input": channels}
            gates.append((joined, channels, [name]))
        model = witness = net.model(*outputs)
        for tensor, channels, readers in gates:
            witness = gate(witness, tensor, 1, channels, *readers)
        check(model, {"version": 1, "masks": masks}, witness)
