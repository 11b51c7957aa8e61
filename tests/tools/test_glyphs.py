"""The glyphs of tools/: their images."""

from __future__ import annotations

import numpy as np
import pytest

glyphs = pytest.importorskip("experiment.glyphs", reason="needs matplotlib")

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
