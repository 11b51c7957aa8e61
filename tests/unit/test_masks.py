"""Masks: their forms, and what their keys name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from build import Net
from mask_witness import check, gate, masks_of
from onnx_upscale import MaskError
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.load.masks import Mask, read_masks


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

    @pytest.mark.parametrize("form", ["prune", "keep", "mask"])
    @pytest.mark.parametrize("entry", [2**31, -(2**31) - 1, 2**70, True, 1.0, "1", None])
    def test_what_is_no_channel_is_refused_among_channels(self, form: str, entry: Any) -> None:
        source = masks_of(input={form: [0, 1, entry]})
        if form == "mask" and entry is True:
            (mask,) = read_masks(source)
            assert mask.pruned(3).tolist() == [0]
            return
        with pytest.raises(MaskError, match=f"mask 'layer', side 'input': .*{entry}"):
            read_masks(source)

    @pytest.mark.parametrize("entry", [2, -1, 2**20])
    def test_flags_are_0_or_1(self, entry: int) -> None:
        with pytest.raises(MaskError, match=f"mask entries are 0 or 1, found {entry}"):
            read_masks(masks_of(input={"mask": [0, 1, entry]}))

    @pytest.mark.parametrize("entry", [2**31 - 1, -(2**31), -1])
    def test_numbers_of_32_bits_are_channels_of_a_layer_or_not(self, entry: int) -> None:
        (mask,) = read_masks(masks_of(input=[0, entry]))
        with pytest.raises(MaskError, match=f"channel {entry} is (negative|out of range)"):
            mask.pruned(4)

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

    def test_a_name_of_several_nodes(self) -> None:
        net = Net(17, x=(1, 2, 4, 4))
        one = net("Conv", "x", net.random(2, 2, 1, 1))
        other = net("Conv", one, net.random(2, 2, 1, 1))
        model = net.model(other)
        for node in model.graph.node:
            node.name = "twin"
        assert targets(model, "twin") == ["twin", "twin"]

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
