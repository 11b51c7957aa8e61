"""Masks from other tools: their documented formats, checked against the model."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_upscale
from build import Array, Net
from onnx_upscale import MaskError, UsageError, import_masks
from onnx_upscale.importers import FORMATS

Sides = dict[str, dict[str, list[int]]]


def small(*, bias: bool = False) -> onnx.ModelProto:
    """Layers as torch names and shapes them: a Conv, a grouped and a transposed one, a Linear."""
    net = Net(17, x=["batch", 3, 5, 5])
    biases = [net.constant(net.random(4), "first.bias")] if bias else []
    first = net("Conv", "x", net.constant(net.random(4, 3, 1, 1), "first.weight"), *biases)
    grouped = net(
        "Conv", net("Relu", first), net.constant(net.random(6, 2, 1, 1), "grouped.weight"), group=2
    )
    back = net(
        "ConvTranspose", net("Relu", grouped), net.constant(net.random(6, 2, 2, 2), "back.weight")
    )
    flat = net("Flatten", net("GlobalAveragePool", net("Relu", back)))
    transposed = net("Transpose", net.constant(net.random(3, 2), "fc.weight"), perm=[1, 0])
    return net.model(net("MatMul", flat, transposed, name="fc"))


def masks_of(document: dict[str, Any]) -> Sides:
    assert document["version"] == 1
    masks: Sides = document["masks"]
    return masks


def zeros(shape: tuple[int, ...], *where: Any) -> Array:
    mask = np.ones(shape, np.float32)
    for index in where:
        mask[index] = 0
    return mask


def quietly(format: str, source: Any, model: onnx.ModelProto | None = None) -> Sides:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return masks_of(import_masks(format, source, model))


every = slice(None)


# Element masks.


def test_a_channel_is_pruned_when_all_of_its_weights_are_masked() -> None:
    state = {
        "first.weight_orig": np.zeros((4, 3, 1, 1)),
        "first.weight_mask": zeros((4, 3, 1, 1), 1, (every, 2)),
        "fc.weight_mask": zeros((3, 2), (every, 0)),
        "norm.weight_mask": zeros((4,), 1),
    }
    expected = {"first.weight": {"input": [2], "output": [1]}, "fc.weight": {"input": [0]}}
    assert quietly("torch", state) == expected
    assert quietly("torch", {"state_dict": state}, small()) == expected


def test_groups_and_transposes_follow_the_model() -> None:
    state = {
        # The first group is outputs 0-2 and inputs 0-1, the second outputs 3-5 and inputs 2-3.
        "grouped.weight_mask": zeros((6, 2, 1, 1), 4, (slice(0, 3), 1), (slice(3, 6), 0)),
        "back.weight_mask": zeros((6, 2, 2, 2), 5, (every, 1)),  # (inputs, outputs, ...)
    }
    assert quietly("torch", state, small()) == {
        "grouped.weight": {"input": [1, 2], "output": [4]},
        "back.weight": {"input": [5], "output": [1]},
    }


def test_what_is_masked_in_part_is_told_and_ignored() -> None:
    mask = zeros((4, 3, 2, 2), 1, (0, 0, 1, 1), (2, 1, 0))
    with pytest.warns(UserWarning, match=r"'first.weight': 3 of 48 weights .* is ignored"):
        found = import_masks("torch", {"first.weight_mask": mask})
    assert masks_of(found) == {"first.weight": {"output": [1]}}


def test_a_bias_that_is_lost_is_told() -> None:
    mask = zeros((4, 3, 1, 1), 1, 2)
    state = {"first.weight_mask": mask, "first.bias": np.array([1.0, 0, 2, 0])}
    with pytest.warns(UserWarning, match=r"'first.weight': 1 pruned output channels have a bias"):
        import_masks("torch", state)
    masked = {"first.bias_orig": np.ones(4), "first.bias_mask": zeros((4,), 1, 2)}
    quietly("torch", {"first.weight_mask": mask, **masked})
    with pytest.warns(UserWarning, match="2 pruned output channels have a bias"):
        import_masks("torch", {"first.weight_mask": mask}, small(bias=True))
    quietly("torch", {"first.weight_mask": mask}, small())


def test_nni_masks_by_module() -> None:
    masks = {
        "first": {"weight": zeros((4, 3, 1, 1), 0, 3), "bias": zeros((4,), 0, 3)},
        "bn1": {"weight": zeros((4,), 0, 3), "bias": None},
        "relu": {"_output_": zeros((4,), 0, 3)},
    }
    expected = {"first.weight": {"output": [0, 3]}}
    assert quietly("nni", masks) == expected
    assert quietly("nni", masks, small()) == expected


# Channel lists.


def test_torch_pruning_indices_by_layer() -> None:
    content = {"first": {"out": [2, 0]}, "fc.weight": {"in": [1], "out": []}}
    assert quietly("torch-pruning", content, small()) == {
        "first.weight": {"output": [0, 2]},
        "fc.weight": {"input": [1], "output": []},
    }


def coupled() -> onnx.ModelProto:
    net = Net(17, x=["batch", 3, 4, 4])
    one = net("Conv", "x", net.constant(net.random(6, 3, 1, 1), "one.weight"))
    two = net("Conv", "x", net.constant(net.random(6, 3, 1, 1), "two.weight"))
    added = net("Relu", net("Add", one, two))
    reader = net("Conv", added, net.constant(net.random(2, 6, 1, 1), "reader.weight"))
    depthwise = net("Conv", added, net.constant(net.random(6, 1, 1, 1), "dw.weight"), group=6)
    last = net("Conv", net("Relu", depthwise), net.constant(net.random(2, 6, 1, 1), "last.weight"))
    return net.model(reader, last)


def test_a_torch_pruning_history_reaches_all_that_is_coupled() -> None:
    history = [["one", True, [1, 4]]]
    expected = {"reader.weight": {"input": [1, 4]}, "last.weight": {"input": [1, 4]}}
    assert quietly("torch-pruning", history, coupled()) == expected
    assert quietly("torch-pruning", [["last", False, [1, 4]]], coupled()) == expected
    assert quietly("torch-pruning", [["dw", True, [1, 4]]], coupled()) == expected


def test_a_history_counts_what_is_left() -> None:
    # After channels 1 and 4, those left are 0, 2, 3, 5: index 1 is 2, then index 2 is 5.
    history = [["one", True, [1, 4]], ["two", True, [1]], ["reader", False, [2]]]
    found = quietly("torch-pruning", history, coupled())
    assert found["reader.weight"] == found["last.weight"] == {"input": [1, 2, 4, 5]}
    with pytest.raises(MaskError, match="entry 1: 'two' has 4 channels left, but not 4"):
        import_masks("torch-pruning", [["one", True, [1, 4]], ["two", True, [4]]], coupled())


def test_a_history_warns_where_channels_are_normalized_together() -> None:
    net = Net(17, x=["batch", 4])
    first = net("Gemm", "x", net.constant(net.random(4, 6), "first.weight"))
    normed = net("LayerNormalization", first, net.random(6))
    model = net.model(net("Gemm", normed, net.constant(net.random(6, 2), "last.weight")))
    with pytest.warns(UserWarning, match="normalized together"):
        found = import_masks("torch-pruning", [["first", True, [0]]], model)
    assert masks_of(found) == {"last.weight": {"input": [0]}}


def test_upscale_pairs() -> None:
    pairs = [["fc.weight", 1], ("grouped.weight", 3), ["fc.weight", 0], ["fc.weight", 1]]
    assert quietly("upscale", pairs, small()) == {
        "fc.weight": {"input": [0, 1]},
        "grouped.weight": {"input": [3]},
    }
    both = {"pruned_inputs": pairs[:1], "pruned_outputs": [["fc.weight", 2]]}
    assert quietly("upscale", both) == {"fc.weight": {"input": [1], "output": [2]}}


# Files.


def test_files_hold_the_same(tmp_path: Path) -> None:
    state = {"first.weight_mask": zeros((4, 3, 1, 1), 1)}
    np.savez(tmp_path / "state.npz", **state)  # type: ignore[arg-type]
    assert quietly("torch", tmp_path / "state.npz") == quietly("torch", state)
    (tmp_path / "pairs.json").write_text(json.dumps([["fc.weight", 1]]))
    assert quietly("upscale", str(tmp_path / "pairs.json")) == {"fc.weight": {"input": [1]}}


def test_files_of_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    prune = pytest.importorskip("torch.nn.utils.prune")
    model = torch.nn.Sequential()
    model.add_module("first", torch.nn.Conv2d(3, 4, 1, bias=False))
    prune.ln_structured(model.first, "weight", 0.5, 2, dim=0)
    kept = model.first.weight.detach().numpy().any((1, 2, 3))
    torch.save(model.state_dict(), tmp_path / "state.pt")
    assert quietly("torch", tmp_path / "state.pt", small()) == {
        "first.weight": {"output": np.flatnonzero(~kept).tolist()}
    }
    masks = {"first": {"weight": model.first.weight_mask, "bias": None}}
    torch.save(masks, tmp_path / "nni.pth")
    assert quietly("nni", tmp_path / "nni.pth") == quietly("torch", tmp_path / "state.pt")
    torch.save(model, tmp_path / "pickled.pt")
    with pytest.raises(MaskError, match=r"pickled.pt: torch cannot load it as plain tensors"):
        import_masks("torch", tmp_path / "pickled.pt")


def test_files_of_torch_need_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "state.pt").write_bytes(b"")
    with pytest.raises(MaskError, match=r"state.pt: reading it needs torch: pip install"):
        import_masks("torch", tmp_path / "state.pt")


# What is wrong.


@pytest.mark.parametrize(
    ("format", "content", "says"),
    [
        ("torch", {"first.weight": np.ones(3)}, r"expected .*weight_mask.*found first.weight"),
        ("torch", [1], "expected a dictionary by name, found list"),
        ("torch", {"a.weight_mask": np.full((2, 2), 0.5)}, "expected a mask of zeros and ones"),
        ("torch", {"a.weight_mask": "x"}, "expected a mask of zeros and ones, found 'x'"),
        ("torch", {"first.weight_mask": np.ones((3, 4, 1, 1))}, "shape 4x3.*, found 3x4x1x1"),
        ("torch", {"frst.weight_mask": np.zeros((2, 2))}, "closest: first.weight"),
        ("nni", {"first": 3}, "'first': expected a dictionary"),
        ("nni", {"first": {"bias": np.ones(3)}}, "no weight masks"),
        ("torch-pruning", {"first": {"output": [1]}}, "expected 'in' and/or 'out'"),
        ("torch-pruning", {"first": {"out": [1.5]}}, "expected a list of channels"),
        ("torch-pruning", {"first": {"out": [4]}}, "channel 4 is out of range: use 0 to 3"),
        ("torch-pruning", {"frist": {"out": [1]}}, "closest: first.weight"),
        ("torch-pruning", [["first", 1, [0]]], "entry 0: expected .layer, is_output, indices."),
        ("torch-pruning", [["frist", True, [0]]], "closest: first.weight"),
        ("torch-pruning", 5, "expected a dictionary"),
        ("upscale", [["fc.weight"]], "expected pairs"),
        ("upscale", [["fc.weight", True]], "expected pairs"),
        ("upscale", [[12, 0]], "12 is a tensor of a trace"),
        ("upscale", {"inputs": []}, "expected 'pruned_inputs'"),
        ("upscale", {"pruned_inputs": 3}, "expected a list of pairs"),
        ("upscale", [["frist.weight", 0]], "closest: first.weight"),
    ],
)
def test_wrong_content_is_refused(format: str, content: Any, says: str) -> None:
    with pytest.raises(MaskError, match=says) as caught:
        import_masks(format, content, small())
    assert "\n" not in str(caught.value)


def test_a_history_needs_the_model() -> None:
    with pytest.raises(MaskError, match="give the model"):
        import_masks("torch-pruning", [["first", True, [0]]])


def test_unknown_formats_are_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown format 'keras' .known: torch, torch-pruning"):
        import_masks("keras", {})


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["a.json", "a.npz", "a.txt", "missing.json", "deep.json"])
def test_broken_files_are_named(format: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "deep.json":
        path.write_text("[" * 100_000)
    elif not name.startswith("missing"):
        path.write_bytes(b"\xff{broken")
    with pytest.raises(MaskError) as caught:
        import_masks(format, path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_imported_is_pruned() -> None:
    model = coupled()
    masks = quietly("torch-pruning", [["one", True, [1, 4]]], model)
    report = onnx_upscale.optimize(model, {"version": 1, "masks": masks}).report
    assert report["verify"]["ok"]
    assert report["segments"][0]["kept"] == 4
