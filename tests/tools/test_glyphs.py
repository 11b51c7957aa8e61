"""The glyphs of tools/: their images, and networks that learn them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnx_upscale
from onnx_upscale.running import Session

glyphs = pytest.importorskip("experiment.glyphs", reason="needs matplotlib")
if missing := glyphs.missing_fonts():
    pytest.skip(f"matplotlib before 3.11 has no {missing[0]}", allow_module_level=True)

SIZE = 108  # three of each class


class TestImages:
    def test_the_same_every_time(self) -> None:
        (images, labels), (again, same) = (glyphs.glyphs(SIZE, 7, glyphs.SEEN) for _ in range(2))
        assert images.tobytes() == again.tobytes()
        assert labels.tobytes() == same.tobytes()

    def test_seeds_differ(self) -> None:
        images, others = (glyphs.glyphs(SIZE, [0, seed], glyphs.SEEN)[0] for seed in (0, 1))
        assert not (images[:, None] == others[None]).all(axis=(2, 3, 4)).any()

    def test_values_are_greys(self) -> None:
        images, _ = glyphs.glyphs(SIZE, 7, glyphs.SEEN)
        assert images.shape == (SIZE, 1, 16, 16)
        assert images.dtype == np.float32
        assert images.min() >= 0
        assert images.max() <= 1
        assert np.abs(images * 255 - np.rint(images * 255)).max() < 1e-4
        assert images.std(axis=(1, 2, 3)).min() > 0.03

    @pytest.mark.parametrize(("count", "fewest"), [(SIZE, 3), (SIZE + 35, 3), (SIZE + 36, 4)])
    def test_classes_are_balanced(self, count: int, fewest: int) -> None:
        _, labels = glyphs.glyphs(count, 7, glyphs.SEEN)
        counts = np.bincount(labels, minlength=36)
        assert counts.shape == (36,)
        assert counts.min() == fewest
        assert counts.max() - counts.min() <= 1

    def test_more_than_one_part(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(glyphs, "_AT_ONCE", 50)
        images, labels = glyphs.glyphs(SIZE, 7, glyphs.SEEN)
        assert len(np.unique(images.reshape(SIZE, -1), axis=0)) == SIZE
        assert np.bincount(labels).tolist() == [3] * 36

    def test_fonts_held_out(self) -> None:
        assert not set(glyphs.SEEN) & set(glyphs.UNSEEN)


class TestMasters:
    def test_every_character_is_inside_and_another(self) -> None:
        drawn = glyphs.masters(glyphs.SEEN + glyphs.UNSEEN)
        assert drawn.shape == (21, 36, 32, 32)
        assert drawn.min() == 0
        assert 0.9 < drawn.max() <= 1
        border = np.ones((32, 32), bool)
        border[1:-1, 1:-1] = False
        assert not drawn[:, :, border].any()
        assert len(np.unique(drawn.reshape(21 * 36, -1), axis=0)) == 21 * 36

    def test_a_place_is_row_then_column(self) -> None:
        drawn = np.zeros((1, 1, 32, 32))
        drawn[0, 0, 5, 9] = 1
        places = np.zeros((1, 2, 16, 16))
        places[0, 0], places[0, 1] = 5, 9
        places[0, :, 0, 0] = 4.75, 9  # a quarter of a row off
        places[0, :, 0, 1] = 5, 9.5
        none = np.zeros(1, np.int64)
        found = glyphs._sample(drawn, none, none, places)[0]
        assert found[0, 0] == 0.75
        assert found[0, 1] == 0.5
        assert found[1, 1] == 1

    def test_undistorted_it_is_its_master(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("_ROTATION", "_SHEAR", "_STRETCH", "_SHIFT", "_BEND"):
            monkeypatch.setattr(glyphs, name, 0)
        monkeypatch.setattr(glyphs, "_NOISE", (0, 0))
        monkeypatch.setattr(glyphs, "_CONTRAST", (1, 1))
        monkeypatch.setattr(glyphs, "_STEP", 1)
        images, labels = glyphs.glyphs(SIZE, 7, ["DejaVuSans"])
        middle = glyphs.masters(["DejaVuSans"])[0, labels, 8:24, 8:24]
        assert np.abs(images[:, 0] - middle).max() <= 0.5 / 255 + 1e-6


class TestTraining:
    @pytest.fixture(autouse=True)
    def _needs_torch(self) -> None:
        pytest.importorskip("torch")

    @pytest.mark.slow
    @pytest.mark.parametrize("network", ["mobilenet", "vit"])
    def test_a_few_steps_lower_the_loss(self, network: str) -> None:
        torch = pytest.importorskip("torch")
        from experiment.networks import NETWORKS, set_dropout
        from experiment.training import Recipe, train

        images, labels = map(torch.from_numpy, glyphs.glyphs(256, 0, glyphs.SEEN))
        torch.manual_seed(0)
        model = NETWORKS[network](36)
        set_dropout(model, 0)

        def loss() -> float:
            model.train()  # Normalization by the batch: running means take longer than this.
            with torch.no_grad():
                found: float = torch.nn.functional.cross_entropy(model(images), labels).item()
            return found

        before = loss()
        train(model, images, labels, 0, Recipe(epochs=6, rate=2e-3))
        assert loss() < 0.95 * before

    @pytest.mark.slow
    def test_files_for_what_needs_no_torch(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from experiment import sources
        from experiment.cells import accuracy
        from experiment.exporting import exported, write_images

        monkeypatch.setattr(glyphs, "TRAINING", 72)
        monkeypatch.setattr(glyphs, "TEST", 360)
        source = sources.Glyphs(tmp_path, seeds=1)
        path = exported(source, "vit", 0, tmp_path)
        write_images(source, 0, tmp_path)
        with np.load(tmp_path / "test.npz") as test:
            images, labels = test["input"], test["labels"]
        assert images.shape == (360, 1, 16, 16)
        assert np.bincount(labels).tolist() == [10] * 36
        (logits,) = Session(onnx.load(path)).run({"input": images}).values()
        assert (logits.argmax(axis=1) == labels).mean() == accuracy(path, source, 0)
        with np.load(tmp_path / "calibration.npz") as calibration:
            assert calibration.files == ["input"]
            assert calibration["input"].shape == (512, 1, 16, 16)
        masks = onnx_upscale.mask(path, "l1", 0.5, data=tmp_path / "calibration.npz")
        result = onnx_upscale.optimize(path, masks, samples=1)
        assert result.report["output"]["macs"] < result.report["input"]["macs"]
