"""HRank, and the data and images that it looks at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from build import Array, Net
from onnx_upscale import DataError, UpscaleError
from onnx_upscale.criteria import CRITERIA, Images
from onnx_upscale.criteria.sites import find_sites
from onnx_upscale.criteria.table import Subject
from onnx_upscale.optimizer.analyze import find_structure
from onnx_upscale.optimizer.load.graph import build_graph
from pruning import CLOSE, make_masks, pruned, square


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
        sites = find_sites(structure, "input", ["*"]).chosen
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

    assert "`data`" in says(None)
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
    assert "give `size`" in says(image_model(height="side"), tmp_path)
    assert "is less than the input's 4x4" in says(image_model(), Images(tmp_path, size=3))
    assert "`mean`: expected 1 or 3 numbers" in says(image_model(), Images(tmp_path, mean=(1, 2)))
    assert "`std`: must be more than 0" in says(image_model(), Images(tmp_path, std=(0,)))
    assert "of shape batchx2x4x4" in says(passing_through(2).model("reader.0"), tmp_path)
