"""Masks: their forms, what their keys name, and what the masked model is.

The witness zeroes no weights: it multiplies the channels of tensors by 0 or 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

import onnx_upscale
from build import Array, Net, assert_close, input_values, run
from onnx_upscale import MaskError
from onnx_upscale.optimizer.apply import masked_model
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.load.masks import Mask, read_masks

STRATEGIES = ("gather", "upscale", "auto")


def masks_of(**sides: Any) -> dict[str, Any]:
    """The mask file for one layer that is called `layer`."""
    return {"version": 1, "masks": {"layer": sides}}


def gate(
    model: onnx.ModelProto, tensor: str, axis: int, pruned: Iterable[int], *readers: str
) -> onnx.ModelProto:
    """Makes channels of a tensor zero, for some of the nodes that read it or for all."""
    gated = onnx.ModelProto()
    gated.CopyFrom(model)
    graph = gated.graph
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    shape = next(value.type.tensor_type.shape for value in values if value.name == tensor)
    ones = np.ones([d.dim_value if i == axis else 1 for i, d in enumerate(shape.dim)], np.float32)
    np.moveaxis(ones, axis, 0)[list(pruned)] = 0
    stem = ".".join([tensor, "gate", *readers])
    graph.initializer.append(numpy_helper.from_array(ones, f"{stem}.ones"))
    if readers:  # The gate stands before them, and the tensor keeps its name.
        source, result = tensor, f"{stem}.result"
        at = min(index for index, node in enumerate(graph.node) if node.name in readers)
        for node in graph.node:
            if node.name in readers:
                node.input[:] = [result if name == tensor else name for name in node.input]
    else:  # The gate stands behind the node that makes the tensor, and takes over its name.
        source, result = f"{stem}.source", tensor
        at = 1 + next(index for index, node in enumerate(graph.node) if tensor in node.output)
        graph.node[at - 1].output[:] = [source]
    graph.node.insert(at, helper.make_node("Mul", [source, f"{stem}.ones"], [result]))
    return gated


def check(model: onnx.ModelProto, masks: Mapping[str, Any], witness: onnx.ModelProto) -> None:
    """The masked model and all that is emitted compute what the witness computes."""
    onnx.checker.check_model(witness, full_check=True)
    inputs = input_values(model)
    expected = run(witness, inputs)
    models = [masked_model(load(model, masks).graph)]
    models += [
        onnx_upscale.optimize(model, masks, strategy=strategy, verify=False).model
        for strategy in STRATEGIES
    ]
    for each in models:
        onnx.checker.check_model(each, full_check=True)
        assert_close(expected, run(each, inputs))


class TestForms:
    @pytest.mark.parametrize(
        "value",
        [
            [1, 3],
            (3, 1, 1),
            range(1, 5, 2),
            np.array([1, 3]),
            np.array([1, 3], np.uint8),
            {"prune": [3, 1]},
            {"keep": [0, 2]},
            {"keep": np.array([2, 0])},
            {"mask": [1, 0, 1, 0]},
            {"mask": [True, False, True, False]},
            {"mask": np.array([True, False, True, False])},
        ],
    )
    def test_all_forms_mean_the_same(self, value: Any) -> None:
        (mask,) = read_masks(masks_of(input=value))
        assert (mask.key, mask.side) == ("layer", "input")
        assert mask.pruned(4).tolist() == [1, 3]

    @given(
        st.integers(1, 20).flatmap(
            lambda size: st.lists(st.booleans(), min_size=size, max_size=size)
        )
    )
    def test_forms_agree(self, kept: list[bool]) -> None:
        keep = [index for index, flag in enumerate(kept) if flag]
        prune = [index for index, flag in enumerate(kept) if not flag]
        forms = (prune, {"prune": prune}, {"keep": keep}, {"mask": [int(flag) for flag in kept]})
        for form in forms:
            (mask,) = read_masks(json.loads(json.dumps(masks_of(output=form))))
            assert mask.pruned(len(kept)).tolist() == prune

    def test_files(self, tmp_path: Path) -> None:
        content = {"version": 1, "masks": {"a.b": {"output": {"mask": [0, 1]}, "input": [0]}}}
        path = tmp_path / "masks.json"
        path.write_text(json.dumps(content))
        arrays: Any = {"a.b.input": [0, 1, 1], "a.b.output": [False, True]}
        np.savez(tmp_path / "masks.npz", **arrays)
        for source in (content, path, str(path), tmp_path / "masks.npz"):
            found = {
                (m.key, m.side): m.pruned(3 - (m.side == "output")) for m in read_masks(source)
            }
            assert {key: pruned.tolist() for key, pruned in found.items()} == {
                ("a.b", "input"): [0],
                ("a.b", "output"): [0],
            }

    @pytest.mark.parametrize("source", [None, "-", {"version": 1, "masks": {}}])
    def test_none(self, source: Any) -> None:
        assert read_masks(source) == ()

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=4)
                | st.dictionaries(
                    st.sampled_from(["version", "masks", "a", "input", "output", "keep", "mask"]),
                    inner,
                )
            ),
        )
    )
    def test_whatever_is_there_it_is_read_or_refused(self, content: Any) -> None:
        for source in ({"version": 1, "masks": content}, {"version": 1, "masks": {"a": content}}):
            try:
                masks = read_masks(source)
            except MaskError as error:
                assert "\n" not in str(error)
            else:
                assert all(isinstance(mask, Mask) for mask in masks)

    def test_indices_on_both_sides_of_the_range(self) -> None:
        (mask,) = read_masks(masks_of(input=[0, 3]))
        assert mask.pruned(4).tolist() == [0, 3]
        with pytest.raises(
            MaskError, match="mask 'layer', side 'input': channel 3 is out of range"
        ):
            mask.pruned(3)


def targets(model: onnx.ModelProto, key: str) -> list[str]:
    masks = {"version": 1, "masks": {key: {"input": [0]}}}
    return [mask.layer.node.title for mask in load(model, masks).masks]


class TestKeys:
    def test_initializer_then_node_then_tensor(self) -> None:
        net = Net(17, x=[1, 2, 4, 4])
        weight = net.constant(net.random(2, 2, 1, 1), "both")
        one = net("Conv", "x", weight, name="one")
        two = net("Conv", one, net.random(2, 2, 1, 1), name="both")  # called like the weight
        three = net("Conv", two, net.random(2, 2, 1, 1), name="one.0")  # called like a tensor
        four = net("Conv", three, net.random(2, 2, 1, 1), name="four")
        model = net.model(four)
        assert targets(model, "both") == ["one"]
        assert targets(model, "one.0") == ["one.0"]
        assert targets(model, "four.0") == ["four"]
        assert targets(model, "four") == ["four"]

    def test_a_weight_of_several_nodes(self) -> None:
        net = Net(17, x=[1, 3, 4, 4])
        weight = net.constant(net.random(3, 3, 1, 1), "shared")
        one = net("Relu", net("Conv", "x", weight, name="one"))
        two = net("Conv", one, weight, name="two")
        model = net.model(two)
        assert targets(model, "shared") == ["one", "two"]
        assert targets(model, "two") == ["two"]
        both = gate(gate(model, "x", 1, [0], "one"), one, 1, [0], "two")
        check(model, {"version": 1, "masks": {"shared": {"input": [0]}}}, both)
        only = gate(model, one, 1, [0], "two")
        check(model, {"version": 1, "masks": {"two": {"input": [0]}}}, only)

    def test_a_weight_behind_other_constants(self) -> None:
        net = Net(17, x=[2, 3])
        weight = net("Transpose", net.constant(net.random(4, 3), "stored"), perm=[1, 0])
        out = net("MatMul", "x", net("Identity", weight), name="layer")
        model = net.model(out)
        assert targets(model, "stored") == ["layer"]
        check(
            model,
            {"version": 1, "masks": {"stored": {"input": [1]}}},
            gate(model, "x", 1, [1], "layer"),
        )

    def test_masks_of_one_layer_under_two_names_add_up(self) -> None:
        net = Net(17, x=[1, 4, 4, 4])
        out = net("Conv", "x", net.constant(net.random(2, 4, 1, 1), "w"), name="layer")
        model = net.model(out)
        masks = {"version": 1, "masks": {"w": {"input": [0]}, "layer": {"input": [3]}}}
        check(model, masks, gate(model, "x", 1, [0, 3], "layer"))

    def test_an_initializer_that_is_no_weight(self) -> None:
        net = Net(17, x=[1, 2, 4, 4])
        bias = net.constant(net.random(2), "bias")
        model = net.model(net("Conv", "x", net.random(2, 2, 1, 1), bias, name="layer"))
        with pytest.raises(MaskError, match="mask 'bias', side 'input': no Conv"):
            targets(model, "bias")

    def test_unknown(self) -> None:
        net = Net(17, x=[1, 2, 4, 4])
        model = net.model(net("Conv", "x", net.random(2, 2, 1, 1), name="features.0.conv"))
        with pytest.raises(MaskError, match=r"'feature.conv': no such layer .* features\.0\.conv"):
            targets(model, "feature.conv")
        net = Net(17, x=[1, 2, 4, 4])
        model = net.model(net("Relu", "x"))
        with pytest.raises(MaskError, match="it has no layers to mask"):
            targets(model, "conv")


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
