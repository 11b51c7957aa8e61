"""Pruning criteria: published definitions by hand, counts, and decisions that layers share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import onnx_upscale
from build import Array, Net
from case import Case
from onnx_upscale import DataError, ModelError, UpscaleError, UsageError, make_masks
from onnx_upscale.criteria import CRITERIA, Images
from onnx_upscale.criteria.scales import batch_norm_scales
from onnx_upscale.criteria.scores import fpgm, l1, l2, lamp
from onnx_upscale.criteria.sites import find_sites
from onnx_upscale.criteria.table import Subject
from onnx_upscale.optimizer.analyze import analyze, find_structure
from onnx_upscale.optimizer.load import load
from onnx_upscale.optimizer.load.graph import build_graph
from onnx_upscale.optimizer.plan import grow_masks
from strategies import cases

# Three channels of two weights each: norms 5, 13 and 0, the distances between them below.
WEIGHT = np.array([[3.0, 4.0], [-5.0, 12.0], [0.0, 0.0]])
CLOSE = pytest.approx
WITHOUT_DATA = ("l1", "l2", "lamp", "fpgm", "random")


def pruned(masks: Mapping[str, Any], side: str = "input") -> dict[str, list[int]]:
    return {key: sides[side] for key, sides in masks["masks"].items()}


def square(weight: Array, net: Net, data: str, name: str) -> str:
    """A 1x1 Conv with a given matrix."""
    rows, columns = weight.shape
    values = weight.astype(np.float32).reshape(rows, columns, 1, 1)
    return net("Conv", data, net.constant(values, f"{name}.weight"), name=name)


def chain(*weights: Array, size: int = 3) -> onnx.ModelProto:
    """Convs one after the other behind a first one and in front of a classifier."""
    net = Net(17, x=["batch", 2, size, size])
    tensor = square(net.random(weights[0].shape[1], 2), net, "x", "stem")
    for number, weight in enumerate(weights):
        tensor = square(weight, net, net("Relu", tensor), f"conv{number}")
    pooled = net("Flatten", net("GlobalAveragePool", net("Relu", tensor)))
    last = net.constant(net.random(len(weights[-1]), 3), "fc.weight")
    return net.model(net("Gemm", pooled, last, name="fc"))


# The published definitions, by hand.


def test_l1_is_the_sum_of_absolute_weights() -> None:
    assert l1(WEIGHT).tolist() == [7.0, 17.0, 0.0]


def test_l2_is_the_euclidean_norm() -> None:
    assert l2(WEIGHT).tolist() == [5.0, 13.0, 0.0]


def test_lamp_is_the_share_among_the_channels_that_are_not_smaller() -> None:
    assert lamp(WEIGHT) == CLOSE([25 / (25 + 169), 169 / 169, 0.0])
    # The two rows of the paper's own implementation, where a norm stands for its square.
    ascending = np.sqrt([[1.0], [2.0], [3.0], [4.0]])
    assert lamp(ascending) == CLOSE([1 / 10, 2 / 9, 3 / 7, 1.0])
    # Equal channels get equal scores.
    assert lamp(np.array([[2.0], [-2.0], [1.0]])) == CLOSE([4 / 8, 4 / 8, 1 / 9])
    assert lamp(np.zeros((3, 2))).tolist() == [0.0, 0.0, 0.0]


def test_fpgm_is_the_sum_of_distances_to_the_others() -> None:
    one, two, apart = 5.0, 13.0, math.hypot(8, -8)  # To the origin, and from each other.
    assert fpgm(WEIGHT) == CLOSE([apart + one, apart + two, one + two])


def test_fpgm_prunes_what_others_can_replace_however_large_it_is() -> None:
    line = np.array([[100.0], [110.0], [90.0], [0.0]])
    assert fpgm(line) == CLOSE([120.0, 140.0, 120.0, 300.0])


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 6),
    seed=st.integers(0, 99),
    copies=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_fpgm_equals_its_definition(rows: int, columns: int, seed: int, copies: bool) -> None:
    weight = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    if copies:
        weight[rows // 2 :] = weight[0]
    exact = weight.astype(np.float64)
    expected = np.sqrt(((exact[:, None] - exact[None]) ** 2).sum(-1)).sum(1)
    assert fpgm(weight) == CLOSE(expected, rel=1e-6, abs=1e-6)


def test_fpgm_by_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = np.random.default_rng(0).standard_normal((7, 3))
    whole = fpgm(weight)
    monkeypatch.setattr("onnx_upscale.criteria.scores._MOST_DISTANCES", 3 * 7)
    assert fpgm(weight) == CLOSE(whole)


def test_the_lowest_scores_go_on_either_side() -> None:
    matrix = np.array([[9, 1, 5, 7], [9, 1, 5, 0.5], [9, 1, 5, 7]])  # Outputs 22, 15.5, 22.
    model = chain(matrix)
    assert pruned(make_masks(model, "l1", 0.5))["conv0.weight"] == [1, 3]
    assert pruned(make_masks(model, "l1", 0.5, side="output"), "output")["conv0.weight"] == [1]


# HRank.


def maps_of_rank(ranks: list[int], size: int = 4) -> Array:
    """One sample whose channels are matrices of given ranks, none of them negative."""
    rng = np.random.default_rng(0)
    made = [rng.random((size, rank)) @ rng.random((rank, size)) for rank in ranks]
    return np.array([made], np.float32)


def passing_through(channels: int, *, batch: int | str = "batch", act: str = "Relu") -> Net:
    """A Conv that copies its input, an activation, and a Conv that reads that."""
    net = Net(17, x=[batch, channels, 4, 4])
    copied = square(np.eye(channels), net, "x", "copy")
    active = net(act, copied, name="act")
    square(net.random(3, channels), net, active, "reader")
    return net


@pytest.mark.parametrize(("side", "key"), [("input", "reader"), ("output", "copy")])
def test_hrank_prunes_the_lowest_mean_rank(side: str, key: str) -> None:
    model = passing_through(4).model("reader.0")
    data = np.concatenate([maps_of_rank([4, 1, 2, 3]), maps_of_rank([1, 2, 2, 4])])
    masks = make_masks(model, "hrank", 0.5, side=side, data=data)  # Means 2.5, 1.5, 2, 3.5.
    assert pruned(masks, side) == {f"{key}.weight": [1, 2]}


def test_hrank_means_over_all_samples_whatever_the_batches() -> None:
    ranks = [[4, 1, 2, 3], [1, 2, 2, 4], [1, 1, 4, 1], [3, 3, 1, 1], [2, 1, 4, 4]]
    data = np.concatenate([maps_of_rank(each) for each in ranks])  # Sums 11, 8, 13, 13.
    for batch, size in (("batch", 1), ("batch", 2), ("batch", 9), (2, 9), (3, 9)):
        model = passing_through(4, batch=batch).model("reader.0")
        structure = find_structure(build_graph(model))
        sites = find_sites(structure, "input")
        calls: list[tuple[int, int]] = []

        def report(done: int, of: int, calls: list[tuple[int, int]] = calls) -> None:
            calls.append((done, of))

        (scores,) = CRITERIA["hrank"].score(Subject(structure, sites, data, size, 0, report))
        assert scores == CLOSE(np.array([11, 8, 13, 13]) / 5), (batch, size)
        assert calls[-1] == (5, 5)


def test_hrank_takes_the_maps_behind_the_activation() -> None:
    # The first map is all negative: full rank in front of the Relu, zero behind it.
    data = maps_of_rank([4, 2])
    data[:, 0] *= -1
    model = passing_through(2).model("reader.0")
    assert pruned(make_masks(model, "hrank", 0.5, side="output", data=data), "output") == {
        "copy.weight": [0]
    }


def test_hrank_takes_the_maps_behind_a_gated_activation() -> None:
    """x * Relu(x) is read by one reader only: the maps are the product's."""
    net = Net(17, x=["batch", 2, 4, 4])
    copied = square(np.eye(2), net, "x", "copy")
    square(net.random(3, 2), net, net("Mul", copied, net("Relu", copied)), "reader")
    data = maps_of_rank([4, 2])
    data[:, 0] *= -1
    masks = make_masks(net.model("reader.0"), "hrank", 0.5, side="output", data=data)
    assert pruned(masks, "output") == {"copy.weight": [0]}


def test_hrank_stops_in_front_of_an_add() -> None:
    net = Net(17, x=["batch", 2, 4, 4])
    copied = square(np.eye(2), net, "x", "copy")
    noise = square(net.random(2, 2) * 10, net, net("Neg", "x"), "noise")
    added = net("Add", copied, noise)
    square(net.random(3, 2), net, added, "reader")
    data = maps_of_rank([3, 1])  # Behind the Add both have full rank.
    masks = make_masks(
        net.model("reader.0"), "hrank", 0.5, side="output", data=data, layers=["copy"]
    )
    assert pruned(masks, "output") == {"copy.weight": [1]}


def test_hrank_of_vectors_is_how_often_they_are_not_zero() -> None:
    net = Net(17, x=["batch", 3])
    first = net("Gemm", "x", net.constant(np.eye(3, dtype=np.float32), "first"), name="a")
    net("Gemm", net("Relu", first), net.constant(net.random(3, 2), "second"), name="b")
    data = np.array([[1, -1, 1], [1, -1, -1], [1, 2, 5]], np.float32)
    assert pruned(make_masks(net.model("b.0"), "hrank", 0.67, data=data)) == {"second": [1, 2]}
    assert pruned(make_masks(net.model("b.0"), "hrank", 0.34, data=data)) == {"second": [1]}


def test_hrank_of_sequences_and_volumes() -> None:
    net = Net(17, x=["batch", 2, 3, 2, 2])
    copied = net("Conv", "x", net.constant(np.eye(2, dtype=np.float32)[..., None, None, None], "a"))
    active = net("Relu", copied)
    net("Conv", active, net.constant(net.random(3, 2, 1, 1, 1), "b"), name="reader")
    volume = np.zeros((1, 2, 3, 2, 2), np.float32)
    volume[0, 0].reshape(3, 4)[:, :3] = np.eye(3)  # As a 3x4 matrix of rank 3, as 6x2 of rank 2.
    volume[0, 1].reshape(3, 4)[:, :2] = np.eye(3, 2)  # Of rank 2 either way.
    assert pruned(make_masks(net.model("reader.0"), "hrank", 0.5, data=volume)) == {"b": [1]}


def test_hrank_needs_data_that_fits(tmp_path: Path) -> None:
    model = passing_through(4).model("reader.0")

    def says(data: Any) -> str:
        with pytest.raises(UpscaleError) as caught:
            make_masks(model, "hrank", 0.5, data=data)
        return str(caught.value)

    assert "--data" in says(None)
    good = maps_of_rank([1, 2, 3, 4])
    assert "expected shape Nx4x4x4, found 1x4x4" in says(good[..., 0])
    assert "expected shape Nx4x4x4, found 1x3x4x4" in says(good[:, :3])
    assert "expected float32, found int64" in says(good.astype(np.int64))
    assert "no samples" in says(good[:0])
    assert "expected one array per input (x), found y" in says({"y": good})
    assert "infinities" in says(good * np.float32(np.inf))
    assert "does not exist" in says(tmp_path / "none")
    assert "no such file" in says(tmp_path / "none.npy")
    np.save(tmp_path / "pickled.npy", np.array([{}, {}]), allow_pickle=True)
    assert "pickled.npy: not a readable .npy file" in says(tmp_path / "pickled.npy")
    for name in ("broken.npy", "broken.npz", "text.csv"):
        (tmp_path / name).write_bytes(b"not an array")
        assert name in says(tmp_path / name)


def test_data_comes_from_files_as_well(tmp_path: Path) -> None:
    model, data = passing_through(4).model("reader.0"), maps_of_rank([4, 1, 2, 3])
    np.save(tmp_path / "data.npy", data.astype(np.float64))
    np.savez(tmp_path / "data.npz", x=data)
    for source in (data, {"x": data}, tmp_path / "data.npy", str(tmp_path / "data.npz")):
        assert pruned(make_masks(model, "hrank", 0.5, data=source)) == {"reader.weight": [1, 2]}


def test_a_model_of_two_inputs_needs_both() -> None:
    net = Net(17, x=["batch", 2, 4, 4], y=["batch", 2, 4, 4])
    first = net("Relu", square(np.eye(2), net, net("Add", "x", "y"), "first"))
    model = net.model(square(net.random(2, 2), net, first, "second"))
    data = maps_of_rank([1, 3])
    assert pruned(make_masks(model, "hrank", 0.5, data={"x": data, "y": data})) == {
        "second.weight": [0]
    }
    with pytest.raises(DataError, match="one input, but this one has x, y"):
        make_masks(model, "hrank", 0.5, data=data)
    with pytest.raises(DataError, match="differ in how many samples they have: x 1, y 2"):
        make_masks(model, "hrank", 0.5, data={"x": data, "y": np.concatenate([data, data])})


# Images.


def image_model(*, height: int | str = 4, channels: int = 3) -> onnx.ModelProto:
    net = Net(17, x=["batch", channels, height, height])
    copied = net("Relu", square(np.eye(channels), net, "x", "copy"))
    return net.model(square(net.random(2, channels), net, copied, "reader"))


def test_images_become_inputs_as_documented(tmp_path: Path) -> None:
    pil = pytest.importorskip("PIL.Image")
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, 8:16] = (255, 51, 0)  # The center, which is what is left.
    pil.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "deeper").mkdir()
    pil.fromarray(pixels[..., ::-1]).save(tmp_path / "deeper" / "b.png")
    (tmp_path / "readme.txt").write_text("no image")
    images = Images(tmp_path, mean=(0.5, 0.1, 0.0), std=(0.5,))
    samples = images.samples(image_model().graph.input[0])
    assert samples.count == 2
    first = samples.read(0, 1)["x"]
    assert first.shape == (1, 3, 4, 4)
    assert first.dtype == np.float32
    assert first[0, :, 2, 2] == CLOSE([1.0, 0.2, 0.0])
    assert samples.read(0, 2)["x"][1, :, 2, 2] == CLOSE([-1.0, 0.2, 2.0])
    symbolic = Images(tmp_path, size=6).samples(image_model(height="side").graph.input[0])
    assert symbolic.read(0, 1)["x"].shape == (1, 3, 6, 6)
    grey = Images(tmp_path).samples(image_model(channels=1).graph.input[0])
    assert grey.read(0, 2)["x"].shape == (2, 1, 4, 4)


def test_a_folder_of_images_is_calibration_data(tmp_path: Path) -> None:
    pil = pytest.importorskip("PIL.Image")
    ranks = (maps_of_rank([1, 4, 2])[0] * 60).transpose(1, 2, 0)
    flat = np.zeros((4, 4, 3), np.uint8)
    flat[..., 0], flat[..., 1:] = 7, ranks.astype(np.uint8)[..., 1:]
    flat[1:, :, 2] = flat[0, :, 2]
    pil.fromarray(flat).save(tmp_path / "a.png")
    masks = make_masks(image_model(), "hrank", 0.67, data=tmp_path)
    assert pruned(masks) == {"reader.weight": [0, 2]}


def test_bad_images_are_named(tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image")

    def says(model: onnx.ModelProto, data: Any) -> str:
        with pytest.raises(DataError) as caught:
            make_masks(model, "hrank", 0.5, data=data)
        return str(caught.value)

    assert "there are no images in it" in says(image_model(), tmp_path)
    assert "no such folder" in says(image_model(), Images(tmp_path / "none"))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert "broken.png: not a readable image" in says(image_model(), tmp_path)
    assert "give --size" in says(image_model(height="side"), tmp_path)
    assert "is less than the input's 4x4" in says(image_model(), Images(tmp_path, size=3))
    assert "--mean: expected 1 or 3 numbers" in says(image_model(), Images(tmp_path, mean=(1, 2)))
    assert "--std: must be more than 0" in says(image_model(), Images(tmp_path, std=(0,)))
    assert "of shape batchx2x4x4" in says(passing_through(2).model("reader.0"), tmp_path)


# BatchNormalization scales.


def normalized(net: Net, tensor: str, gamma: list[float], name: str) -> str:
    shape = len(gamma)
    rest = [net.random(shape), net.random(shape), np.abs(net.random(shape))]
    return net(
        "BatchNormalization", tensor, net.constant(np.array(gamma, np.float32)), *rest, name=name
    )


def test_bn_takes_the_scale_next_to_the_layer() -> None:
    net = Net(17, x=["batch", 2, 4, 4])
    one = normalized(net, square(net.random(3, 2), net, "x", "a"), [0.5, -3, 1], "bn1")
    two = normalized(net, square(net.random(3, 3), net, net("Relu", one), "b"), [-2, 1, 3], "bn2")
    active = net("Mul", two, net("Sigmoid", two))
    model = net.model(square(net.random(4, 3), net, active, "c"))
    assert pruned(make_masks(model, "bn", 0.34)) == {"b.weight": [0], "c.weight": [1]}
    masks = make_masks(model, "bn", 0.34, side="output")
    assert pruned(masks, "output") == {"a.weight": [0], "b.weight": [1]}


def test_bn_follows_channels_through_joins() -> None:
    net = Net(17, x=["batch", 2, 4, 4])
    one = normalized(net, square(net.random(2, 2), net, "x", "a"), [1, 2], "bn1")
    two = normalized(net, square(net.random(2, 2), net, "x", "b"), [5, -8], "bn2")
    net("Concat", one, net("Relu", two), axis=1, name="concat")
    net("Add", one, two, name="add")
    flat = net("Flatten", "add.0")
    net("Gemm", flat, net.constant(net.random(32, 2), "flat"), name="d")
    square(net.random(2, 4), net, "concat.0", "c")
    structure = find_structure(build_graph(net.model("c.0", "d.0")))
    sites = find_sites(structure, "input")
    found = dict(
        zip((site.key for site in sites), batch_norm_scales(structure, sites), strict=True)
    )
    assert found["c.weight"].tolist() == [1, 2, 5, 8]
    assert found["flat"].tolist() == [3] * 16 + [5] * 16


@pytest.mark.parametrize("side", ["input", "output"])
def test_bn_says_where_there_is_none(side: str) -> None:
    with pytest.raises(UsageError, match=r"layer 'conv0.weight' has no BatchNorm.*--skip"):
        make_masks(chain(np.eye(4)), "bn", 0.5, side=side, layers=["conv0"])


# How many channels go, and which.


def net_of_layers() -> onnx.ModelProto:
    """Layers of different widths and scales, so that a global choice differs from a local one."""
    rng = np.random.default_rng(1)
    widths = [8, 12, 5, 16, 3]
    weights = [
        rng.standard_normal((out, into)) * scale
        for into, out, scale in zip(widths[:-1], widths[1:], (1, 10, 0.1, 1), strict=True)
    ]
    return chain(*weights)


WIDTHS = {
    "conv0.weight": 8,
    "conv1.weight": 12,
    "conv2.weight": 5,
    "conv3.weight": 16,
    "fc.weight": 3,
}


@given(
    criterion=st.sampled_from([*WITHOUT_DATA, "hrank"]),
    amount=st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.3, 0.5, 0.99, 1.0])),
    scope=st.sampled_from(["local", "global"]),
    seed=st.integers(0, 3),
)
@settings(max_examples=80, deadline=None)
def test_counts_are_exact_and_results_repeat(
    criterion: str, amount: float, scope: str, seed: int
) -> None:
    model = net_of_layers()
    data = np.random.default_rng(0).standard_normal((2, 2, 3, 3)).astype(np.float32)
    masks = make_masks(model, criterion, amount, scope=scope, seed=seed, data=data)
    assert masks == make_masks(model, criterion, amount, scope=scope, seed=seed, data=data)
    chosen = pruned(masks)
    assert {key: len(set(channels)) for key, channels in chosen.items()} == {
        key: len(channels) for key, channels in chosen.items()
    }
    if scope == "local":
        assert {key: len(channels) for key, channels in chosen.items()} == {
            key: int(amount * width) for key, width in WIDTHS.items()
        }
    else:
        total = sum(WIDTHS.values())
        most = total if amount == 1 else total - len(WIDTHS)
        assert sum(map(len, chosen.values())) == min(int(amount * total), most)
        if amount < 1:
            assert all(len(chosen[key]) < width for key, width in WIDTHS.items())
    load(model, masks)


def test_the_seed_decides_what_random_prunes() -> None:
    model = net_of_layers()
    assert make_masks(model, "random", 0.5, seed=1) != make_masks(model, "random", 0.5, seed=2)
    assert make_masks(model, "l1", 0.5, seed=1) == make_masks(model, "l1", 0.5, seed=2)


def test_global_scope_compares_scores_by_the_mean_of_their_layer() -> None:
    one = np.diag([1.0, 2.0, 3.0, 6.0])  # By the mean: 1/3, 2/3, 1, 2.
    other = np.diag([900.0, 1000.0, 1050.0, 1050.0])  # 0.9, 1, 1.05, 1.05.
    model = chain(one, other)
    for criterion in ("l1", "l2"):
        masks = make_masks(model, criterion, 0.375, scope="global", skip=["fc"])
        assert pruned(masks) == {"conv0.weight": [0, 1], "conv1.weight": [0]}


def test_lamp_compares_layers_as_it_is() -> None:
    one, other = np.diag(np.sqrt([1.0, 1.0, 1.0, 1.0])), np.diag(np.sqrt([1.0, 2.0, 3.0, 4.0]))
    # All of the first have 1/4; of the second 1/10, 2/9, 3/7 and 1.
    masks = make_masks(chain(one, other), "lamp", 0.25, scope="global", skip=["fc"])
    assert pruned(masks) == {"conv0.weight": [], "conv1.weight": [0, 1]}


def test_the_best_channel_of_a_layer_stays_unless_all_go() -> None:
    model = chain(np.diag([1.0, 1.0, 1.0]), np.diag([1.0, 1.0, 1.0]))
    for amount, kept in ((0.99, {2}), (1.0, set())):
        chosen = pruned(make_masks(model, "l1", amount, scope="global", skip=["fc"]))
        assert {3 - len(channels) for channels in chosen.values()} == {len(kept)} or not kept
        if amount == 1.0:
            assert chosen == {"conv0.weight": [0, 1, 2], "conv1.weight": [0, 1, 2]}


def test_of_equal_scores_the_first_go() -> None:
    assert pruned(make_masks(chain(np.ones((4, 4))), "l2", 0.5))["conv0.weight"] == [0, 1]


# Which layers.


def test_pixels_classes_and_groups_are_left_alone() -> None:
    net = Net(17, x=["batch", 4, 6, 6])
    scaled = net("Div", net("Sub", "x", net.random(1, 4, 1, 1)), net.random(1, 4, 1, 1))
    first = net("Conv", scaled, net.constant(net.random(8, 4, 3, 3), "first"), name="a")
    depthwise = net(
        "Conv", net("Relu", first), net.constant(net.random(8, 1, 3, 3), "dw"), name="b", group=8
    )
    flat = net("Flatten", net("GlobalAveragePool", depthwise))
    hidden = net("MatMul", flat, net.constant(net.random(8, 5), "hidden"), name="c")
    last = net("Gemm", net("Relu", hidden), net.constant(net.random(5, 3), "last"), name="d")
    model = net.model(net("Softmax", net("Add", last, net.random(3))))
    assert set(pruned(make_masks(model, "l1", 0.5))) == {"hidden", "last"}
    assert set(pruned(make_masks(model, "l1", 0.5, side="output"), "output")) == {"first", "hidden"}
    named = make_masks(model, "l1", 0.5, layers=["first", "c", "d.0"])
    assert set(pruned(named)) == {"first", "hidden", "last"}
    # A pattern chooses among those that are pruned by default.
    assert set(pruned(make_masks(model, "l1", 0.5, layers=["*"]))) == {"hidden", "last"}
    assert set(pruned(make_masks(model, "l1", 0.5, skip=["hid*"]))) == {"last"}
    with pytest.raises(UsageError, match="no layer is left"):
        make_masks(model, "l1", 0.5, layers=["dw"])


def test_a_pattern_that_matches_nothing_lists_close_names() -> None:
    for option in ("layers", "skip"):
        patterns: dict[str, Any] = {option: ["conv0.wieght"]}
        with pytest.raises(UsageError, match=rf"--{option} conv0.wieght: .*closest: conv0.weight"):
            make_masks(net_of_layers(), "l1", 0.5, **patterns)


def test_a_shared_weight_is_called_by_its_nodes() -> None:
    net = Net(17, x=["batch", 2, 4, 4])
    shared = net.constant(net.random(2, 2, 1, 1), "shared")
    first = net("Conv", "x", shared, name="first")
    second = net("Conv", net("Relu", first), shared, name="second")
    hidden = net("Conv", net("Relu", second), shared, name="")
    own = net("Transpose", net.constant(net.random(3, 2), "own"), perm=[1, 0])
    flat = net("Flatten", net("GlobalMaxPool", hidden))
    model = net.model(net("MatMul", flat, own, name="linear"))
    assert set(pruned(make_masks(model, "l1", 0.5))) == {"second", hidden.split(".")[0], "own"}
    for node in model.graph.node:
        if node.name == hidden.split(".")[0]:
            node.name = ""
    assert set(pruned(make_masks(model, "l1", 0.5))) == {"second", hidden, "own"}


# Either orientation of every layer's weight.


@pytest.mark.parametrize("side", ["input", "output"])
def test_every_kind_of_layer_by_its_channels(side: str) -> None:
    scale = np.array([3, 1, 2, 4], np.float32)  # Of either side: channels 1 and 2 go.
    matrix = np.outer(scale, scale)
    kinds: dict[str, Array] = {"Conv": matrix[..., None, None], "MatMul": matrix, "Gemm": matrix}
    for op, weight in {**kinds, "ConvTranspose": matrix[..., None, None]}.items():
        net = Net(17, x=["batch", 2, 3, 3])
        tensor = net("Relu", square(net.random(4, 2), net, "x", "stem"))
        if op in ("MatMul", "Gemm"):
            tensor = net("Flatten", net("GlobalAveragePool", tensor))
        slanted = weight * np.arange(1, 5).reshape(-1, 1, *[1] * (weight.ndim - 2))
        made = net(op, tensor, net.constant(slanted.astype(np.float32), "weight"), name="it")
        shape = (4, 4) if op in ("MatMul", "Gemm") else (4, 4, 1, 1)
        after = "MatMul" if len(shape) == 2 else "Conv"
        model = net.model(net(after, net("Relu", made), net.constant(net.random(*shape)), name="z"))
        # Rows: 3, 2, 6, 16 of everything; columns in the order of `scale`.
        rows_are_inputs = op != "Conv"
        expected = [0, 1] if rows_are_inputs == (side == "input") else [1, 2]
        masks = make_masks(model, "l1", 0.5, side=side, layers=["it"])
        assert pruned(masks, side) == {"weight": expected}, op


# One decision per coupled set.


def residual() -> onnx.ModelProto:
    net = Net(17, x=["batch", 3, 8, 8])
    stem = net("Relu", square(net.random(8, 3), net, "x", "stem"))
    inner = net("Relu", square(net.random(6, 8), net, stem, "block1.a"))
    joined = net("Relu", net("Add", stem, square(net.random(8, 6), net, inner, "block1.b")))
    inner = net("Relu", square(net.random(6, 8), net, joined, "block2.a"))
    joined = net("Relu", net("Add", joined, square(net.random(8, 6), net, inner, "block2.b")))
    flat = net("Flatten", net("GlobalAveragePool", joined))
    return net.model(net("Gemm", flat, net.constant(net.random(8, 4), "fc"), name="fc.node"))


def dense() -> onnx.ModelProto:
    net = Net(17, x=["batch", 3, 8, 8])
    grown = net("Relu", square(net.random(8, 3), net, "x", "stem"))
    for step in range(3):
        width = 8 + 4 * step
        new = net("Relu", square(net.random(4, width), net, grown, f"step{step}"))
        grown = net("Concat", grown, new, axis=1)
    flat = net("Flatten", net("GlobalAveragePool", grown))
    return net.model(net("Gemm", flat, net.constant(net.random(20, 4), "fc"), name="fc.node"))


def squeeze_and_excite() -> onnx.ModelProto:
    net = Net(17, x=["batch", 3, 8, 8])
    expanded = net("Relu", square(net.random(12, 3), net, "x", "expand"))
    filters = net.constant(net.random(12, 1, 3, 3), "dw")
    depthwise = net("Conv", expanded, filters, name="dw.node", group=12, pads=[1, 1, 1, 1])
    active = net("Relu", depthwise)
    small = net("Relu", square(net.random(4, 12), net, net("GlobalAveragePool", active), "squeeze"))
    gate = net("Sigmoid", square(net.random(12, 4), net, small, "excite"))
    projected = square(net.random(6, 12), net, net("Mul", active, gate), "project")
    flat = net("Flatten", projected)  # Blocks of 64 inputs stand for one channel.
    return net.model(net("Gemm", flat, net.constant(net.random(384, 4), "fc"), name="fc.node"))


MODELS = {"residual": residual, "dense": dense, "squeeze-and-excite": squeeze_and_excite}


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("criterion", ["l2", "lamp", "random"])
@pytest.mark.parametrize("name", MODELS)
def test_constrained_input_masks_agree(name: str, criterion: str, scope: str) -> None:
    model = MODELS[name]()
    masks = make_masks(model, criterion, 0.5, constrained=True, scope=scope)
    loaded = load(model, masks)
    mine = {mask.layer.node.index: mask.pruned.tolist() for mask in loaded.masks}
    grown = {
        mask.layer.node.index: mask.pruned.tolist() for mask in grow_masks(analyze(loaded.graph))
    }
    assert grown == {index: channels for index, channels in mine.items() if channels}
    assert sum(map(len, mine.values())) > 0
    # What each strategy would pay: nothing, for nobody disagrees. Alone they do.
    assert copies(model, masks) == {"auto": 0, "gather": 0, "upscale": 0}
    alone = make_masks(model, "random", 0.5, scope=scope)
    assert copies(model, alone)["gather"] > 0


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("name", MODELS)
def test_constrained_output_masks_agree(name: str, scope: str) -> None:
    model = MODELS[name]()
    masks = make_masks(model, "l2", 0.5, constrained=True, side="output", scope=scope)
    loaded = load(model, masks)
    structure = find_structure(loaded.graph)
    gone: dict[int, bool] = {}
    writes = {facts.node.index: facts.write for facts in structure.facts}
    for mask in loaded.masks:
        write = writes[mask.layer.node.index]
        assert write is not None
        for channel, root in enumerate(structure.roots[write.labels].tolist()):
            assert gone.setdefault(root, channel in mask.pruned) == (channel in mask.pruned)
    assert any(gone.values())
    if (
        scope == "local"
    ):  # Grouped layers follow: what is coupled through one is pruned all the same.
        assert all(len(mask.pruned) == mask.layer.outputs // 2 for mask in loaded.masks)
    assert copies(model, masks) == {"auto": 0, "gather": 0, "upscale": 0}


@given(
    case=cases(),
    criterion=st.sampled_from(WITHOUT_DATA),
    amount=st.sampled_from([0.3, 0.6, 1.0]),
    scope=st.sampled_from(["local", "global"]),
)
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_constrained_masks_agree_on_random_models(
    case: Case, criterion: str, amount: float, scope: str
) -> None:
    try:
        masks = make_masks(case.model, criterion, amount, scope=scope, constrained=True)
    except UsageError as error:
        assert "is left" in str(error)  # No layer, or no channel.
        return
    loaded = load(case.model, masks)
    mine = {mask.layer.node.index: set(mask.pruned.tolist()) for mask in loaded.masks}
    before = {
        mask.layer.node.index: set(mask.pruned.tolist())
        for mask in grow_masks(analyze(load(case.model).graph))  # By zeros of the model's own.
    }
    for mask in grow_masks(analyze(loaded.graph)):
        index = mask.layer.node.index
        assert set(mask.pruned.tolist()) <= mine.get(index, set()) | before.get(index, set())


def copies(model: onnx.ModelProto, masks: Mapping[str, Any]) -> dict[str, int]:
    return {
        strategy: onnx_upscale.optimize(model, dict(masks), strategy=strategy).report["copies"][
            "count"
        ]
        for strategy in ("auto", "gather", "upscale")
    }


def test_coupled_scores_are_the_mean_over_readers() -> None:
    """Of two readers of the same tensor, each by the mean of its own scores."""
    net = Net(17, x=["batch", 2, 4, 4])
    shared = net("Relu", square(net.random(3, 2), net, "x", "stem"))
    one = square(np.array([[1.0, 2.0, 6.0]]), net, shared, "one")  # By the mean: 1/3, 2/3, 2.
    other = square(np.array([[500.0, 100.0, 600.0]]), net, shared, "other")  # 1.25, 0.25, 1.5.
    model = net.model(one, other)
    apart = pruned(make_masks(model, "l1", 0.34))
    assert apart == {"one.weight": [0], "other.weight": [1]}
    together = pruned(make_masks(model, "l1", 0.34, constrained=True))  # 19/24, 11/24, 1.75.
    assert together == {"one.weight": [1], "other.weight": [1]}


def test_coupled_scores_are_the_mean_over_a_block() -> None:
    """Nine inputs of a Gemm behind a Flatten stand for one channel of a Conv."""
    net = Net(17, x=["batch", 2, 3, 3])
    shared = net("Relu", square(net.random(3, 2), net, "x", "stem"))
    one = square(np.array([[1.0, 2.0, 3.0]]), net, shared, "one")  # By the mean: 0.5, 1, 1.5.
    rows = np.repeat([[1.5], [1.0], [0.5]], 9, axis=0).astype(np.float32)
    rows[10, 0] = 0.1  # 1.55, 0.93, 0.52 by the mean: together 1.03, 0.97, 1.01.
    flat = net("Gemm", net("Flatten", shared), net.constant(rows, "flat"), name="flat.node")
    masks = pruned(make_masks(net.model(one, flat), "l1", 0.34, constrained=True))
    assert masks == {"one.weight": [1], "flat": list(range(9, 18))}


def test_global_scope_does_not_favour_what_many_read() -> None:
    net = Net(17, x=["batch", 2, 3, 3])
    shared = net("Relu", square(net.random(2, 2), net, "x", "stem"))
    even, uneven = np.array([[1.0, 1.0], [1.0, 1.0]]), np.array([[1.1, 0.9]])
    one = square(uneven, net, shared, "one")
    two = square(uneven, net, shared, "two")
    alone = square(np.array([[1.02, 0.98]]), net, net("Relu", square(even, net, "x", "b")), "three")
    masks = make_masks(net.model(one, two, alone), "l1", 0.25, constrained=True, scope="global")
    assert pruned(masks) == {"one.weight": [1], "two.weight": [1], "three.weight": []}


def test_constrained_prunes_that_share_of_every_set() -> None:
    masks = pruned(make_masks(dense(), "l1", 0.5, constrained=True))
    # step2 reads the stem's 8 channels, and 4 of each step before; fc reads all.
    assert len(masks["step0.weight"]) == 4
    assert masks["step1.weight"][:4] == masks["step0.weight"]
    assert len(masks["step2.weight"]) == 8
    assert len(masks["fc"]) == 10


def test_constrained_leaves_alone_what_others_keep() -> None:
    model = residual()
    masks = pruned(make_masks(model, "l1", 0.5, constrained=True, skip=["block2.a.weight"]))
    assert masks["block1.a.weight"] == masks["fc"] == []
    assert len(masks["block1.b.weight"]) == len(masks["block2.b.weight"]) == 3
    with pytest.raises(UsageError, match="no channel is left to prune"):
        make_masks(model, "l1", 0.5, constrained=True, layers=["fc"])


def test_constrained_leaves_alone_what_an_operator_needs_whole() -> None:
    net = Net(17, x=["batch", 5, 6])
    hidden = net("Relu", net("MatMul", "x", net.constant(net.random(6, 8), "up"), name="up.node"))
    normed = net("LayerNormalization", hidden, net.random(8))
    wide = net("Relu", net("MatMul", normed, net.constant(net.random(8, 12), "a"), name="a.node"))
    model = net.model(net("MatMul", wide, net.constant(net.random(12, 3), "b"), name="b.node"))
    masks = pruned(make_masks(model, "l1", 0.5, constrained=True))
    assert (len(masks["a"]), len(masks["b"])) == (0, 6)


# Bad input.


def test_what_cannot_be_meant_is_refused() -> None:
    model = net_of_layers()
    for amount in (-0.1, 1.1, math.nan):
        with pytest.raises(UsageError, match="must be from 0 to 1"):
            make_masks(model, "l1", amount)
    with pytest.raises(UsageError, match=r"unknown criterion 'l3' .*l1, l2, lamp"):
        make_masks(model, "l3", 0.5)
    with pytest.raises(UsageError, match="unknown side"):
        make_masks(model, "l1", 0.5, side="both")
    with pytest.raises(UsageError, match="unknown scope"):
        make_masks(model, "l1", 0.5, scope="all")
    with pytest.raises(UsageError, match="batch-size"):
        make_masks(model, "l1", 0.5, batch_size=0)


def test_weights_must_be_numbers() -> None:
    model = chain(np.array([[1.0, np.nan], [1.0, 2.0]]))
    with pytest.raises(ModelError, match=r"layer 'conv0.weight': .*NaN"):
        make_masks(model, "l1", 0.5)


def test_the_model_stays_as_it_is() -> None:
    model = net_of_layers()
    before = model.SerializeToString(deterministic=True)
    make_masks(model, "hrank", 0.5, data=np.ones((1, 2, 3, 3), np.float32))
    assert model.SerializeToString(deterministic=True) == before


def test_quantized_weights_are_scored_by_their_values() -> None:
    net = Net(17, x=["batch", 2, 3, 3])
    tensor = net("Relu", square(net.random(3, 2), net, "x", "stem"))
    stored = numpy_helper.from_array(np.array([[9, 1, 5]] * 2, np.int8).reshape(2, 3, 1, 1), "q")
    net.initializers.append(stored)
    weight = net("DequantizeLinear", "q", np.float32(0.5), np.int8(1))
    model = net.model(net("Conv", tensor, weight, name="it"))
    assert pruned(make_masks(model, "l1", 0.34)) == {"q": [1]}
